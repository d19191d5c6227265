"""Steps in a short and noisy series: where they are, how large, and what cannot be seen. No torch.

A series holds logarithms of times, so a difference of 0.08 is 8 %, and up is slower. Its steps
are those of the segmentation that costs least (PELT: Killick, Fearnhead and Eckley 2012, JASA
107, 1590; library ``ruptures``), with three choices:

* **Cost**: squares, cut off (Fearnhead and Rigaill 2019, JASA 114, 169): a run costs at most
  ``CAP`` of a step's price. So one stray run never pays for a step, wherever it stands, and two
  that agree can. Plain squares call a stray run a step; ranks need ten runs for any step at all.
* **Noise**: from differences of neighbours, which a step touches once; the largest quarter of
  them is left out.
* **Price of a step**: what noise alone pays for its best split with probability ``ALPHA`` over
  all series that are judged together. One split gains noise² · F(1, v), with v for how well the
  noise is known: the price is the square of Student's t at ALPHA / (2 · places · series).

Steps below ``LEAST_STEP`` are joined up, the smallest first, so that many small ones, a creep,
become one that counts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

LEAST_RUNS = 4  # two on each side of a step
LEAST_STEP = 0.03
ALPHA = 0.01
CAP = 0.75  # of the price; in (0.5, 1): two runs at an end can pay for a step, one cannot
KEPT = 0.75  # of the differences that tell the noise
LEAST_NOISE = 0.001  # copies of one folder have none
POWER = 0.9
CONFIDENCE = 0.95
MEDIAN = 1.2533  # its standard error in those of the mean, in normal noise
INSTALL = "python -m pip install -c constraints.txt ruptures"

Values = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        first: index of the first run after it.
        before, after: levels, logarithms.
        half: half-width of the 95 % interval of ``after - before``.
    """

    first: int
    before: float
    after: float
    half: float

    @property
    def size(self) -> float:
        """``after - before``: above 0 is slower."""
        return self.after - self.before


@dataclass(frozen=True)
class Segmented:
    """What a series shows; nothing (NaN, empty) with fewer than ``LEAST_RUNS`` runs.

    Attributes:
        steps: in order.
        levels: one a run, logarithms: the level of its segment.
        noise: standard deviation of a run, as a logarithm.
        penalty: the price of a step, in noise².
        middle, recent: relative sizes from which a step is called with probability ``POWER``:
            one in the middle of the series, one that is two runs old.
    """

    steps: tuple[Step, ...]
    levels: tuple[float, ...]
    noise: float
    penalty: float
    middle: float
    recent: float


NOTHING = Segmented((), (), math.nan, math.nan, math.nan, math.nan)


def segmented(values: Sequence[float], series: int = 1) -> Segmented:
    """Return the steps of one series.

    Args:
        values: logarithms of times in order.
        series: how many series are judged together.

    Raises:
        ImportError: ``ruptures`` is not installed. ValueError: a value that is not finite.
    """
    data = np.asarray(values, dtype=np.float64)
    if not np.isfinite(data).all():
        raise ValueError(f"expected finite values, got {data.tolist()}")
    n = len(data)
    if n < LEAST_RUNS:
        return NOTHING
    spread, price, centre = noise(data), penalty(n, series), float(np.median(data))
    cap = math.sqrt(CAP * price)
    scaled = (data - centre) / spread
    edges = _joined(scaled, _pelt(scaled, price, cap), cap, math.log1p(LEAST_STEP) / spread)
    parts = list(itertools.pairwise(edges))
    levels = [centre + spread * _fit(scaled[a:b], cap)[1] for a, b in parts]
    quantile = float(scipy_stats.t.ppf((1 + CONFIDENCE) / 2, freedom(n)))
    steps = tuple(
        Step(
            first=b,
            before=levels[i],
            after=levels[i + 1],
            half=quantile * spread * math.sqrt(1 / (b - a) + 1 / (edges[i + 2] - b)),
        )
        for i, (a, b) in enumerate(parts[:-1])
    )
    runs = tuple(level for level, (a, b) in zip(levels, parts, strict=True) for _ in range(a, b))
    middle, recent = (_seen(n, price, noise(data, 1), after) for after in (n // 2, 2))
    return Segmented(steps, runs, spread, price, middle, recent)


def shifted(
    before: Sequence[float], after: Sequence[float], found: Segmented, n: int, series: int
) -> float:
    """Return how far a series moved at a place known beforehand; 0 for no step there.

    The difference of medians, where it is ``LEAST_STEP`` at least and beyond the noise.

    Args:
        before, after: logarithms on both sides of the place. found: the series', ``n`` runs.
        series: how many are asked together.
    """
    if not before or not after or math.isnan(found.noise):
        return 0.0
    size = float(np.median(after) - np.median(before))
    error = MEDIAN * found.noise * math.sqrt(1 / len(before) + 1 / len(after))
    beyond = float(scipy_stats.t.isf(ALPHA / (2 * series), freedom(n))) * error
    return size if abs(size) >= max(beyond, math.log1p(LEAST_STEP)) else 0.0


def noise(values: Values, stepped: int = 0) -> float:
    """Return the standard deviation of a run from differences of neighbours, [n] -> a number.

    The smallest ``KEPT`` of the squared differences are averaged and scaled to what they are in
    normal noise. Steps are left out so, one a difference, but their places are taken by larger
    differences than they should: four steps in twenty runs raise it to 1.4 times.

    Args:
        stepped: what it may rise to if the series had so many steps more: each spoils one
            difference, and a larger one is counted instead.
    """
    squares = np.sort(np.diff(values) ** 2)
    kept = squares[stepped : _kept(len(values)) + stepped]
    return max(math.sqrt(float(kept.mean()) / _share() / 2), LEAST_NOISE)


def freedom(n: int) -> float:
    """Return Student's degrees of freedom of :func:`noise` in a series of ``n`` runs.

    Those that make :func:`penalty` hold: in 40 000 simulated series a length, noise paid for its
    best split as often as Student's t says with 2.2 (4 runs), 3.1 (6), 6.3 (8), 9.8 (12) and
    17.6 (20 runs) at 1 %, with 2.2, 2.8, 5.5, 8.5 and 14.4 at 0.1 %. Half the runs is below all
    of them by at most a little where series are short, by more where they are long.
    """
    return n / 2


def penalty(n: int, series: int = 1) -> float:
    """Return the price of a step in noise², for ``n`` runs and ``series`` judged together."""
    places = n - 3  # two runs at least on each side
    return float(scipy_stats.t.isf(ALPHA / (2 * places * series), freedom(n))) ** 2


def _kept(n: int) -> int:
    return max(math.floor(KEPT * (n - 1)), 2)


def _share() -> float:
    """Return the mean square of a standard normal value, given that it is among the kept ones."""
    edge = float(scipy_stats.norm.ppf((1 + KEPT) / 2))
    return 1 - 2 * edge * float(scipy_stats.norm.pdf(edge)) / KEPT


def _seen(n: int, price: float, spread: float, after: int) -> float:
    """Return the relative size of a step, ``after`` runs old, that is called with ``POWER``."""
    sure = math.sqrt(price) + float(scipy_stats.norm.ppf(POWER))
    return max(math.expm1(spread * sure * math.sqrt(n / (after * (n - after)))), LEAST_STEP)


def _fit(values: Values, cap: float) -> tuple[float, float]:
    """Return (cost, level): the level costs least, each run its squared distance or ``cap``².

    The runs that are not cut off stand together in order of size, so every such group is tried.
    """
    ordered = np.sort(values)
    n = len(ordered)
    if ordered[-1] - ordered[0] <= cap:  # nothing can be cut off
        return float(ordered.var() * n), float(ordered.mean())
    sums, squares = (np.concatenate(([0.0], np.cumsum(ordered**power))) for power in (1, 2))
    starts, ends = np.triu_indices(n + 1, 1)
    count = ends - starts
    total = sums[ends] - sums[starts]
    costs = squares[ends] - squares[starts] - total**2 / count + (n - count) * cap**2
    best = int(np.argmin(costs))
    return float(costs[best]), float(total[best] / count[best])


def _pelt(scaled: Values, price: float, cap: float) -> list[int]:
    """Return the edges 0, ..., n of the segments that cost least, a step at ``price``."""
    try:
        from ruptures import Pelt
        from ruptures.base import BaseCost
    except ImportError as error:
        raise ImportError(
            f"expected the package ruptures, which finds the steps, got none: {INSTALL}"
        ) from error

    class Capped(BaseCost):  # type: ignore[misc]
        model, min_size = "capped squares", 1

        def fit(self, signal: Values) -> Any:
            self.signal = signal.reshape(-1, 1)
            return self

        def error(self, start: int, end: int) -> float:
            return _fit(self.signal[start:end, 0], cap)[0]

    # one run is no segment because of the cap; a larger min_size would spoil PELT's pruning
    found = Pelt(custom_cost=Capped(), min_size=1, jump=1).fit(scaled).predict(pen=price)
    return [0, *(int(end) for end in found)]


def _joined(scaled: Values, edges: list[int], cap: float, least: float) -> list[int]:
    """Return the edges without the steps below ``least``, the smallest taken out first."""
    edges = list(edges)
    while len(edges) > 2:
        levels = [_fit(scaled[a:b], cap)[1] for a, b in itertools.pairwise(edges)]
        sizes = np.abs(np.diff(levels))
        smallest = int(np.argmin(sizes))
        if sizes[smallest] >= least:
            break
        del edges[smallest + 1]
    return edges
