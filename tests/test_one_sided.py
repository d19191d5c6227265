"""Patterns whose filter groups choose their own channels: the three passes, and the module."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from hrbp_core import BlockPattern, BlockSparseConv2d, block_sparse_conv2d, one_sided, regroup
from hrbp_core.regrouping import block_pattern
from hrbp_core.shapes import ConvShape
from tests.cpu_checks import Results, check
from tests.pattern_samples import Problem, geometries, overlapping_pattern, table
from tests.score_families import family

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@st.composite
def one_sided_problems(draw: st.DrawFn) -> Problem:
    k, c = draw(st.integers(1, 23)), draw(st.integers(1, 23))
    block = (draw(st.integers(1, min(k, 9))), draw(st.integers(1, min(c, 9))))
    r, s, geometry, (h, w) = draw(geometries(narrow=False))
    seed = draw(st.integers(0, 2**16))
    pattern = overlapping_pattern((k, c, r, s), block, seed)
    if draw(st.booleans()):  # padded lists, common taps, dead filters
        scores = torch.rand(k, c, r, s, generator=torch.Generator().manual_seed(seed))
        method = draw(st.sampled_from(["hrbp", "hrbp_pp"]))
        pattern = block_pattern(scores, 1.0 if k * c < 9 else 0.6, method=method, block=block,
                          coverage=False)  # fmt: skip
    shape = ConvShape(draw(st.integers(1, 3)), c, h, w, k, r, s, *geometry)
    return Problem(pattern, shape, seed)


def ours(problem: Problem, x: Tensor, values: Tensor, dy: Tensor) -> Results:
    x, values = x.clone().requires_grad_(), values.clone().requires_grad_()
    y = block_sparse_conv2d(x, values, problem.pattern, None, *problem.geometry)
    dx, dvalues = torch.autograd.grad(y, (x, values), dy)
    return {"fprop": y.detach(), "dgrad": dx, "wgrad": dvalues}


@pytest.mark.parametrize("dtype", DTYPES)
@given(problem=one_sided_problems())
def test_passes_against_the_oracle(dtype: torch.dtype, problem: Problem) -> None:
    check(problem, dtype, ours)


def layer_problem() -> Problem:
    scores = family("clustered", 96, 100, seed=2).expand(-1, -1, 3, 3)
    pattern = regroup(scores, 0.4, method="hrbp", block=16)
    assert not pattern.partitioned
    return Problem(pattern, ConvShape(5, 100, 9, 8, 96, 3, 3, (2, 1), (1, 1)), 3)


@pytest.mark.parametrize("limit", [1, 100_000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_batches_in_pieces(limit: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = layer_problem()
    whole = ours(problem, *problem.tensors(torch.float64))
    calls: list[int] = []
    gather = one_sided._gather
    monkeypatch.setattr(one_sided, "SPREAD_LIMIT_BYTES", limit)

    def watched(x: Tensor, *rest: Tensor) -> Tensor:
        calls.append(len(x))
        return gather(x, *rest)

    monkeypatch.setattr(one_sided, "_gather", watched)
    check(problem, dtype, ours)
    assert max(calls) < 5
    assert sum(calls) == 10
    again = ours(problem, *problem.tensors(torch.float64))
    for name, expected in whole.items():
        torch.testing.assert_close(again[name], expected, rtol=1e-13, atol=1e-13)


@given(batch=st.integers(1, 9), image_bytes=st.integers(0, 400))
def test_pieces_cover_the_batch_below_the_limit(batch: int, image_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_sided, "SPREAD_LIMIT_BYTES", 100)
        pieces = list(one_sided._pieces(batch, image_bytes))
    images = list(range(batch))
    assert [i for piece in pieces for i in images[piece]] == images
    assert all(len(images[p]) == 1 or len(images[p]) * image_bytes <= 100 for p in pieces)


def test_spread_by_hand() -> None:
    """Two filter groups that share channel 1; the second's last list is padded."""
    pattern = BlockPattern(
        (4, 3, 1, 1), (2, 2),
        filters=table([2, 3], [0, 1]), channels=table([0, 1], [1, -1]),
        entries=table([0, 0, 0], [1, 1, 0]),
    )  # fmt: skip
    found = one_sided.spread(pattern)
    assert found.pattern.is_canonical
    assert found.pattern.shape == (4, 4, 1, 1)
    channel, places, padding = one_sided._parts(found.copies, found.rounds, 4)
    assert channel.tolist() == [0, 1, 1, 0]
    assert found.rounds == (2, 1)
    assert places.tolist() == [0, 1, 2]
    assert padding.tolist() == [3]


def test_no_channel_stands_twice_in_a_round() -> None:
    pattern = overlapping_pattern((40, 30, 1, 1), (4, 3), 7)
    found = one_sided.spread(pattern)
    channel, places, _ = one_sided._parts(found.copies, found.rounds, found.pattern.shape[1])
    for turn in places.split(list(found.rounds)):
        assert channel[turn].unique().numel() == turn.numel()
    assert sorted(places.tolist()) == list(range(len(channel)))


def test_rounds_add_up_as_the_cpu_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU's way of summing, run here: rounds, each without two copies of a channel."""
    pattern = overlapping_pattern((40, 30, 1, 1), (4, 3), 7)
    found = one_sided.spread(pattern)
    channel, places, _ = one_sided._parts(found.copies, found.rounds, found.pattern.shape[1])
    copied = torch.randn(2, len(channel), 3, 3).contiguous(memory_format=torch.channels_last)
    one = one_sided._add_up(copied, channel, places, found.rounds, 30)
    rounds = copied.new_zeros(2, 30, 3, 3)
    for turn in places.split(list(found.rounds)):
        rounds[:, channel[turn]] += copied[:, turn]
    torch.testing.assert_close(one, rounds)


def test_copies_add_up_in_float32() -> None:
    """256 + 1 + ... + 1 stays 256 in bfloat16, whose next number is 258."""
    copies = torch.full((1, 65, 1, 1), 1.0, dtype=torch.bfloat16)
    copies[:, 0] = 256
    channel = torch.zeros(65, dtype=torch.int64)
    added = one_sided._add_up(copies, channel, torch.arange(65), (1,) * 65, 1)
    assert added.dtype == torch.bfloat16
    assert added.item() == 320


def test_padding_takes_no_part_even_where_the_input_is_not_finite() -> None:
    pattern = BlockPattern(
        (2, 3, 1, 1), (2, 2), filters=table([0, 1]), channels=table([1, -1], [2, -1]),
        entries=table([0, 0, 0], [0, 1, 0]),
    )  # fmt: skip
    x = torch.tensor([float("nan"), 1.0, 2.0]).view(1, 3, 1, 1)
    values = pattern.pack(torch.ones(2, 3, 1, 1)).requires_grad_()
    y = block_sparse_conv2d(x, values, pattern)
    assert y.flatten().tolist() == [3.0, 3.0]
    y.sum().backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()


@pytest.mark.parametrize("method", ["hrbp", "hrbp_pp", "dsb_kernel"])
def test_a_module_trains_saves_and_copies(method: str) -> None:
    scores = family("clustered", 32, 36, seed=1).expand(-1, -1, 3, 3)
    pattern = block_pattern(scores, 0.5, method=method, block=8)
    conv = torch.nn.Conv2d(36, 32, 3, padding=1)
    layer = BlockSparseConv2d.from_dense(conv, pattern)
    x = torch.randn(2, 36, 6, 5)
    weight = torch.where(pattern.mask(), conv.weight, 0.0)
    expected = functional.conv2d(x, weight, conv.bias, padding=1)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(copy.deepcopy(layer)(x), expected)
    torch.testing.assert_close(layer.to_dense()(x), expected)
    other = BlockSparseConv2d(36, 32, 3, padding=1, density=0.5, block=8)
    other.load_state_dict(layer.state_dict())
    assert other.pattern == pattern
    torch.testing.assert_close(other(x), expected)
    before = layer.values.detach().clone()
    layer(x).square().mean().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    assert not torch.equal(layer.values, before)


def test_a_module_takes_another_stride() -> None:
    pattern = overlapping_pattern((8, 12, 3, 3), (4, 3))
    layer = BlockSparseConv2d(12, 8, 3, padding=1, pattern=pattern)
    x = torch.randn(1, 12, 7, 7)
    layer(x)
    layer.stride = (2, 2)
    torch.testing.assert_close(layer(x), layer.to_dense()(x))


def test_autograd_saves_the_input_not_its_copies() -> None:
    problem = layer_problem()
    x, values, _ = problem.tensors(torch.float32)
    largest: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        largest.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        block_sparse_conv2d(x.requires_grad_(), values.requires_grad_(), problem.pattern)
    spread = one_sided.spread(problem.pattern).pattern.shape[1]
    assert spread > 2 * problem.shape.C
    assert max(largest) <= max(x.numel(), values.numel())
