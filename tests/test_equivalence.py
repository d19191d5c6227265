"""Tests of equivalence: by hand, by simulation, and that a sequence ends where it must."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student

from bench import equivalence as module
from bench.accuracy_table import accuracy_rows
from bench.equivalence import (
    EQUIVALENT,
    NOT_SHOWN,
    NOT_TESTED,
    TOO_FEW,
    WITHIN,
    equivalence,
    seeds_needed,
    tost,
    tost_power,
)

NEAR, OFF = (0.899, 0.900, 0.901), (0.879, 0.880, 0.881)  # spread 0.001


def lines(arm, density, accuracies, **recipe):
    """Return a run a value; None is a run that diverged."""
    return [
        {
            "run_id": f"{arm}-{density}-{seed}-{recipe}", "arm": arm, "density": density,
            "seed": seed, "accuracy": value, "environment": "here", "data": "digits",
            "status": "ok" if value is not None else "diverged", "model": "digits-cnn",
            "recipe": {"epochs": 3, **recipe},
        }
        for seed, value in enumerate(accuracies)
    ]  # fmt: skip


def table_of(arms, reference=NEAR):
    """Return rows of ``arms`` {(arm, density): accuracies}; unstructured at each density."""
    runs = []
    for (arm, density), accuracies in arms.items():
        runs += lines(arm, density, accuracies)
    for density in {density for _, density in arms}:
        runs += lines("unstructured", density, reference)
    return accuracy_rows(runs)


def verdicts(found):
    return dict(zip(found["density"], found["verdict"], strict=True))


# --- one test ----------------------------------------------------------------------------------


def test_two_runs_a_side_by_hand():
    # (0.90, 0.92): mean 0.91, variance 2 * 0.01^2 / 1 = 2e-4, over 2 runs 1e-4
    # (0.90, 0.90): mean 0.90, variance 0. Error sqrt(1e-4) = 0.01;
    # freedom (1e-4)^2 / ((1e-4)^2 / 1 + 0) = 1: Cauchy, P(T > x) = 1/2 - atan(x) / pi
    found = tost((0.90, 0.92), (0.90, 0.90), margin=0.02)
    assert found.difference == pytest.approx(0.01)
    assert found.p_below == pytest.approx(0.5 - math.atan((0.01 + 0.02) / 0.01) / math.pi)
    assert found.p_above == pytest.approx(0.5 - math.atan((0.02 - 0.01) / 0.01) / math.pi)
    half = 0.01 * math.tan(math.pi * 0.45)  # the Cauchy quantile at 95 %: 6.31
    assert (found.low, found.high) == pytest.approx((0.01 - half, 0.01 + half))


def test_the_interval_is_welchs_by_hand():
    # (0.88, 0.90, 0.92): variance 4e-4, over 3 runs 1.3333e-4
    # (0.905, 0.915): variance 5e-5, over 2 runs 2.5e-5; sum 1.58333e-4, error 0.0125831
    # freedom 1.58333^2 / (1.33333^2 / 2 + 0.25^2 / 1) = 2.50694 / 0.951389 = 2.63504
    found = tost((0.88, 0.90, 0.92), (0.905, 0.915), margin=0.05)
    assert found.difference == pytest.approx(-0.01)
    half = 0.0125831 * student.ppf(0.95, 2.63504)
    assert found.low == pytest.approx(-0.01 - half, rel=1e-4)
    assert found.p_below == pytest.approx(student.sf(0.04 / 0.0125831, 2.63504), rel=1e-4)


def test_both_tests_reject_exactly_when_the_interval_lies_within():
    rng = np.random.default_rng(3)
    outcomes = set()
    for _ in range(200):
        first, second = rng.normal(0.9, 0.004, 4), rng.normal(0.9, 0.004, 3)
        found = tost(first.tolist(), second.tolist(), margin=0.008)
        below, above = found.p_below < 0.05, found.p_above < 0.05
        assert below == (found.low > -0.008)
        assert above == (found.high < 0.008)
        outcomes.add((below, above))
    assert outcomes >= {(True, True), (True, False), (False, True)}


def test_what_cannot_be_tested_is_nan():
    for first, second in (((), (0.9, 0.91)), ((0.9,), (0.9, 0.91)), ((0.9, 0.9), (0.9, 0.9))):
        found = tost(first, second, 0.01)
        assert math.isnan(found.p_below)
        assert math.isnan(found.p_above)
        assert math.isnan(found.low)
    # three equal values have a variance of rounding errors: 1e-34, not 0
    assert math.isnan(tost((0.98, 0.98, 0.98), (0.1 * 3 + 0.68,) * 3, 0.01).p_below)


@pytest.mark.parametrize(("margin", "alpha"), [(0.0, 0.05), (-1.0, 0.05), (0.01, 0), (0.01, 0.5)])
def test_a_test_without_sense_is_refused(margin, alpha):
    with pytest.raises(ValueError, match="expected"):
        equivalence(table_of({("hrbp2", 0.5): NEAR}), margin=margin, alpha=alpha)


def test_at_the_margin_the_error_is_five_percent():
    """The arm is truly the margin below: in 2,000 trials 5 % show it, give or take 3 sigma."""
    rng = np.random.default_rng(11)
    trials, margin, shown, both = 2000, 0.01, 0, 0
    for _ in range(trials):
        arm, other = rng.normal(0.89, 0.003, 4), rng.normal(0.90, 0.003, 4)
        found = tost(arm.tolist(), other.tolist(), margin)
        shown += found.p_below < 0.05
        both += found.p_below < 0.05 and found.p_above < 0.05
    sigma = math.sqrt(0.05 * 0.95 / trials)
    assert abs(shown / trials - 0.05) < 3 * sigma
    assert both <= shown


# --- the sequence ------------------------------------------------------------------------------


def test_the_verdicts_along_a_sequence():
    better = tuple(v + 0.02 for v in NEAR)
    found = equivalence(
        table_of({
            ("hrbp2", 0.5): NEAR, ("hrbp2", 0.25): better, ("hrbp2", 0.125): NEAR,
            ("hrbp2", 0.1): OFF, ("hrbp2", 0.05): NEAR, ("hrbp2", 0.02): NEAR,
        })
    )  # fmt: skip
    assert found["density"].tolist() == [0.5, 0.25, 0.125, 0.1, 0.05, 0.02]
    # the gain at 0.25 ends the sequence of equivalence, the loss at 0.1 that of both
    assert found["verdict"].tolist() == [
        EQUIVALENT, WITHIN, WITHIN, NOT_SHOWN, NOT_TESTED, NOT_TESTED,
    ]  # fmt: skip
    assert found["p_below"].isna().tolist() == [False] * 4 + [True] * 2
    # what is not tested is still described
    assert found["difference"].iloc[-1] == pytest.approx(0)
    assert found["low"].notna().all()


def test_nothing_is_tested_after_a_failure_whatever_the_numbers():
    rng = np.random.default_rng(5)
    seen = set()
    densities = (0.5, 0.25, 0.125, 0.0625)
    for _ in range(30):
        arms = {("a", d): rng.normal(0.893, 0.003, 3).tolist() for d in densities}
        found = equivalence(table_of(arms))["verdict"].tolist()
        shown = [v in module.SHOWN for v in found]
        first = shown.index(False) if False in shown else len(shown)
        assert found[first + 1 :] == [NOT_TESTED] * len(found[first + 1 :])
        equal = [v == EQUIVALENT for v in found]
        assert equal == sorted(equal, reverse=True)
        seen.add(first)
    assert seen >= {0, 1, 2, 4}


def test_the_chance_of_any_false_claim_along_a_sequence_is_five_percent():
    """All four densities are truly the margin below: untied tests would claim one in 18 %."""
    rng = np.random.default_rng(17)
    trials, densities, runs = 150, (0.5, 0.25, 0.125, 0.0625), []
    for trial in range(trials):
        for density in densities:
            for arm, mean in (("a", 0.89), ("unstructured", 0.9)):
                found = lines(arm, density, rng.normal(mean, 0.003, 3).tolist())
                runs += [run | {"environment": f"{trial}"} for run in found]
    found = equivalence(accuracy_rows(runs))
    assert len(found) == trials * len(densities)
    claimed = found.assign(claim=found["verdict"].isin(module.SHOWN))
    share = claimed.groupby("environment")["claim"].any().mean()
    assert 0.01 < share < 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)  # at most 10.3 %


@pytest.mark.parametrize(
    ("accuracies", "verdict", "reason"),
    [
        ((0.9,), TOO_FEW, TOO_FEW),
        ((None, None), TOO_FEW, TOO_FEW),
        ((*NEAR, None), NOT_SHOWN, "a run has no result"),
    ],
)
def test_what_was_not_run_well_ends_the_sequence(accuracies, verdict, reason):
    found = equivalence(table_of({("a", 0.5): accuracies, ("a", 0.25): NEAR}))
    assert found["verdict"].tolist() == [verdict, NOT_TESTED]
    assert found["reason"].tolist() == [reason, ""]


def test_equal_runs_show_nothing():
    found = equivalence(table_of({("a", 0.5): (0.9, 0.9, 0.9)}, reference=(0.9, 0.9)))
    assert found["verdict"].tolist() == [NOT_SHOWN]
    assert found["reason"].tolist() == ["no spread between runs"]


def test_arms_and_patterns_have_sequences_of_their_own():
    runs = lines("a", 0.5, OFF, block=[8, 8]) + lines("a", 0.5, NEAR, block=[16, 16])
    runs += lines("b", 0.25, NEAR) + lines("unstructured", 0.5, NEAR)
    runs += lines("unstructured", 0.25, NEAR)
    found = equivalence(accuracy_rows(runs))
    assert dict(zip(found["pattern"], found["verdict"], strict=True)) == {
        "block 16x16": EQUIVALENT, "block 8x8": NOT_SHOWN, "": EQUIVALENT,
    }  # fmt: skip


def test_dense_is_a_reference_at_every_density():
    runs = lines("dense", 1.0, NEAR) + lines("a", 0.5, NEAR) + lines("a", 0.25, OFF)
    runs += lines("unstructured", 0.5, OFF)
    found = equivalence(accuracy_rows(runs), reference="dense")
    assert verdicts(found[found["arm"] == "a"]) == {0.5: EQUIVALENT, 0.25: NOT_SHOWN}
    assert verdicts(found[found["arm"] == "unstructured"]) == {0.5: NOT_SHOWN}
    assert not len(equivalence(accuracy_rows(lines("a", 0.5, NEAR))))


def test_the_reference_is_trained_as_the_arm_is():
    rigl = {"dst": "rigl", "dst_every": 100}
    runs = lines("a", 0.5, NEAR, scores="snip") + lines("a", 0.5, OFF, scores="snip", **rigl)
    runs += lines("grouped", 0.5, NEAR)
    runs += lines("unstructured", 0.5, NEAR, scores="snip")
    runs += lines("unstructured", 0.5, OFF, scores="snip", **rigl)
    found = equivalence(accuracy_rows(runs))
    static, moving = "scores snip", "dst rigl, dst_every 100, scores snip"
    assert found["reference_pattern"].tolist() == [moving, static, static]
    assert found["verdict"].tolist() == [EQUIVALENT] * 3


def test_contexts_are_kept_apart():
    runs = lines("a", 0.5, NEAR) + lines("unstructured", 0.5, NEAR)
    other = [r | {"run_id": r["run_id"] + "x", "environment": "there"} for r in runs]
    other = [r | {"accuracy": r["accuracy"] - 0.02} for r in other if r["arm"] == "a"] + [
        r for r in other if r["arm"] != "a"
    ]
    found = equivalence(accuracy_rows(runs + other))
    assert dict(zip(found["environment"], found["verdict"], strict=True)) == {
        "here": EQUIVALENT, "there": NOT_SHOWN,
    }  # fmt: skip


# --- seeds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sd", "margin", "normal", "needed"),
    [
        # normal: 2 (sd (1.6449 + 1.2816) / margin)^2, rounded up
        (0.13, 0.3, 4, 5),  # 2 (0.13 * 2.9264 / 0.3)^2 = 3.2
        (0.20, 0.3, 8, 9),  # 7.6
        (0.28, 0.3, 15, 16),  # 14.9
        (1.00, 0.3, 191, 191),  # 190.3
        (0.60, 1.0, 7, 8),  # 6.2
    ],
)
def test_seeds_needed_are_those_of_the_formula_or_one_more(sd, margin, normal, needed):
    assert math.ceil(2 * (sd * 2.9264 / margin) ** 2) == normal
    assert seeds_needed(sd, margin) == needed
    assert tost_power(needed, sd, margin) >= 0.8
    assert tost_power(needed - 1, sd, margin) < 0.8


@pytest.mark.parametrize(("runs", "difference"), [(4, 0.0), (5, 0.1), (9, 0.3)])
def test_the_power_is_that_of_simulated_runs(runs, difference):
    rng, trials, sd, margin = np.random.default_rng(runs), 20_000, 0.13, 0.3
    a, b = rng.normal(difference, sd, (trials, runs)), rng.normal(0, sd, (trials, runs))
    parts = a.var(1, ddof=1) / runs, b.var(1, ddof=1) / runs
    error = np.sqrt(parts[0] + parts[1])
    freedom = error**4 / ((parts[0] ** 2 + parts[1] ** 2) / (runs - 1))
    inside = np.abs(a.mean(1) - b.mean(1)) + student.ppf(0.95, freedom) * error < margin
    expected = tost_power(runs, sd, margin, difference=difference)
    assert abs(inside.mean() - expected) < 3 * math.sqrt(expected * (1 - expected) / trials) + 0.002


def test_power_and_seeds_refuse_what_has_no_answer():
    with pytest.raises(ValueError, match="runs >= 2 and sd > 0"):
        tost_power(1, 0.1, 0.3)
    with pytest.raises(ValueError, match="runs >= 2 and sd > 0"):
        seeds_needed(0.0, 0.3)
    with pytest.raises(ValueError, match="power in"):
        seeds_needed(0.1, 0.3, power=1.0)
    with pytest.raises(ValueError, match="a margin near sd"):
        seeds_needed(1.0, 1e-5)
