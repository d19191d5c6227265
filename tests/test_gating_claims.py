"""What bench.gating.evidence says of chance, by simulation with fixed seeds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bench.gating.evidence import CONFIDENCE, ROOM, weigh
from bench.gating.readings import Reading
from bench.verdict import VerdictKind
from tests.gating_samples import RULE, alone, timed

# the least margin hides what noise does, and so does a tolerance
BARE = replace(RULE, least_margin=0.0, tolerance=0.0)
CELLS = 20_000


def sample(trials: int, spread: float, seed: int, cells: int = CELLS):
    """Return (d, a) of processes of equal code whose log times scatter by ``spread``."""
    base, head, again = spread * np.random.default_rng(seed).normal(size=(3, cells, trials))
    return head - (base + again) / 2, again - base


def within(share: float, wanted: float) -> bool:
    """Return whether a share over all cells is as wanted, to four standard errors."""
    return abs(share - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / CELLS)


def test_d_has_three_halves_and_a_twice_the_variance_of_one_process() -> None:
    d, a = sample(20, 0.03, 1)
    assert d.var() / 0.03**2 == pytest.approx(1.5, rel=0.01)
    assert a.var() / 0.03**2 == pytest.approx(2.0, rel=0.01)
    assert np.corrcoef(d.ravel(), a.ravel())[0, 1] == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("trials", [2, 3, 6, 12])
def test_both_tell_of_the_same_noise(trials: int) -> None:
    d, a = sample(trials, 0.03, trials)
    squares = weigh(d, a, RULE).noise ** 2
    assert squares.mean() / 0.03**2 == pytest.approx(1.5, rel=0.015)
    # and of 2 n - 1 degrees of freedom: chi-squared over f has variance 2 / f
    assert squares.var() / squares.mean() ** 2 == pytest.approx(2 / (2 * trials - 1), rel=0.05)


@pytest.mark.parametrize("trials", [2, 3, 6, 12])
def test_a_slow_down_of_the_tolerance_has_a_uniform_p(trials: int) -> None:
    d, a = sample(trials, 0.02, 10 + trials)
    p = weigh(d + math.log1p(RULE.tolerance), a, RULE).p
    for share in (0.01, 0.05, 0.10, 0.5):
        assert within((p < share).mean(), share)


@pytest.mark.parametrize("trials", [2, 3, 6, 12])
def test_each_side_of_the_interval_holds_with_95_per_cent(trials: int) -> None:
    d, a = sample(trials, 0.02, 20 + trials)
    found = weigh(d + math.log1p(0.07), a, RULE)
    assert within((found.low <= 0.07).mean(), CONFIDENCE)
    assert within((found.high >= 0.07).mean(), CONFIDENCE)


@pytest.mark.parametrize("trials", [2, 3, 6, 12])
@pytest.mark.parametrize("spread", [0.005, 0.01, 0.03])
def test_a_slow_down_as_large_as_the_margin_is_cleared_with_5_per_cent_at_most(
    trials: int, spread: float
) -> None:
    d, a = sample(trials, spread, 30 + trials)
    margin = np.log1p(weigh(d, a, RULE).margin)  # the same for whatever is planted
    found = weigh(d + margin[:, None], a, RULE)
    cleared = (found.high < found.margin).mean()
    assert cleared <= 0.05 or within(cleared, 0.05)


@pytest.mark.parametrize("trials", [2, 3, 6, 12])
def test_and_with_5_per_cent_where_noise_alone_sets_the_margin(trials: int) -> None:
    d, a = sample(trials, 0.03, 40 + trials)
    margin = np.log1p(weigh(d, a, BARE).margin)
    found = weigh(d + margin[:, None], a, BARE)
    assert within((found.high < found.margin).mean(), 0.05)


@pytest.mark.parametrize("effect", [0.03, 0.05, 0.08])
def test_whatever_the_margin_turns_out_to_be_none_that_it_covers_slips_through(
    effect: float,
) -> None:
    """A run that prints a margin of ``effect`` or less clears so slow a cell with 5 % at most."""
    for spread in (0.005, 0.01, 0.015, 0.02, 0.03):
        d, a = sample(6, spread, 50)
        found = weigh(d + math.log1p(effect), a, RULE)
        cleared = ((found.high < found.margin) & (found.margin <= effect)).mean()
        assert cleared <= 0.05 or within(cleared, 0.05)


@pytest.mark.parametrize("trials", [3, 6, 12, 36])
def test_equal_code_is_cleared_unless_its_mean_is_two_errors_off(trials: int) -> None:
    """2 sigma are 97.7 %; with few trials Student's t has less: 94.9 % with 3, 96.5 % with 6."""
    d, a = sample(trials, 0.03, 60 + trials)
    found = weigh(d, a, BARE)
    expected = stats.t.cdf(ROOM, 2 * trials - 1)
    assert within((found.high < found.margin).mean(), expected)
    assert expected == pytest.approx(stats.norm.cdf(2), abs=0.03)


def test_equal_code_of_little_noise_is_all_but_always_cleared() -> None:
    d, a = sample(6, 0.01, 70)
    found = weigh(d, a, RULE)
    assert (found.high < found.margin).mean() > 0.999


# --- the whole gate -----------------------------------------------------------------------


def passed(effect: float, spread: float, runs: int = 200) -> float:
    """Return how often so slow a cell passes with a margin that promises to show it."""
    rng = np.random.default_rng(80)

    def says(_: int) -> Reading:
        base, head, again = spread * rng.normal(size=3)
        return timed(math.log1p(effect) + head - (base + again) / 2, again - base)

    found = [alone(says) for _ in range(runs)]
    return np.mean([f.kind is VerdictKind.PASS and (f.margin or 0) <= effect for f in found])


@pytest.mark.parametrize(("effect", "spread"), [(0.05, 0.02), (0.05, 0.03), (0.08, 0.03)])
def test_what_the_gate_says_would_show_passes_in_5_per_cent_of_runs_at_most(
    effect: float, spread: float
) -> None:
    assert passed(effect, spread) <= 0.05


def test_a_slow_down_of_the_least_margin_itself_may_pass_at_each_of_the_looks() -> None:
    """5 % at each: 3 % at little noise is the worst case, and passed in 18 % of 400 runs."""
    assert passed(RULE.least_margin, 0.01) <= 0.05 * (1 + len(RULE.looks))
