"""BlockPattern: how values lie, and that what is packed comes back."""

from __future__ import annotations

import copy
import itertools
import json
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrbp_core.pattern import BlockPattern
from tests.pattern_samples import (
    GOOD,
    STYLES,
    Problem,
    example,
    overlapping_pattern,
    problems,
    random_pattern,
    table,
)


def test_values_lie_as_documented() -> None:
    weight = torch.tensor(
        [[[[100 * k + 10 * c + s for s in range(2)]] for c in range(3)] for k in range(4)],
        dtype=torch.float64,
    )
    rows = [210, 211, 221, 10, 11, 21, 100, 300]  # filter outside; tap, channel group inside
    assert example().pack(weight).view(-1).tolist() == rows
    assert weight[example().mask()].tolist() == sorted(rows)


def test_the_dense_values_are_the_channels_last_weight() -> None:
    weight = torch.randn(8, 6, 3, 2)
    values = BlockPattern.dense((8, 6, 3, 2), (4, 3)).pack(weight)
    assert torch.equal(values.view(8, 3, 2, 6), weight.permute(0, 2, 3, 1))


def check_round_trips(pattern: BlockPattern) -> None:
    k, c, r, s = pattern.shape
    weight = torch.arange(1.0, k * c * r * s + 1, dtype=torch.float64).view(pattern.shape)
    values, mask = pattern.pack(weight), pattern.mask()
    assert tuple(values.shape) == pattern.values_shape
    assert torch.equal(pattern.unpack(values), torch.where(mask, weight, 0.0))
    # each kept weight is stored once, and all else is padding
    assert torch.equal(values[values > 0].sort().values, weight[mask])
    assert torch.equal(pattern.pack(pattern.unpack(values)), values)
    assert pattern.density == mask.double().mean()
    assert pattern.sparsity == 1 - pattern.density
    assert pattern.work == values.numel() / weight.numel()
    assert pattern.density <= pattern.work


@given(problems(permuted=True))
def test_round_trips(problem: Problem) -> None:
    check_round_trips(problem.pattern)


@given(
    k=st.integers(1, 9),
    c=st.integers(2, 20),
    seed=st.integers(0, 999),
    data=st.data(),
)
def test_round_trips_of_overlapping_groups(k: int, c: int, seed: int, data: st.DataObject) -> None:
    block = (data.draw(st.integers(1, k)), data.draw(st.integers(1, c // 2)))
    check_round_trips(overlapping_pattern((k, c, 2, 1), block, seed))


@given(problems(permuted=True, most_channels=13))
def test_the_mask_is_the_entries_written_out(problem: Problem) -> None:
    pattern = problem.pattern
    mask = torch.zeros(pattern.shape, dtype=torch.bool)
    for group, channel, tap in pattern.entries.tolist():
        rows = [k for k in pattern.filters[group].tolist() if k >= 0]
        columns = [c for c in pattern.channels[channel].tolist() if c >= 0]
        for k, c in itertools.product(rows, columns):
            mask[k, c, tap // pattern.shape[3], tap % pattern.shape[3]] = True
    assert torch.equal(pattern.mask(), mask)


def test_what_lies_in_padding_is_dropped() -> None:
    pattern = BlockPattern.dense((3, 5, 1, 1), (2, 4))
    values = torch.ones(pattern.values_shape, requires_grad=True)
    dense = pattern.unpack(values)
    assert torch.equal(dense, torch.ones(3, 5, 1, 1))
    (gradient,) = torch.autograd.grad(dense.sum(), values)
    assert torch.equal(gradient, pattern.pack(torch.ones(3, 5, 1, 1)))
    assert gradient.sum() == 15


def test_pack_and_unpack_are_differentiable() -> None:
    pattern = random_pattern((5, 7, 2, 2), (2, 3), 3, permuted=True, some_taps=True)
    weight = torch.randn(pattern.shape, dtype=torch.float64, requires_grad=True)
    values = torch.randn(pattern.values_shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pattern.pack, (weight,))
    assert torch.autograd.gradcheck(pattern.unpack, (values,))


def test_density_leaves_padding_out_and_work_counts_it() -> None:
    pattern = BlockPattern.dense((3, 5, 1, 1), (2, 4))
    assert pattern.density == 1.0
    assert pattern.work == 2 * 2 * 2 * 4 / 15
    assert example().density == 8 / 24 == example().work


def test_counts_and_taps() -> None:
    assert example().blocks_per_filter_group.tolist() == [2, 1]
    assert example().blocks_per_channel_group.tolist() == [1, 1, 1]
    assert not example().all_taps
    assert random_pattern((8, 8, 3, 3), (2, 2), 1).all_taps
    kept = torch.tensor([[True, False], [False, False]])
    tables = (table([0, 1], [2, 3]), table([0, 1], [2, 3]))
    empty = BlockPattern.from_blocks((4, 4, 1, 1), (2, 2), *tables, kept)
    assert empty.blocks_per_filter_group.tolist() == [1, 0]
    assert empty.blocks_per_channel_group.tolist() == [1, 0]


@given(problems(permuted=True))
def test_twin_sorts_the_entries_by_channel_group_tap_and_filter_group(problem: Problem) -> None:
    pattern = problem.pattern
    twin = pattern.twin
    assert twin.dtype == torch.int32
    assert twin.sort().values.tolist() == list(range(len(pattern.entries)))
    walked = [(c, t, f) for f, c, t in pattern.entries[twin.long()].tolist()]
    assert walked == sorted(walked)


@given(problems(permuted=True))
def test_canonical_reorders_filters_and_channels_only(problem: Problem) -> None:
    pattern = problem.pattern
    canonical, filter_order, channel_order = pattern.canonical()
    k, c = pattern.shape[:2]
    assert sorted(filter_order.tolist()) == list(range(k))
    assert sorted(channel_order.tolist()) == list(range(c))
    assert canonical.is_canonical
    assert canonical.partitioned
    assert torch.equal(canonical.mask(), pattern.mask()[filter_order][:, channel_order])
    assert torch.equal(canonical.entries, pattern.entries)
    weight = torch.randn(pattern.shape)
    ordered = weight[filter_order][:, channel_order]
    assert torch.equal(canonical.pack(ordered), pattern.pack(weight))
    values = torch.randn(pattern.values_shape)
    theirs = pattern.unpack(values)[filter_order][:, channel_order]
    assert torch.equal(canonical.unpack(values), theirs)


def test_the_canonical_form_of_a_canonical_pattern_is_itself() -> None:
    pattern = random_pattern((7, 9, 1, 1), (2, 4))
    canonical, filter_order, channel_order = pattern.canonical()
    assert canonical is pattern
    assert torch.equal(filter_order, torch.arange(7))
    assert torch.equal(channel_order, torch.arange(9))


def test_overlapping_groups_have_no_canonical_form() -> None:
    pattern = overlapping_pattern((8, 16, 1, 1), (2, 4))
    assert not pattern.partitioned
    assert not pattern.is_canonical
    with pytest.raises(ValueError, match="expected channel groups that partition"):
        pattern.canonical()


@given(problems(permuted=True))
def test_json_round_trip(problem: Problem) -> None:
    again = BlockPattern.from_dict(json.loads(json.dumps(problem.pattern.to_dict())))
    assert again == problem.pattern
    assert hash(again) == hash(problem.pattern)
    assert torch.equal(again.mask(), problem.pattern.mask())


def test_the_content_hash_is_the_same_on_every_machine() -> None:
    expected = "6d118fce788115877371653ade85ccaeadd480e7ca72605ff85529a7a1158d23"
    assert example().content_hash == expected


def test_equality_is_by_content() -> None:
    pattern = example()
    copies = [copy.deepcopy(pattern), pickle.loads(pickle.dumps(pattern)), pattern.to("cpu")]
    assert all(each == pattern and hash(each) == hash(pattern) for each in copies)
    assert pattern.to("cpu") is pattern
    assert pattern != "pattern"
    others = [BlockPattern(**GOOD | change) for change in (
        {},
        {"filters": table([1, 0], [2, 3], [4, -1])},
        {"channels": table([3, 4, 5], [0, 1, 2])},
        {"entries": GOOD["entries"][:-1]},
        {"shape": (5, 6, 2, 1)},
    )]  # fmt: skip
    assert len({pattern, *others}) == 6


def test_derived_is_worked_out_once() -> None:
    calls: list[BlockPattern] = []

    def make(pattern: BlockPattern) -> int:
        calls.append(pattern)
        return len(calls)

    pattern = example()
    assert [pattern.derived(make), pattern.derived(make)] == [1, 1]
    assert calls == [pattern]


def test_what_inference_mode_caches_serves_training() -> None:
    with torch.inference_mode():
        pattern = example()
        assert pattern.density == 8 / 24
        assert not pattern.derived(lambda p: p.filters.long()).is_inference()
    weight = torch.ones(pattern.shape, requires_grad=True)
    (gradient,) = torch.autograd.grad(pattern.pack(weight).sum(), weight)
    assert torch.equal(gradient.bool(), pattern.mask())


@pytest.mark.parametrize("style", STYLES)
def test_repr_names_the_pattern(style: str) -> None:
    pattern = random_pattern((8, 8, 1, 1), (2, 2), 0, style)
    assert repr(pattern).startswith("BlockPattern(shape=(8, 8, 1, 1), block=(2, 2), entries=")
    assert f"density={pattern.density:.4g}" in repr(pattern)
