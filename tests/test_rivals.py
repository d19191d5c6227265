"""Each rival grouping on a case solved by hand, at the same budget and coverage; masks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.quality.structure import dgrad_fill
from hrbp_core import WeightMask, least_density, regroup, retained
from hrbp_core.mask import as_mask
from hrbp_core.regrouping.rivals.structure_lth import dense_columns, regrouped
from hrbp_core.regrouping.rivals.two_four import TILES
from hrbp_core.shapes import block_grid
from tests.score_families import family


def plane(*rows: list[float]) -> Tensor:
    """Return scores [K, C, 1, 1]."""
    return torch.tensor(rows, dtype=torch.float64)[:, :, None, None]


def kept(scores: Tensor, density: float, **options: object) -> list[list[int]]:
    mask = regroup(scores, density, **options).mask()  # type: ignore[call-overload]
    return mask[:, :, 0, 0].int().tolist()


# filters 0 and 2 live on channels 0 and 1, filters 1 and 3 on channels 2 and 3
PAIRS = plane([5, 4, 0, 0], [0, 0, 3, 2], [4, 5, 1, 0], [0, 1, 2, 3])
PAIRED = [[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize("method", ["elementwise", "dsb", "dsb_kernel", "ovw"])
def test_like_filters_meet_and_keep_their_columns(method):
    assert kept(PAIRS, 0.5, method=method, block=2) == PAIRED
    aligned = kept(PAIRS, 0.5, method="aligned", block=2)
    assert aligned != PAIRED


def test_columns_of_single_taps_by_hand():
    """One filter group, two channels of two taps: the budget of one block buys tap 0 of both."""
    scores = torch.tensor([[[[5.0, 0.0]], [[4.0, 1.0]]], [[[5.0, 1.0]], [[4.0, 0.0]]]])
    for method in ("elementwise", "dsb", "ovw"):
        found = regroup(scores, 0.5, method=method, block=(2, 1))
        assert found.mask()[:, :, 0].tolist() == [[[True, False], [True, False]]] * 2
        assert not found.survives_dgrad


def test_vectors_are_finer_than_blocks():
    """Four columns to keep: blocks of two go two to each group, vectors one and three."""
    scores = plane([9, 9, 9, 1], [9, 9, 9, 1], [1, 0, 0, 8], [1, 0, 0, 8])
    assert kept(scores, 0.5, method="ovw", block=2) == [[1, 1, 1, 0]] * 2 + [[0, 0, 0, 1]] * 2
    blocks = kept(scores, 0.5, method="dsb", block=2)
    assert sorted(map(sum, blocks)) == [2, 2, 2, 2]


def test_unstructured_by_hand():
    scores = plane([9, 8, 7], [6, 0, 0], [1, 0, 0])
    free = kept(scores, 4 / 9, method="unstructured", block=1, coverage=False)
    assert free == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    # filter 2 needs a weight: its place at channel 2 lets the 7 there go, and costs least
    covered = kept(scores, 4 / 9, method="unstructured", block=1)
    assert covered == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_channel_by_hand():
    scores = plane([9, 1, 0], [8, 2, 0], [7, 1, 1])
    # channel 0 whole, then the best kernel of channel 1
    assert kept(scores, 4 / 9, method="channel", block=1) == [[1, 0, 0], [1, 1, 0], [1, 0, 0]]
    assert kept(scores.transpose(0, 1), 4 / 9, method="channel", block=1) == [
        [1, 1, 1], [0, 1, 0], [0, 0, 0]
    ]  # fmt: skip


def test_grouped_by_hand():
    scores = torch.rand(6, 4, 1, 1)
    expected = [[1, 1, 0, 0]] * 3 + [[0, 0, 1, 1]] * 3
    assert kept(scores, 0.5, method="grouped", block=(3, 1)) == expected
    assert kept(scores, 1.0, method="grouped", block=(3, 1)) == [[1] * 4] * 6
    with pytest.raises(ValueError, match=r"1/n for n groups .*\(1/1, 1/2\), got 2 of 8 blocks"):
        regroup(scores, 0.25, method="grouped", block=(3, 1), coverage=False)


def test_two_four_is_the_best_of_90_tiles():
    assert len(TILES) == 90
    scores = torch.rand(8, 8, 2, 1, generator=torch.Generator().manual_seed(0)).double()
    mask = regroup(scores, 0.5, method="two_four", block=4).mask()
    for k, c, tap in itertools.product((0, 4), (0, 4), (0, 1)):
        tile = mask[k : k + 4, c : c + 4, tap, 0]
        part = scores[k : k + 4, c : c + 4, tap, 0]
        assert tile.sum(0).tolist() == tile.sum(1).tolist() == [2, 2, 2, 2]
        best = max(float(part[torch.from_numpy(t)].sum()) for t in TILES)
        assert float(part[tile].sum()) == pytest.approx(best)


@pytest.mark.parametrize(
    ("size", "density", "message"),
    [
        (8, 0.25, "expected density 0.5 with two_four, got a budget of 16 of 64 weights"),
        (6, 0.5, "expected filters and channels in multiples of 4, got 6 and 6"),
    ],
)
def test_two_four_refuses(size, density, message):
    with pytest.raises(ValueError, match=message):
        regroup(torch.ones(size, size, 1, 1), density, method="two_four", block=2)


def test_structure_lth_widens_until_no_row_is_mostly_outside():
    mask = np.array([[1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0]], dtype=bool)
    # width 1: row 0 has 2 outside, 1 <= 3; width 2: 1 outside, 2 > 1.5 for both: done
    columns = dense_columns(mask)
    assert columns is not None
    assert columns.tolist() == [0, 1]
    assert dense_columns(np.zeros((2, 3), dtype=bool)).tolist() == [0]  # type: ignore[union-attr]
    assert dense_columns(np.ones((2, 1), dtype=bool)) is None


def test_structure_lth_drops_small_clusters_and_then_changes_nothing():
    mask = np.random.default_rng(0).random((128, 40)) < 0.3  # 8 clusters of 16 rows
    same, groups = regrouped(mask)
    assert groups == []
    assert np.array_equal(same, mask)
    mask = np.random.default_rng(0).random((160, 40)) < 0.3  # of 20
    filled, groups = regrouped(mask)
    assert [len(g) for g in groups] == [20] * 8
    for rows in groups:
        assert (filled[rows] == filled[rows[0]]).all()


def test_structure_lth_says_what_it_reached():
    mask = family("clustered", 256, 64, seed=0)
    found = regroup(mask, 0.25, method="structure_lth", block=16)
    assert found.density == int(found.mask().sum()) / mask.numel()
    assert found.density > 0.3  # it has no budget
    assert found.filters is not None


@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    block=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    taps=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    share=st.floats(0, 1),
    coverage=st.booleans(),
    seed=st.integers(0, 100),
)
def test_budget_coverage_and_bound(size, block, taps, share, coverage, seed):
    (k, c), block = size, (min(block[0], size[0]), min(block[1], size[1]))
    gk, gc = block_grid(size, block)
    shape = (k, c, *taps)
    least = least_density(shape, block, taps="auto") if coverage else 1 / (gk * gc)
    density = min(least + share * (1 - least), 1.0)
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).double()
    weights = round(density * gk * gc) * taps[0] * taps[1] * block[0] * block[1]
    found = {
        method: regroup(scores, density, method=method, block=block, coverage=coverage)
        for method in ("elementwise", "dsb", "ovw", "unstructured")
    }
    best = retained(scores, found["unstructured"])
    for method, each in found.items():
        mask = each.mask()
        assert mask.sum() <= weights
        if k % block[0] == 0 and c % block[1] == 0:
            assert mask.sum() == weights, method
        if coverage:
            assert mask.flatten(1).any(1).all()
            assert mask.transpose(0, 1).flatten(1).any(1).all()
        assert retained(scores, each) <= best + 1e-9


@pytest.mark.parametrize("method", ["elementwise", "ovw"])
def test_balanced_groups_keep_alike(method):
    scores = family("rank_one", 64, 64, seed=0).expand(-1, -1, 3, 3)
    found = regroup(scores, 0.25, method=method, block=16, balance="filters")
    counts = found.mask().flatten(1).sum(1)
    assert counts.max() - counts.min() <= (16 if method == "elementwise" else 1)
    with pytest.raises(ValueError, match=f"one of none, filters with {method}, got 'both'"):
        regroup(scores, 0.25, method=method, block=16, balance="both")
    with pytest.raises(ValueError, match="one of none with channel, got 'filters'"):
        regroup(scores, 0.25, method="channel", block=16, balance="filters")


def test_blocks_of_single_taps_break_in_dgrad_and_ours_do_not():
    scores = torch.rand(64, 64, 3, 3, generator=torch.Generator().manual_seed(0))
    for method in ("elementwise", "dsb", "ovw"):
        fill = dgrad_fill(regroup(scores, 0.25, method=method, block=16), 16)
        assert fill is not None
        assert fill < 0.6
    for method in ("hrbp", "hrbp2", "hrbp_pp", "hrbp2_pp", "dsb_kernel"):
        assert dgrad_fill(regroup(scores, 0.25, method=method, block=16), 16) == 1.0


def test_fill_by_hand():
    """Two channels with one tap each, not the same: dgrad's block of both has two taps."""
    mask = torch.zeros(2, 2, 1, 2, dtype=torch.bool)
    mask[:, 0, 0, 0] = mask[:, 1, 0, 1] = True
    groups = torch.tensor([[0, 1]])
    assert dgrad_fill(WeightMask("any", mask, False, groups), 2) == 0.5
    assert dgrad_fill(WeightMask("any", mask, False, groups), 1) == 1.0
    assert dgrad_fill(WeightMask("any", mask, None), 2) is None


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.tensor([0.0, 0.5, 1.0]), ValueError, r"got 1 other values of 3, .* \(1,\): 0.5"),
        (torch.tensor([float("nan")]), ValueError, "got 1 other"),
        ([1, 0], TypeError, "expected mask as a tensor of 0 and 1, got list"),
        (torch.ones(2, dtype=torch.complex64), TypeError, "got torch.complex64"),
    ],
)
def test_a_mask_is_of_zeros_and_ones(mask, error, message):
    with pytest.raises(error, match=message):
        as_mask(mask)
    assert as_mask(torch.tensor([0, 1])).tolist() == [False, True]


def test_retained():
    scores = plane([3, 1], [0, 4])
    mask = plane([1, 0], [0, 1])
    assert retained(scores, mask) == 7 / 8
    assert retained(scores, WeightMask("any", mask, None)) == 7 / 8
    assert retained(scores, regroup(scores, 1.0, block=1)) == 1.0
    assert retained(torch.zeros(2, 2, 1, 1), mask) == 1.0
    assert retained(scores * 4e307, mask) == 7 / 8
    for wrong, message in (
        (plane([3, -1], [0, 4]), "expected scores >= 0, got -1"),
        (plane([3, float("nan")], [0, 4]), "expected finite scores"),
        (plane([3, 1, 1], [0, 4, 1]), r"expected scores \[2, 2, 1, 1\], got \[2, 3, 1, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            retained(wrong, mask)
    with pytest.raises(ValueError, match="expected mask of 0 and 1"):
        retained(scores, scores)
    with pytest.raises(ValueError, match=r"expected kept \[K, C, R, S\]"):
        WeightMask("any", torch.ones(2, 2), None)
