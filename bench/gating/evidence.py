"""What trials say of many cells at once. Floor 0: no torch.

A trial of a cell gives two numbers, medians over laps in which the three processes took turns:
``d``, head's log time less the mean of base's two, and ``a``, base's second less its first. With
processes of equal code, d has a variance of 3/2 and a of 2 of one process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from bench.gating.rule import Rule
from bench.stats import median_interval

Array = np.ndarray[Any, np.dtype[np.float64]]
CONFIDENCE = 0.95
# A cell of equal code is cleared by a look if its mean stays under so many errors: in 97.7 % of
# looks at many trials, in 94.9 % at three.
ROOM = 2.0
OF_A = 0.75  # the variance of d over that of a


@dataclass(frozen=True)
class Evidence:
    """One entry a cell; effects are ratios head / base less one.

    Attributes:
        trials: how many there are. effect: of the median trial.
        low, high: 90 % interval of the mean effect, so that each side holds with 95 %.
        margin: the smallest slow-down that these trials can see: one as large would be cleared
            with 5 % at most; the rule's least margin at least.
        noise: standard deviation of a trial.
        p: of a slow-down up to the tolerance, by a one-sided t-test.
    """

    trials: int
    effect: Array
    low: Array
    high: Array
    margin: Array
    noise: Array
    p: Array


def weigh(d: Array, a: Array, rule: Rule) -> Evidence:
    """Return what trials say.

    Args:
        d, a: [cells, trials], logarithms; two trials at least.
    """
    n = d.shape[1]
    if n < 2 or d.shape != a.shape:
        raise ValueError(f"expected two trials or more of each cell, got {d.shape} and {a.shape}")
    mean = d.mean(axis=1)
    # d scatters around its mean, a around nothing: both tell of the same noise
    squares = (n - 1) * d.var(axis=1, ddof=1) + OF_A * (a**2).sum(axis=1)
    noise = np.sqrt(squares / (2 * n - 1))
    error = np.maximum(noise / np.sqrt(n), 1e-12)
    sure = float(special.stdtrit(2 * n - 1, CONFIDENCE))
    limit = np.log1p(rule.tolerance)
    return Evidence(
        trials=n,
        effect=np.expm1(np.median(d, axis=1)),
        low=np.expm1(mean - sure * error),
        high=np.expm1(mean + sure * error),
        margin=np.maximum(rule.least_margin, np.expm1((sure + ROOM) * error)),
        noise=noise,
        p=special.stdtr(2 * n - 1, (limit - mean) / error),
    )


def holm(p: Array) -> Array:
    """Return p-values adjusted for all of them (Holm 1979, Scand. J. Statist. 6, 65)."""
    order = np.argsort(p)
    steps = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def reading(base: Array, head: Array, again: Array) -> tuple[float, float]:
    """Return (d, a) of one trial.

    Args:
        base, head, again: [laps], seconds, paired by position.
    """
    one, two, new = np.log(base), np.log(again), np.log(head)
    return float(np.median(new - (one + two) / 2)), float(np.median(two - one))


def half_width(base: Array, head: Array, again: Array) -> float:
    """Return the half-width of the 95 % interval of d's median over laps."""
    low, high = median_interval(np.log(head) - (np.log(base) + np.log(again)) / 2)
    return (high - low) / 2


def wilcoxon_p(d: Array, rule: Rule) -> float:
    """Return one cell's p by Wilcoxon's signed ranks, to stand beside the t-test's."""
    from scipy import stats  # takes 1.5 s to load

    values = d - np.log1p(rule.tolerance)
    return float(stats.wilcoxon(values, alternative="greater").pvalue) if values.any() else 1.0
