"""The Pareto front, clear domination, the iso-accuracy speed-up; and the published anchors."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.accuracy_table import accuracy_rows, accuracy_summary
from bench.anchors import ANCHORS, anchors_for, incomparable
from bench.pareto import iso_speedup, pareto, undominated
from tests.test_equivalence import NEAR, OFF, lines

FEW = st.integers(0, 6).map(float)  # few values: many ties
POINTS = st.lists(st.tuples(FEW, FEW), max_size=12)


def frame(*rows):
    """Return points (speed-up, low, high, accuracy, low, high)."""
    names = [f"{a}{b}" for a in ("step", "accuracy") for b in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["step_speedup" if n == "step" else n for n in names])


# --- the front ---------------------------------------------------------------------------------


@given(POINTS)
def test_the_front_is_exactly_the_undominated_set(points):
    on_front = undominated(points)
    front = [p for p, on in zip(points, on_front, strict=True) if on]
    assert bool(front) == bool(points)
    for point, on in zip(points, on_front, strict=True):
        better = [p for p in points if p[0] >= point[0] and p[1] >= point[1] and p != point]
        assert on == (not better)
        # whatever is not on the front is dominated by a point that is
        assert on or any(p in front for p in better)
    # along the front more speed always costs accuracy
    ordered = sorted(set(front))
    assert [y for _, y in ordered] == sorted({y for _, y in ordered}, reverse=True)
    assert len({y for _, y in ordered}) == len(ordered)


@given(POINTS, st.randoms())
def test_the_front_does_not_depend_on_the_order(points, random):
    shuffled = list(points)
    random.shuffle(shuffled)
    kept = [sorted(p for p, on in zip(x, undominated(x), strict=True) if on)
            for x in (points, shuffled)]  # fmt: skip
    assert kept[0] == kept[1]


def test_a_point_without_a_number_is_never_on_the_front():
    assert undominated([(1.0, math.nan), (1.0, 1.0)]) == [False, True]
    assert undominated([]) == []


def test_clear_domination_takes_both_intervals():
    points = frame(
        (2.0, 1.9, 2.1, 0.95, 0.94, 0.96),
        (1.0, 0.9, 1.1, 0.90, 0.89, 0.91),  # apart on both axes
        (1.0, 0.9, 1.1, 0.94, 0.93, 0.95),  # accuracies overlap
        (2.0, 1.9, 2.05, 0.90, 0.89, 0.91),  # speeds overlap
        (1.0, math.nan, math.nan, 0.90, 0.89, 0.91),  # no interval
    )
    found = pareto(points)
    assert found["on_front"].tolist() == [True, False, False, False, False]
    assert found["clearly_dominated"].tolist() == [False, True, False, False, False]


def test_no_points_have_no_front():
    assert pareto(frame()).empty


# --- the iso-accuracy speed-up -----------------------------------------------------------------


def timed(arm, density, accuracies, speedup, **recipe):
    runs = lines(arm, density, accuracies, **recipe)
    for run in runs:
        wobble = 1 + 0.01 * run["seed"]
        run["step"] = {"dense_s": [speedup * wobble] * 7, "sparse_s": [1.0] * 7}
    return runs


def iso(runs, **options):
    table = accuracy_rows(runs)
    return iso_speedup(table, accuracy_summary(table), **options)


REFERENCE = [r for d in (0.5, 0.25, 0.125) for r in timed("unstructured", d, NEAR, 0.9)]


def test_the_fastest_that_is_shown_is_taken():
    runs = REFERENCE + timed("a", 0.5, NEAR, 1.2) + timed("a", 0.25, NEAR, 1.5)
    found = iso(runs + timed("a", 0.125, OFF, 3.0))
    assert (found.best["arm"], found.best["density"], found.arms) == ("a", 0.25, 1)
    # runs at 1.5, 1.515 and 1.53: the geometric mean, and log-t around it
    assert found.best["step_speedup"] == pytest.approx((1.5 * 1.515 * 1.53) ** (1 / 3))
    assert found.best["step_low"] < 1.5 < 1.53 < found.best["step_high"]


def test_past_a_failure_nothing_counts_however_fast():
    runs = REFERENCE + timed("a", 0.5, NEAR, 1.2) + timed("a", 0.25, OFF, 1.5)
    assert iso(runs + timed("a", 0.125, NEAR, 3.0)).best["density"] == 0.5


def test_none_is_an_answer():
    found = iso(REFERENCE + timed("a", 0.5, OFF, 2.0))
    assert (found.best, found.arms, found.alpha) == (None, 1, 0.05)


def test_an_arm_more_accurate_than_the_margin_counts():
    better = tuple(v + 0.03 for v in NEAR)
    assert iso(REFERENCE + timed("a", 0.5, better, 1.3)).best["arm"] == "a"


def test_of_several_arms_each_is_tested_at_its_share():
    # difference -0.005 with n = 3 a side and spread 0.002: error 0.002 sqrt(2/3) = 0.00163,
    # t = 0.005 / 0.00163 = 3.06 at 4 degrees: p = 0.019, under 5 % and over 5 % / 5 = 1 %
    wide, low = (0.898, 0.900, 0.902), (0.893, 0.895, 0.897)
    reference = timed("unstructured", 0.5, wide, 0.9)
    names = ["a", "b", "c", "d", "e"]
    assert iso(reference + timed("a", 0.5, low, 2.0)).best["arm"] == "a"
    many = [r for name in names for r in timed(name, 0.5, low, 2.0)]
    found = iso(reference + many)
    assert (found.best, found.arms) == (None, 5)
    assert found.alpha == pytest.approx(0.01)


def test_patterns_of_an_arm_count_and_arms_without_step_times_do_not():
    runs = REFERENCE + timed("a", 0.5, NEAR, 1.2, block=[8, 8])
    runs += timed("a", 0.5, NEAR, 1.4, block=[16, 16]) + lines("b", 0.5, NEAR)
    found = iso(runs)
    assert (found.arms, found.best["pattern"]) == (2, "block 16x16")


def test_dense_can_be_the_reference():
    runs = lines("dense", 1.0, NEAR) + timed("unstructured", 0.5, NEAR, 0.9)
    found = iso(runs, reference="dense")
    assert (found.best["arm"], found.best["step_speedup"] < 1) == ("unstructured", True)


# --- anchors -----------------------------------------------------------------------------------


def test_anchors_are_fractions_with_sources():
    for anchor in ANCHORS:
        assert 0.5 < anchor.accuracy < 1
        assert 0 < anchor.density <= 1
        assert anchor.sd is None or 0 < anchor.sd < 0.01
        assert anchor.source
    assert len({(a.data, a.model, a.method, a.density) for a in ANCHORS}) == len(ANCHORS)


def test_anchors_of_a_network_are_found_by_its_name():
    ten = anchors_for("cifar10", "resnet18")
    assert {a.data for a in ten} == {"cifar10"}
    assert len(ten) == 16
    assert {a.data for a in anchors_for("cifar100", "resnet18")} == {"cifar100"}
    assert anchors_for("CIFAR-10 (JPEG-75)", "ResNet-18") == ten
    assert len(anchors_for("cifar10", "wrn22_2")) == 3
    assert anchors_for("digits", "digits-cnn") == []
    # compressions of 10, 10^1.25 and 10^1.75 are 90, 94.4 and 98.2 % sparse
    sparse = [round(100 * (1 - a.density), 1) for a in ten if a.method == "SNIP"]
    assert sparse == [0, 90, 94.4, 98.2]


def test_no_anchor_is_comparable_and_the_reasons_are_named():
    anchor = anchors_for("cifar10", "resnet18")[0]
    words = incomparable(anchor, "CIFAR-10 (JPEG-75)")
    assert words.startswith("not comparable: our images are JPEG-coded")
    assert "best epoch" in words
    assert "JPEG" not in incomparable(anchor, "CIFAR-10")
    assert all(incomparable(a, "").startswith("not comparable: ") for a in ANCHORS)
