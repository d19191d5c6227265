"""The exact parts of regrouping: choice of blocks, assignment to groups, integer scores."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog

from hrbp_core.regrouping.exchange import repair
from hrbp_core.regrouping.problem import BALANCES, Limits, quantise, random_order
from hrbp_core.regrouping.selection import choose_blocks, choose_entries
from hrbp_core.regrouping.transport import assign

GRIDS = [(1, 1), (1, 4), (2, 2), (2, 5), (3, 3), (4, 3)]


def choice_within(kept: np.ndarray, limits: Limits) -> bool:
    rows, columns = kept.sum(axis=1), kept.sum(axis=0)
    (low, high), (least, most) = limits.per_filter_group, limits.per_channel_group
    return bool(
        kept.sum() == limits.blocks
        and rows.min() >= low
        and rows.max() <= high
        and columns.min() >= least
        and columns.max() <= most
    )


def by_brute_force(scores: np.ndarray, limits: Limits) -> int:
    best = -1
    for places in itertools.combinations(range(scores.size), limits.blocks):
        kept = np.zeros(scores.size, dtype=bool)
        kept[list(places)] = True
        if choice_within(kept.reshape(scores.shape), limits):
            best = max(best, int(scores.ravel()[kept].sum()))
    return best


def by_linear_program(scores: np.ndarray, limits: Limits) -> int:
    gk, gc = scores.shape
    rows, columns = np.kron(np.eye(gk), np.ones(gc)), np.kron(np.ones(gk), np.eye(gc))
    (low, high), (least, most) = limits.per_filter_group, limits.per_channel_group
    bounds = np.repeat([high, -low, most, -least], [gk, gk, gc, gc])
    matrix = np.vstack([rows, -rows, columns, -columns])
    answer = linprog(
        -scores.ravel(), matrix, bounds, np.ones((1, scores.size)), [limits.blocks], (0, 1)
    )
    return round(-answer.fun)


@pytest.mark.parametrize("levels", [1, 3, 1000])
@pytest.mark.parametrize("coverage", [True, False])
@pytest.mark.parametrize("balance", BALANCES)
def test_choice_is_optimal_by_brute_force(balance, coverage, levels):
    rng = np.random.default_rng(7)
    for grid in GRIDS:
        scores = rng.integers(levels, size=grid)
        for blocks in range(max(grid) if coverage else 1, scores.size + 1):
            limits = Limits.of(grid, blocks, coverage=coverage, balance=balance)
            kept = choose_blocks(scores, limits)
            assert choice_within(kept, limits)
            assert scores[kept].sum() == by_brute_force(scores, limits)


@given(
    grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    share=st.floats(0, 1),
    balance=st.sampled_from(BALANCES),
    coverage=st.booleans(),
    levels=st.sampled_from([2, 10, 10**6]),
    tail=st.sampled_from([0.0, 2.0]),
    seed=st.integers(0, 10**6),
)
def test_choice_is_optimal_by_linear_program(grid, share, balance, coverage, levels, tail, seed):
    rng = np.random.default_rng(seed)
    factors = np.exp(tail * rng.normal(size=(grid[0], 1)))
    scores = (rng.integers(levels, size=grid) * factors).astype(np.int64)
    least = max(grid) if coverage else 1
    blocks = least + round(share * (scores.size - least))
    limits = Limits.of(grid, blocks, coverage=coverage, balance=balance)
    kept = choose_blocks(scores, limits)
    assert choice_within(kept, limits)
    assert scores[kept].sum() == by_linear_program(scores, limits)


@given(
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    taps=st.integers(2, 4),
    share=st.floats(0, 1),
    balance=st.sampled_from(BALANCES),
    coverage=st.booleans(),
    levels=st.sampled_from([2, 10, 10**6]),
    seed=st.integers(0, 10**6),
)
def test_choice_of_entries_is_optimal_by_linear_program(
    grid, taps, share, balance, coverage, levels, seed
):
    (gk, gc), size = grid, grid[0] * grid[1] * taps
    scores = np.random.default_rng(seed).integers(levels, size=(gk, gc, taps))
    least = max(grid) if coverage else 1
    entries = least + round(share * (size - least))
    limits = Limits.of(grid, entries, coverage=coverage, balance=balance, taps=taps)
    kept = choose_entries(scores, limits)
    assert choice_within(kept.sum(axis=2), limits)
    # each tap is a column of its own; those of a channel group share its limits
    rows = np.kron(np.eye(gk), np.ones(gc * taps))
    columns = np.kron(np.ones(gk), np.kron(np.eye(gc), np.ones(taps)))
    (low, high), (fewest, most) = limits.per_filter_group, limits.per_channel_group
    bounds = np.repeat([high, -low, most, -fewest], [gk, gk, gc, gc])
    matrix = np.vstack([rows, -rows, columns, -columns])
    answer = linprog(-scores.ravel(), matrix, bounds, np.ones((1, size)), [entries], (0, 1))
    assert scores[kept].sum() == round(-answer.fun)


def test_choice_takes_the_lower_index_of_equal_blocks():
    limits = Limits.of((3, 3), 4, coverage=False, balance="none")
    kept = choose_blocks(np.full((3, 3), 5), limits)
    assert np.flatnonzero(kept).tolist() == [0, 1, 2, 3]


def test_limits_that_cannot_be_met_are_refused():
    limits = Limits(2, (1, 3), (1, 3))
    with pytest.raises(ValueError, match="expected limits that some choice of blocks meets"):
        choose_blocks(np.ones((3, 3), dtype=np.int64), limits)


@given(
    seats=st.lists(st.integers(1, 9), min_size=1, max_size=7),
    levels=st.sampled_from([1, 2, 10, 10**12]),
    seed=st.integers(0, 10**6),
)
def test_assignment_fills_the_seats_and_is_optimal(seats, levels, seed):
    gains = np.random.default_rng(seed).integers(levels, size=(sum(seats), len(seats)))
    chosen = assign(gains, np.array(seats))
    assert np.bincount(chosen, minlength=len(seats)).tolist() == seats
    by_seat = np.repeat(gains, seats, axis=1)
    best = by_seat[linear_sum_assignment(by_seat, maximize=True)].sum()
    assert gains[np.arange(len(gains)), chosen].sum() == best
    near = assign(gains, np.array(seats), exact=False)
    assert np.bincount(near, minlength=len(seats)).tolist() == seats


@given(
    st.lists(st.floats(0, allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=50)
)
def test_quantised_scores_keep_order_and_stay_small(values):
    scores = np.array(values).reshape(1, -1)
    integers = quantise(scores)
    assert integers.min() >= 0
    assert int(integers.sum()) <= 2**48 + len(values)
    order = np.argsort(scores[0], kind="stable")
    assert (np.diff(integers[0][order]) >= 0).all()
    if scores.max() > 0:
        assert int(integers.sum()) >= 2**46
        ratio = integers / integers.max()
        np.testing.assert_allclose(ratio, scores / scores.max(), rtol=0, atol=2.0**-39)


def test_random_orders_are_fixed_for_good():
    assert random_order(8, 0, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    assert sorted(random_order(50, 3, 1).tolist()) == list(range(50))
    assert random_order(50, 3, 1).tolist() != random_order(50, 3, 2).tolist()


def test_a_start_that_is_not_best_is_refused():
    scores = np.array([[9, 0, 0], [0, 9, 0], [0, 0, 9]])
    limits = Limits.of((3, 3), 3, coverage=True, balance="both")
    worst = np.array([[0, 1, 0], [1, 0, 0], [1, 0, 0]], dtype=bool)
    with pytest.raises(ValueError, match="expected a start that is the best of its row counts"):
        repair(scores[:, :, None], limits, worst[:, :, None], np.zeros(3, dtype=np.int64))
