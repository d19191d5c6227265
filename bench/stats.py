"""Statistics of samples. Floor 0: no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

BIMODAL_D = 5.0
BIMODAL_SHIFT = 0.03
Samples = Sequence[float] | np.ndarray[Any, Any]


def median(samples: Samples) -> float:
    """Return the median; NaN of none, or where one is NaN."""
    ordered = _ordered(samples)
    if not ordered:
        return math.nan
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _ordered(samples: Samples) -> list[float]:
    """Return the samples from least to most; none where one of them is NaN."""
    ordered: list[float] = np.sort(np.asarray(samples, dtype=np.float64)).tolist()
    return [] if ordered and math.isnan(ordered[-1]) else ordered  # NaN is sorted to the end


def quantiles(samples: Samples, shares: Sequence[float]) -> list[float]:
    """Return quantiles, interpolated linearly (Hyndman and Fan's 7), as ``numpy.quantile`` does.

    Of 31 samples it takes 5 us where ``numpy.percentile`` takes 75: a report has 30,000 of them.
    """
    ordered = _ordered(samples)
    if not ordered:
        return [math.nan] * len(shares)
    found = []
    for share in shares:
        place = (len(ordered) - 1) * share
        below = math.floor(place)
        low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
        part = place - below
        # from the nearer end, as numpy rounds
        value = low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)
        found.append(value)
    return found


def median_interval(samples: Samples, confidence: float = 0.95) -> tuple[float, float]:
    """Return the order-statistic interval of the median (distribution-free).

    The ranks are the closest symmetric pair (l, n+1-l) whose binomial coverage is at least
    ``confidence`` (Conover, Practical Nonparametric Statistics, 3.2). With fewer than six
    samples no pair covers 95 %: the range is returned.
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    n = len(ordered)
    rank = _rank(n, confidence)
    return float(ordered[rank - 1]), float(ordered[n - rank])


@lru_cache(maxsize=1024)  # 0.4 ms each, and a report of 10,000 cells asks 30,000 times
def _rank(n: int, confidence: float) -> int:
    """Return the largest l with P(X <= l - 1) <= (1 - confidence) / 2 for X ~ Binomial(n, 1/2)."""
    from scipy.stats import binom  # takes 1.5 s to load: only where it is called

    rank = int(binom.ppf((1 - confidence) / 2, n, 0.5))
    if rank > 0 and binom.cdf(rank - 1, n, 0.5) > (1 - confidence) / 2:
        rank -= 1
    return max(rank, 1)


def severe_outliers(samples: Samples, q1: float, q3: float) -> int:
    """Return how many samples lie beyond Tukey's outer fences, three quartile ranges off."""
    data, far = np.asarray(samples, dtype=np.float64), 3 * (q3 - q1)
    return int(((data < q1 - far) | (data > q3 + far)).sum())


def is_bimodal(samples: Samples) -> bool:
    """Return whether the samples fall into two separate clusters.

    The split with the least squared deviation within its halves is taken, each half with a tenth
    of the samples at least (and three). They are two when their means lie ``BIMODAL_D`` pooled
    standard deviations and ``BIMODAL_SHIFT`` of the median apart: Ashman's D (Ashman, Bird and
    Zepf 1994, AJ 108, 2348), whose bound of 2 for mixtures is too low for halves that a split
    made: those of a normal sample lie 2.6 apart, of a uniform one 3.5.
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    n = len(ordered)
    least = max(3, math.ceil(n / 10))
    if n < 2 * least:
        return False
    sizes = np.arange(least, n - least + 1)
    sums, squares = np.cumsum(ordered), np.cumsum(ordered**2)
    low_mean, high_mean = sums[sizes - 1] / sizes, (sums[-1] - sums[sizes - 1]) / (n - sizes)
    low_var = squares[sizes - 1] / sizes - low_mean**2
    high_var = (squares[-1] - squares[sizes - 1]) / (n - sizes) - high_mean**2
    low_var, high_var = np.maximum(low_var, 0), np.maximum(high_var, 0)  # rounding may go below
    best = int(np.argmin(sizes * low_var + (n - sizes) * high_var))
    distance = high_mean[best] - low_mean[best]
    spread = math.sqrt((low_var[best] + high_var[best]) / 2)
    return bool(distance > BIMODAL_SHIFT * np.median(ordered) and distance > BIMODAL_D * spread)


def geometric_mean(values: Samples) -> float:
    """Return the geometric mean; NaN for none."""
    return math.exp(float(np.mean(np.log(values)))) if len(values) else math.nan


def mean_interval(values: Samples, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return (mean, low, high) by Student's t; the interval is NaN below two values."""
    from scipy.stats import t

    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean())
    if len(data) < 2:
        return mean, math.nan, math.nan
    half = float(data.std(ddof=1)) / math.sqrt(len(data))
    half *= float(t.ppf((1 + confidence) / 2, len(data) - 1))
    return mean, mean - half, mean + half
