"""bench.gating.evidence: its numbers, by hand, by scipy written out, and by simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as some
from scipy import stats

from bench.gating import evidence
from bench.gating.evidence import Evidence, half_width, holm, reading, weigh, wilcoxon_p
from bench.gating.rule import Rule, rule_for

RULE = Rule()
NAMES = ("effect", "low", "high", "margin", "noise", "p")
p_values = some.arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1))


def sample(cells: int, trials: int, spread: float = 0.02, seed: int = 0):
    """Return (d, a) of processes of equal code whose log times scatter by ``spread``."""
    base, head, again = spread * np.random.default_rng(seed).normal(size=(3, cells, trials))
    return head - (base + again) / 2, again - base


# --- weigh --------------------------------------------------------------------------------


def test_two_trials_by_hand() -> None:
    """Squares: 2 * 0.01**2 of d, 3/4 * (0.02**2 + 0.04**2) of a; over 3 they are noise squared.

    Student's t of 3 degrees of freedom: 95 % lie under 2.3534, and its distribution function is
    1/2 + (x / (1 + x**2) + atan x) / pi with x = t / sqrt 3.
    """
    found = weigh(np.array([[0.04, 0.06]]), np.array([[0.02, -0.04]]), RULE)
    noise = math.sqrt((0.0002 + 0.0015) / 3)
    error = noise / math.sqrt(2)
    x = (math.log(1.02) - 0.05) / error / math.sqrt(3)
    assert found.trials == 2
    assert found.noise[0] == pytest.approx(noise)
    assert found.effect[0] == pytest.approx(math.exp(0.05) - 1)
    assert found.low[0] == pytest.approx(math.exp(0.05 - 2.353363 * error) - 1, abs=1e-7)
    assert found.high[0] == pytest.approx(math.exp(0.05 + 2.353363 * error) - 1, abs=1e-7)
    assert found.margin[0] == pytest.approx(math.exp(4.353363 * error) - 1, abs=1e-7)
    assert found.p[0] == pytest.approx(0.5 + (x / (1 + x**2) + math.atan(x)) / math.pi)


@pytest.mark.parametrize("trials", [2, 3, 6, 13])
def test_one_cell_as_scipy_says(trials: int) -> None:
    d, a = sample(1, trials)
    d = d + 0.07
    found = weigh(d, a, RULE)
    freedom = 2 * trials - 1
    noise = math.sqrt((((d - d.mean()) ** 2).sum() + 3 / 4 * (a**2).sum()) / freedom)
    error = noise / math.sqrt(trials)
    low, high = stats.t.interval(0.90, freedom, loc=d.mean(), scale=error)
    room = stats.t.ppf(0.95, freedom) + 2
    assert found.noise[0] == pytest.approx(noise)
    assert found.effect[0] == pytest.approx(math.exp(np.median(d)) - 1)
    assert (found.low[0], found.high[0]) == pytest.approx((math.expm1(low), math.expm1(high)))
    assert found.margin[0] == pytest.approx(max(0.03, math.expm1(room * error)))
    t = (d.mean() - math.log(1.02)) / error
    assert found.p[0] == pytest.approx(stats.t.sf(t, freedom))


def test_without_noise_of_base_it_is_the_t_test_of_d_but_for_freedom() -> None:
    d, _ = sample(1, 8)
    found = weigh(d, np.zeros_like(d), RULE)
    usual = stats.ttest_1samp(d[0], math.log(1.02), alternative="greater")
    t = usual.statistic * math.sqrt(15 / 7)  # the same squares, over 15 in place of 7
    assert found.p[0] == pytest.approx(stats.t.sf(t, 15))


@given(
    some.arrays(
        np.float64, st.tuples(st.just(2), st.integers(1, 5), st.integers(2, 7)),
        elements=st.floats(-0.5, 0.5),
    )
)  # fmt: skip
def test_many_cells_are_weighed_as_one_by_one(both) -> None:
    d, a = both
    found = weigh(d, a, RULE)
    for i in range(len(d)):
        single = weigh(d[i : i + 1], a[i : i + 1], RULE)
        for name in NAMES:
            assert getattr(found, name)[i] == pytest.approx(getattr(single, name)[0], rel=1e-9)


def test_a_shift_moves_the_effect_and_not_the_noise() -> None:
    d, a = sample(5, 6)
    here, there = weigh(d, a, RULE), weigh(d + math.log(1.1), -a, RULE)
    assert there.noise == pytest.approx(here.noise)
    assert there.margin == pytest.approx(here.margin)
    for name in ("effect", "low", "high"):
        assert 1 + getattr(there, name) == pytest.approx(1.1 * (1 + getattr(here, name)))


def test_one_trial_far_off_moves_the_mean_and_not_the_effect() -> None:
    d = np.array([[0.05, 0.05, 0.05, 0.05, 0.9]])
    found = weigh(d, np.zeros_like(d), RULE)
    assert found.effect[0] == pytest.approx(math.expm1(0.05))
    assert math.log1p(found.low[0]) + math.log1p(found.high[0]) == pytest.approx(2 * d.mean())


def test_trials_that_are_all_the_same_are_sure_and_no_division_by_zero() -> None:
    d = np.log([[1.0] * 3, [1.019] * 3, [1.021] * 3])
    found = weigh(d, np.zeros_like(d), RULE)
    assert found.p == pytest.approx([1.0, 1.0, 0.0])
    assert found.margin.tolist() == [RULE.least_margin] * 3
    assert found.high == pytest.approx(found.effect, abs=1e-9)


def test_thresholds_are_the_rules() -> None:
    d, a = sample(1, 6, 0.001)
    d = d + math.log(1.05)
    other = replace(RULE, tolerance=0.05, least_margin=0.2)
    assert weigh(d, a, RULE).p[0] < 1e-6
    assert 0.01 < weigh(d, a, other).p[0] < 0.99
    assert weigh(d, a, other).margin[0] == 0.2


@pytest.mark.parametrize(("d", "a"), [((3, 1), (3, 1)), ((3, 0), (3, 0)), ((3, 4), (3, 5))])
def test_less_than_two_trials_or_unlike_shapes_are_refused(d, a) -> None:
    with pytest.raises(ValueError, match="two trials"):
        weigh(np.zeros(d), np.zeros(a), RULE)


# --- what a trial says --------------------------------------------------------------------


def test_laps_are_paired_before_their_median_is_taken() -> None:
    base = np.exp([0.0, 1.0, 2.0])
    head = np.exp([1.5, 0.1, 2.1])
    # by lap: 1.5, -0.9, 0.1; the medians of both differ by 0.5
    assert reading(base, head, base) == pytest.approx((0.1, 0.0))


def test_head_stands_against_both_of_base() -> None:
    base, again = np.exp([0.1, 0.1, 0.1]), np.exp([0.3, 0.5, 0.3])
    head = np.exp([0.5, 0.5, 0.7])
    # d by lap: 0.3, 0.2, 0.5; a by lap: 0.2, 0.4, 0.2
    assert reading(base, head, again) == pytest.approx((0.3, 0.2))
    assert reading(again, head, base) == pytest.approx((0.3, -0.2))


def test_half_width_is_of_order_statistics() -> None:
    logs = np.array([0.9, 0.1, 0.5, 0.2, 0.8, 0.3, 0.7, 0.4])
    one = np.ones(8)
    assert half_width(one, np.exp(logs), one) == pytest.approx(0.4)  # of 8, the range
    ten = np.exp(np.append(logs, [-5.0, 5.0]))
    assert half_width(np.ones(10), ten, np.ones(10)) == pytest.approx(0.4)  # of 10, 2nd to 9th
    # a lap in which all three were slow says nothing
    assert half_width(ten, ten, ten) == pytest.approx(0.0, abs=1e-12)
    assert half_width(one, one, np.exp(logs)) == pytest.approx(0.2)  # base's second counts half


def test_wilcoxon_by_hand() -> None:
    """Ranks of 4 differences from 2 %: 16 patterns of signs, and two sum up to 9 or more."""
    assert wilcoxon_p(np.array([0.10, 0.09, 0.08, 0.0]), RULE) == pytest.approx(2 / 16)
    assert wilcoxon_p(np.full(5, 0.05) + 0.001 * np.arange(5), RULE) == pytest.approx(1 / 32)
    assert wilcoxon_p(np.full(5, 0.01) + 0.001 * np.arange(5), RULE) == pytest.approx(1.0)
    assert wilcoxon_p(np.full(4, math.log1p(RULE.tolerance)), RULE) == 1.0


# --- holm ---------------------------------------------------------------------------------


def test_holm_as_published() -> None:
    """R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") is 0.03 0.06 0.06 0.02."""
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.6])) == pytest.approx([1.0, 1.0])
    assert holm(np.array([0.2])) == pytest.approx([0.2])
    assert holm(np.array([])).tolist() == []


@given(p_values)
def test_holm_lies_between_p_and_bonferroni(p) -> None:
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, len(p) * p)).all()
    assert adjusted[p.argmin()] == min(1, len(p) * p.min())
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


@given(p_values, st.randoms(use_true_random=False))
def test_holm_does_not_depend_on_the_order(p, random) -> None:
    places = list(range(len(p)))
    random.shuffle(places)
    assert holm(p[places]) == pytest.approx(holm(p)[places])


@given(p_values, st.floats(0, 0.99))
def test_holm_rejects_as_the_step_down_procedure(p, alpha) -> None:
    rejected = np.zeros(len(p), dtype=bool)
    for k, i in enumerate(np.argsort(p, kind="stable")):
        if (len(p) - k) * p[i] > alpha:
            break
        rejected[i] = True
    assert ((holm(p) <= alpha) == rejected).all()


# --- the rule -----------------------------------------------------------------------------


def test_a_device_has_its_rule() -> None:
    assert rule_for("cpu") == RULE
    assert (RULE.worst_margin, RULE.see) == (0.10, 0.05)
    gpu = rule_for("cuda")
    assert (gpu.worst_margin, gpu.see) == (0.05, 0.03)
    assert replace(gpu, worst_margin=0.10, see=0.05) == RULE


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_more_may_be_asked_for_within_the_rule(device: str) -> None:
    own = rule_for(device)
    for see in (own.least_margin, own.worst_margin):
        assert rule_for(device, see) == replace(own, see=see)
    for see in (0.0, own.least_margin - 1e-4, own.worst_margin + 1e-4, math.nan):
        with pytest.raises(ValueError, match=r"from 3% to .* on " + device):
            rule_for(device, see)


def test_thresholds_are_in_a_sensible_order() -> None:
    for rule in (rule_for("cpu"), rule_for("cuda")):
        assert list(rule.looks) == sorted(set(rule.looks))
        assert 2 <= rule.early <= rule.screen <= rule.most
        assert rule.looks[0] >= 2
        assert len(rule.spent) == len(rule.looks)
        assert min(rule.spent) > 0
        assert sum(rule.spent) == pytest.approx(1.0)
        assert rule.tolerance < rule.least_margin <= rule.see <= rule.worst_margin
        assert rule.early_p < rule.flag_p


def test_the_docstrings_constants() -> None:
    assert (evidence.CONFIDENCE, evidence.ROOM, evidence.OF_A) == (0.95, 2.0, 0.75)
    assert set(NAMES) | {"trials"} == set(Evidence.__dataclass_fields__)
