"""Statistics of samples. Floor 0: no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

Samples = Sequence[float] | np.ndarray[Any, Any]


def median(samples: Samples) -> float:
    """Return the median."""
    return float(np.median(np.asarray(samples, dtype=np.float64)))


def median_interval(samples: Samples, confidence: float = 0.95) -> tuple[float, float]:
    """Return the order-statistic interval of the median (distribution-free).

    The ranks are the closest symmetric pair (l, n+1-l) whose binomial coverage is at least
    ``confidence`` (Conover, Practical Nonparametric Statistics, 3.2). With fewer than six
    samples no pair covers 95 %: the range is returned.
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    n = len(ordered)
    # largest l with P(X <= l - 1) <= (1 - confidence) / 2 for X ~ Binomial(n, 1/2)
    rank = int(scipy_stats.binom.ppf((1 - confidence) / 2, n, 0.5))
    if rank > 0 and scipy_stats.binom.cdf(rank - 1, n, 0.5) > (1 - confidence) / 2:
        rank -= 1
    rank = max(rank, 1)
    return float(ordered[rank - 1]), float(ordered[n - rank])


def geometric_mean(values: Samples) -> float:
    """Return the geometric mean; NaN for none."""
    return math.exp(float(np.mean(np.log(values)))) if len(values) else math.nan


def mean_interval(values: Samples, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return (mean, low, high) by Student's t; the interval is NaN below two values."""
    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean())
    if len(data) < 2:
        return mean, math.nan, math.nan
    half = float(data.std(ddof=1)) / math.sqrt(len(data))
    half *= float(scipy_stats.t.ppf((1 + confidence) / 2, len(data) - 1))
    return mean, mean - half, mean + half
