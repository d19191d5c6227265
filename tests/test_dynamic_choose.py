"""Which units drop and grow: by hand, against every possibility, and what always stays."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrbp_core.dynamic.choose import Choice, Rules, choose, drop_count, is_balanced, limits_of

NONE, COVERED = Rules(coverage=False), Rules()


def grid(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float64)[:, :, None]


def flags(*rows: list[int]) -> np.ndarray:
    return grid(*[[float(v) for v in row] for row in rows]).astype(bool)


KEPT = flags([1, 1, 0], [0, 1, 1])
MAGNITUDES = grid([0.1, 1, 9], [9, 1, 2])
GROWTH = grid([1, 9, 5], [2, 9, 9])


def facts(choice: Choice) -> tuple[int, int, int]:
    return choice.dropped, choice.returned, choice.lifted


@pytest.mark.parametrize(
    ("rules", "expected", "told"),
    [
        (NONE, flags([0, 1, 1], [0, 1, 1]), (1, 0, 0)),  # the best place
        (COVERED, flags([0, 1, 0], [1, 1, 1]), (1, 0, 1)),  # column 0 would be empty
        (Rules(filters=True), KEPT, (0, 1, 1)),  # and row 0 has to have two
        (Rules(coverage=False, filters=True), flags([0, 1, 1], [0, 1, 1]), (1, 0, 0)),
    ],
    ids=["free", "covered", "balanced", "balanced, not covered"],
)
def test_one_move_by_hand(rules: Rules, expected: np.ndarray, told: tuple[int, int, int]) -> None:
    choice = choose(KEPT, MAGNITUDES, GROWTH, 1, rules)
    assert np.array_equal(choice.kept, expected)
    assert facts(choice) == told


def test_both_sides_balanced_move_by_exchange() -> None:
    kept, rules = flags([1, 0, 0], [0, 1, 0], [0, 0, 1]), Rules(filters=True, channels=True)
    magnitudes, growth = grid([1, 0, 0], [0, 2, 0], [0, 0, 3]), grid([1, 5, 9], [5, 1, 9], [9] * 3)
    alone = choose(kept, magnitudes, growth, 1, rules)
    assert np.array_equal(alone.kept, kept)
    assert facts(alone) == (0, 1, 1)
    two = choose(kept, magnitudes, growth, 2, rules)
    assert np.array_equal(two.kept, flags([0, 1, 0], [1, 0, 0], [0, 0, 1]))
    assert facts(two) == (2, 0, 2)


def test_what_was_just_dropped_may_return() -> None:
    growth = grid([9, 1, 1], [1, 1, 1])
    choice = choose(KEPT, MAGNITUDES, growth, 1, NONE)
    assert np.array_equal(choice.kept, KEPT)
    assert facts(choice) == (0, 1, 0)


def test_ties_fall_to_the_lower_index() -> None:
    flat = np.ones_like(GROWTH)
    choice = choose(KEPT, flat, flat, 2, NONE)
    assert np.array_equal(choice.kept, KEPT)  # the first two drop, and are the first to grow
    growth = np.where(KEPT, 0.0, 1.0)
    assert np.array_equal(choose(KEPT, flat, growth, 1, NONE).kept, flags([0, 1, 1], [0, 1, 1]))


def test_no_place_that_is_not_allowed() -> None:
    allowed = flags([1, 1, 0], [1, 1, 1])
    choice = choose(KEPT, MAGNITUDES, GROWTH, 1, Rules(filters=True), allowed)
    assert np.array_equal(choice.kept, KEPT)
    assert np.array_equal(
        choose(KEPT, MAGNITUDES, GROWTH, 1, NONE, allowed).kept, flags([0, 1, 0], [1, 1, 1])
    )
    assert drop_count(KEPT, 1.0, flags([1, 1, 0], [0, 1, 1])) == 0
    assert drop_count(KEPT, 1.0, allowed) == 1


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.12, 0), (0.13, 1), (0.37, 1), (1, 2)])
def test_the_count_is_rounded_and_there_is_room(fraction: float, count: int) -> None:
    assert drop_count(KEPT, fraction) == count


def test_an_empty_channel_group_leaves_the_others_covered() -> None:
    kept = flags([1, 0, 1, 0], [1, 0, 1, 0])
    growth = grid([0, 0, 0, 0], [0, 0, 0, 9.0])
    magnitudes = grid([1, 0, 4, 0], [2, 0, 3, 0])
    choice = choose(kept, magnitudes, growth, 4, COVERED)
    # the largest of each column stayed, and row 0 kept its unit
    assert np.array_equal(choice.kept, flags([1, 0, 1, 0], [1, 0, 0, 1]))


@st.composite
def layers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, Rules]:
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2)))
    size = int(np.prod(shape))
    numbers = st.lists(st.integers(0, 6), min_size=size, max_size=size)
    kept = np.array(draw(numbers)).reshape(shape) < 3
    kept[0, 0, 0] = True
    magnitudes, growth = (np.array(draw(numbers), dtype=float).reshape(shape) for _ in range(2))
    rules = Rules(draw(st.booleans()), draw(st.booleans()), draw(st.booleans()))
    count = min(draw(st.integers(0, 4)), int(kept.sum()), int((~kept).sum()))
    return kept, magnitudes, growth, count, rules


@given(layers())
def test_growth_is_the_best_there_is(
    layer: tuple[np.ndarray, np.ndarray, np.ndarray, int, Rules],
) -> None:
    kept, magnitudes, growth, count, rules = layer
    choice = choose(kept, magnitudes, growth, count, rules)
    covered, limits = rules.coverage, limits_of(kept, rules)
    assert choice.kept.sum() == kept.sum()
    assert choice.dropped == int((choice.kept & ~kept).sum()) == int((kept & ~choice.kept).sum())
    for side in (0, 1):
        axes = (1 - side, 2)
        before, after = kept.sum(axis=axes), choice.kept.sum(axis=axes)
        assert not covered or (after[before > 0] > 0).all()
        if (rules.filters, rules.channels)[side]:
            assert before.min() <= after.min()
            assert after.max() <= before.max()
            assert is_balanced(choice.kept, side) >= is_balanced(kept, side)
    if covered and not rules.channels and kept.sum(axis=(0, 2)).min() == 0:
        return  # what may drop is narrower then
    order = np.argsort(np.where(kept, magnitudes, np.inf), axis=None, kind="stable")
    survivors = kept.copy()
    survivors.flat[order[:count]] = False
    assert (survivors <= choice.kept).all()
    best = -1.0
    for places in itertools.combinations(np.flatnonzero(~survivors), count):
        other = survivors.copy()
        other.flat[list(places)] = True
        rows, columns = other.sum(axis=(1, 2)), other.sum(axis=(0, 2))
        sides = ((rows, limits.per_filter_group), (columns, limits.per_channel_group))
        if all((n >= least).all() and (n <= most).all() for n, (least, most) in sides):
            best = max(best, float(growth[other & ~survivors].sum()))
    assert float(growth[choice.kept & ~survivors].sum()) == best
