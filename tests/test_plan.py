"""The plan: the cheapest buckets, weights at their places, caches that stay small."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrbp_core.kernels import cpu, grouped
from hrbp_core.kernels.buckets import KEPT_SIZES, Gather, Side, cut_buckets
from hrbp_core.kernels.plan import Plan
from hrbp_core.pattern import BlockPattern
from tests.pattern_samples import Problem, problems, random_pattern


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    """Yield every way to part the items into sets."""
    if not items:
        yield []
        return
    first, *others = items
    for parts in partitions(others):
        yield [[first], *parts]
        for i, part in enumerate(parts):
            yield [*parts[:i], [first, *part], *parts[i + 1 :]]


def cost_of(buckets: list, counts: np.ndarray, call_cost: int) -> int:
    return sum(len(b) * int(max(counts[i] for i in b)) + call_cost for b in buckets)


@given(st.lists(st.integers(0, 9), max_size=7), st.integers(0, 6))
def test_no_buckets_are_cheaper(counts: list[int], call_cost: int) -> None:
    array = np.array(counts, dtype=np.int64)
    buckets, cost = cut_buckets(array, call_cost)
    full = [i for i, count in enumerate(counts) if count]
    assert sorted(i for b in buckets for i in b.tolist()) == full
    assert all((np.diff(b) > 0).all() for b in buckets)
    assert cost == cost_of(buckets, array, call_cost)
    assert cost == min(cost_of(p, array, call_cost) for p in partitions(full))


def test_buckets_by_hand() -> None:
    counts = np.array([1, 8, 0, 8, 2])
    buckets, cost = cut_buckets(counts, call_cost=2)
    assert [b.tolist() for b in buckets] == [[1, 3], [0, 4]]
    assert cost == 2 * 8 + 2 + 2 * 2 + 2
    assert cut_buckets(np.zeros(3, dtype=np.int64)) == ([], 0)
    # one call or two cost the same: the last bucket takes fewer rows
    assert [b.tolist() for b in cut_buckets(np.array([3, 1]), call_cost=2)[0]] == [[0], [1]]


def plan_of(pattern: BlockPattern) -> Plan:
    return cpu.plan_for(pattern.entries, pattern.shape, pattern.block)


@given(problems())
def test_each_side_writes_each_kept_group_once(problem: Problem) -> None:
    plan, pattern = plan_of(problem.pattern), problem.pattern
    counts = (pattern.blocks_per_filter_group, pattern.blocks_per_channel_group)
    for side, count in zip((plan.by_filter, plan.by_channel), counts, strict=True):
        rows = [i for b in side.buckets for i in b.rows.tolist()]
        assert sorted(rows) == count.nonzero().view(-1).tolist()
        assert side.complete == bool((count > 0).all())
        assert (side.groups, side.in_groups) in (plan.grid, plan.grid[::-1])
        for bucket in side.buckets:
            kept = bucket.real.sum(1)
            assert kept.tolist() == count[bucket.rows].tolist()
            assert kept.max() == bucket.cols.shape[1]


@given(problems())
def test_weights_are_collected_from_and_scattered_to_their_places(problem: Problem) -> None:
    plan, pattern = plan_of(problem.pattern), problem.pattern
    values = torch.arange(1.0, 1 + pattern.values_shape[0] * pattern.values_shape[1]).view(
        pattern.values_shape
    )
    for side in (plan.by_filter, plan.by_channel):
        again = torch.full_like(values, float("nan"))
        for bucket in side.buckets:
            segments = bucket.collect(values)
            assert segments.shape == (len(bucket.segments), pattern.block[1])
            assert not segments[torch.from_numpy(bucket.segments < 0)].any()
            bucket.scatter(segments, again)
        assert torch.equal(again, values)


def dense_from(side: Side, values: torch.Tensor, plan: Plan, over_channels: bool) -> torch.Tensor:
    """Put the blocks of a side's bucket weights back in a dense weight."""
    (bk, bc), (r, s) = plan.block, plan.shape[2:]
    dense = torch.zeros(plan.grid[0] * bk, plan.grid[1] * bc, r, s)
    for bucket in side.buckets:
        make = grouped._channel_weight if over_channels else grouped._filter_weight
        weight = make(bucket, values, plan)
        for i, row in enumerate(bucket.rows):
            for j in np.flatnonzero(bucket.real[i]):
                group, channel = (
                    (bucket.cols[i, j], row) if over_channels else (row, bucket.cols[i, j])
                )
                lane = (
                    (j if bucket.shared else i * bucket.cols.shape[1] + j) if over_channels else i
                )
                column = (i if bucket.shared else 0) if over_channels else j
                block = weight[lane * bk : (lane + 1) * bk, column * bc : (column + 1) * bc]
                dense[group * bk : (group + 1) * bk, channel * bc : (channel + 1) * bc] = block
    return dense[: plan.shape[0], : plan.shape[1]]


@given(problems())
def test_bucket_weights_hold_the_blocks(problem: Problem) -> None:
    plan = plan_of(problem.pattern)
    _, values, _ = problem.tensors(torch.float32)
    expected = problem.pattern.unpack(values)
    assert torch.equal(dense_from(plan.by_filter, values, plan, False), expected)
    assert torch.equal(dense_from(plan.by_channel, values, plan, True), expected)


def test_a_bucket_weight_is_a_view_where_it_can_be() -> None:
    pattern = random_pattern((16, 16, 3, 3), (4, 4), 0, "equal_rows")
    values = torch.randn(pattern.values_shape)
    (bucket,) = plan_of(pattern).by_filter.buckets
    assert bucket.run == (0, len(values))
    assert bucket.collect(values).data_ptr() == values.data_ptr()
    dense = BlockPattern.dense((8, 8, 1, 1), 4)
    assert [b.shared for b in plan_of(dense).by_filter.buckets] == [True]
    assert plan_of(dense).by_filter.buckets[0].conv_groups == 1


@given(
    width=st.integers(1, 5),
    total=st.integers(1, 6),
    data=st.data(),
)
def test_gather_takes_whole_groups(width: int, total: int, data: st.DataObject) -> None:
    groups = data.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=9))
    gather = Gather(np.array(groups), total)
    source = torch.randn(2, total * width, 3, 2).contiguous(memory_format=torch.channels_last)
    before = source.clone()
    taken = gather(source, width)
    channels = [g * width + i for g in groups for i in range(width)]
    assert torch.equal(taken, source[:, channels])
    assert taken.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(source, before)
    assert gather.is_identity == (groups == list(range(total)))
    assert (taken is source) == gather.is_identity


def test_row_indices_are_kept_for_few_sizes() -> None:
    gather = Gather(np.array([2, 0]), 3)
    for n in range(1, 3 * KEPT_SIZES):
        source = torch.randn(n, 6, 2, 2).contiguous(memory_format=torch.channels_last)
        assert torch.equal(gather(source, 2), source[:, [4, 5, 0, 1]])
        assert len(gather._rows) <= KEPT_SIZES
    kept = gather._row_index(n * 4, torch.device("cpu"))
    assert gather._row_index(n * 4, torch.device("cpu")) is kept


def test_sum_indices_are_kept_for_few_sizes() -> None:
    side = plan_of(random_pattern((16, 16, 1, 1), (4, 4), 1)).by_filter
    for pixels in range(1, 3 * KEPT_SIZES):
        index, offsets = side.sum_index(pixels, torch.device("cpu"))
        assert len(offsets) == pixels * side.in_groups
        assert len(index) == pixels * sum(int(b.real_places.sum()) for b in side.buckets)
        assert len(side._sums) <= KEPT_SIZES


def test_the_same_content_is_planned_once() -> None:
    pattern = random_pattern((16, 16, 1, 1), (4, 4), 2)
    plan = plan_of(pattern)
    assert cpu.plan_for(pattern.entries.clone(), list(pattern.shape), [4, 4]) is plan
    assert cpu.plan_for(pattern.entries, (16, 17, 1, 1), (4, 4)) is not plan


def test_a_change_in_place_is_seen() -> None:
    entries = torch.tensor([[0, 0, 0], [1, 1, 0]], dtype=torch.int32)
    x, values = torch.ones(1, 2, 1, 1), torch.tensor([[3.0], [5.0]])
    geometry = ((1, 1), (0, 0), (1, 1))

    def outputs() -> list[float]:
        plan = cpu.plan_for(entries, (2, 2, 1, 1), (1, 1))
        return (
            cpu.fprop(x * torch.tensor([1.0, 10.0]).view(1, 2, 1, 1), values, plan, geometry)
            .view(-1)
            .tolist()
        )

    assert outputs() == [3, 50]
    entries[0, 1], entries[1, 1] = 1, 0
    assert outputs() == [30, 5]


def test_entries_need_not_be_contiguous() -> None:
    pattern = random_pattern((16, 16, 2, 2), (4, 4), 2)
    strided = pattern.entries.t().contiguous().t()
    assert cpu.plan_for(strided, pattern.shape, pattern.block) is plan_of(pattern)


@pytest.mark.parametrize("style", ["one_block", "diagonal"])
def test_groups_that_keep_nothing_are_in_no_bucket(style: str) -> None:
    plan = plan_of(random_pattern((12, 40, 1, 1), (4, 4), 7, style))
    assert not plan.by_channel.complete
    written = sum(len(b.rows) for b in plan.by_channel.buckets)
    assert written == int(plan._kept.any(0).sum()) < 10
