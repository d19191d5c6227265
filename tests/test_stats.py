"""bench.stats against hand-computed and published values."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import stats

floats = st.floats(min_value=1e-9, max_value=1e3)


def coverage(n: int, rank: int) -> Fraction:
    """Return the exact coverage of order statistics (rank, n + 1 - rank) of the median."""
    outside = sum(math.comb(n, i) for i in range(rank))
    return 1 - Fraction(2 * outside, 2**n)


def test_median_of_odd_and_even_counts() -> None:
    assert stats.median([3.0, 1.0, 2.0]) == 2.0
    assert stats.median([4.0, 1.0, 3.0, 2.0]) == 2.5
    assert stats.median((7.0,)) == 7.0


@given(st.lists(floats, min_size=1, max_size=40), st.floats(0, 1))
def test_quantiles_are_numpys_to_the_last_bit(samples: list[float], share: float) -> None:
    assert stats.quantiles(samples, (0.05, 0.5, share)) == list(
        np.quantile(samples, [0.05, 0.5, share])
    )
    assert stats.median(samples) == np.median(samples)


def test_no_samples_and_unknown_ones_have_no_quantiles() -> None:
    assert all(map(math.isnan, stats.quantiles([], (0.25, 0.75))))
    assert math.isnan(stats.median([1.0, math.nan, 3.0]))


# By hand, from the binomial distribution of "samples below the median" (Conover, Practical
# Nonparametric Statistics, 3.2): for n = 10 the pair (2, 9) leaves out 2 * (1 + 10) / 2**10 =
# 2.1 %, and (3, 8) would leave out 10.9 %; likewise 4.1 % against 11.5 % for n = 20 and 4.3 %
# against 9.9 % for n = 30.
@pytest.mark.parametrize(
    ("n", "ranks"),
    [
        (6, (1, 6)),
        (8, (1, 8)),
        (9, (2, 8)),
        (10, (2, 9)),
        (12, (3, 10)),
        (15, (4, 12)),
        (20, (6, 15)),
        (25, (8, 18)),
        (30, (10, 21)),
        (40, (14, 27)),
        (50, (18, 33)),
        (100, (40, 61)),
    ],
)
def test_median_interval_has_the_published_ranks(n: int, ranks: tuple[int, int]) -> None:
    # sample i is worth i, so that the interval reads off its ranks; reversed, so it must sort
    samples = [float(i) for i in range(n, 0, -1)]
    assert stats.median_interval(samples) == ranks


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [*range(8, 65), 101, 400])
def test_median_interval_is_the_closest_pair_that_covers(n: int, confidence: float) -> None:
    low, high = stats.median_interval([float(i) for i in range(1, n + 1)], confidence)
    rank = int(low)
    assert low + high == n + 1
    assert coverage(n, rank) >= Fraction(confidence)
    if 2 * (rank + 1) < n + 1:
        assert coverage(n, rank + 1) < Fraction(confidence)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_too_few_samples_give_their_range(n: int) -> None:
    assert stats.median_interval([float(i) for i in range(1, n + 1)]) == (1.0, float(n))


@settings(max_examples=50, deadline=None)
@given(st.lists(floats, min_size=1, max_size=60))
def test_median_lies_in_its_interval(samples: list[float]) -> None:
    low, high = stats.median_interval(samples)
    assert min(samples) <= low <= stats.median(samples) <= high <= max(samples)


def test_an_outlier_does_not_move_the_interval() -> None:
    samples = [float(i) for i in range(1, 21)]
    assert stats.median_interval([*samples[:-1], 1e9]) == stats.median_interval(samples)


def test_geometric_mean() -> None:
    assert stats.geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    assert stats.geometric_mean([2.0, 4.0, 8.0]) == pytest.approx(4.0)
    assert stats.geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    assert math.isnan(stats.geometric_mean([]))


def test_mean_interval_by_a_table_of_t() -> None:
    # 1..10: mean 5.5, standard deviation sqrt(82.5 / 9); t(0.975, 9) = 2.262 in tables
    mean, low, high = stats.mean_interval([float(i) for i in range(1, 11)])
    half = 2.262 * math.sqrt(82.5 / 9) / math.sqrt(10)
    assert mean == 5.5
    assert (low, high) == pytest.approx((5.5 - half, 5.5 + half), abs=1e-3)
    # 1, 3: standard deviation sqrt 2, half = t * sqrt 2 / sqrt 2; t(0.95, 1) = 6.314
    assert stats.mean_interval([1.0, 3.0], 0.90) == pytest.approx((2.0, -4.314, 8.314), abs=1e-3)


def test_mean_interval_of_one_value_is_unknown() -> None:
    mean, low, high = stats.mean_interval([3.0])
    assert mean == 3.0
    assert math.isnan(low)
    assert math.isnan(high)


def spread_out(count: int, low: float, high: float) -> list[float]:
    """Return the quantiles of a uniform distribution: no luck in them."""
    return [low + (high - low) * (i + 0.5) / count for i in range(count)]


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_two_clusters_are_bimodal(share: float) -> None:
    fast = round(50 * (1 - share))
    samples = spread_out(fast, 0.99, 1.01) + spread_out(50 - fast, 1.09, 1.11)
    assert stats.is_bimodal(samples)
    assert stats.is_bimodal(samples[::-1])


@pytest.mark.parametrize(
    "samples",
    [
        spread_out(50, 0.9, 1.1),
        [1.0] * 50,
        # one far outlier, and three of fifty, are no second cluster
        [*spread_out(49, 0.99, 1.01), 2.0],
        [*spread_out(47, 0.99, 1.01), 2.0, 2.1, 2.2],
        # apart, but by 1 % only: nothing that a reader must know
        spread_out(25, 0.9999, 1.0001) + spread_out(25, 1.0099, 1.0101),
        [1.0, 1.0, 2.0, 2.0],
    ],
)
def test_one_cluster_is_not_bimodal(samples: list[float]) -> None:
    assert not stats.is_bimodal(samples)


def test_the_bound_lies_above_what_one_cluster_gives() -> None:
    """Split in its middle, a normal distribution's halves lie 2.65 of their deviations apart.

    Means +-sqrt(2 / pi), variance 1 - 2 / pi each, by hand; a uniform one's sqrt(12) = 3.46.
    """
    halves = 2 * math.sqrt(2 / math.pi) / math.sqrt(1 - 2 / math.pi)
    assert halves == pytest.approx(2.65, abs=0.01)
    assert max(halves, math.sqrt(12)) < stats.BIMODAL_D
