"""Policies of BlockSparseConv2d: the dense way is the same function, and is switched by hand."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.nn import functional

from hrbp_core import BlockPattern, BlockSparseConv2d, densely, policy, reference
from hrbp_core.regrouping import block_pattern
from hrbp_core.shapes import ConvShape
from tests.cpu_checks import Results, check
from tests.pattern_samples import Problem, overlapping_pattern, problems, random_pattern
from tests.score_families import family
from tests.test_one_sided import one_sided_problems

SHAPE = (5, 7, 3, 2)
GEOMETRY = ((2, 1), (1, 2), (1, 2))  # does not divide, differs, leaves holes


def published(method: str) -> BlockPattern:
    scores = family("clustered", 32, 36, seed=1).expand(-1, -1, 3, 3)
    return block_pattern(scores, 0.5, method=method, block=8)


EMPTY = BlockPattern.from_blocks(
    SHAPE,
    (2, 3),
    torch.tensor([[4, 0], [1, 3], [2, -1]]),
    torch.tensor([[5, 1, 0], [2, 3, 6], [4, -1, -1]]),
    torch.tensor([[True, False, True], [False] * 3, [False, False, True]]),
)
PATTERNS = {
    "canonical": random_pattern((4, 6, 3, 2), (2, 3), 1),
    "padded": random_pattern(SHAPE, (2, 3), 1),
    "permuted some taps": random_pattern(SHAPE, (3, 2), 4, permuted=True, some_taps=True),
    "empty groups": EMPTY,
    "one-sided": overlapping_pattern(SHAPE, (2, 3), 5),
    "hrbp2_pp": published("hrbp2_pp"),
    "hrbp_pp": published("hrbp_pp"),
    "hrbp": published("hrbp"),
}
ALL = pytest.mark.parametrize("name", PATTERNS)


def layer(pattern: BlockPattern, **options: Any) -> BlockSparseConv2d:
    k, c, r, s = pattern.shape
    torch.manual_seed(0)
    options.setdefault("policy", "dense")
    options.setdefault("dtype", torch.float64)
    return BlockSparseConv2d(c, k, (r, s), pattern=pattern, **options)


def image(pattern: BlockPattern, dtype: torch.dtype = torch.float64, n: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, pattern.shape[1], 7, 5, generator=generator, dtype=torch.float64)
    return x.to(dtype).requires_grad_()


def densely_run(problem: Problem, x: Tensor, values: Tensor, dy: Tensor) -> Results:
    made = layer(problem.pattern, bias=False, dtype=values.dtype)
    made.stride, made.padding, made.dilation = problem.geometry
    made.values.data = values.clone()
    x = x.clone().requires_grad_()
    y = made(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    dx, dvalues = torch.autograd.grad(y, (x, made.values), dy)
    return {"fprop": y.detach(), "dgrad": dx, "wgrad": dvalues}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@given(problem=problems(permuted=True, narrow=False))
def test_passes_of_any_layer_against_the_oracle(dtype: torch.dtype, problem: Problem) -> None:
    check(problem, dtype, densely_run)


@given(problem=one_sided_problems())
def test_passes_of_overlapping_channels_against_the_oracle(problem: Problem) -> None:
    check(problem, torch.float64, densely_run)


@ALL
@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "padding": 1},
        {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2), "bias": False},
        {"padding": "same", "dilation": (2, 1), "padding_mode": "reflect"},
        {"padding": 2, "padding_mode": "circular", "stride": 2},
        {"padding": (1, 2), "padding_mode": "replicate"},
    ],
)
def test_a_layer_against_the_oracle(name: str, options: dict[str, Any]) -> None:
    made = layer(PATTERNS[name], **options)
    padding, x = made._padding, image(PATTERNS[name])
    weight, mask = made.pattern.unpack(made.values), made.pattern.mask()
    geometry = (made.stride, padding.inside, made.dilation)
    padded = padding.apply(x).detach()
    expected = reference.fprop(padded, weight.detach(), mask, *geometry)
    if made.bias is not None:
        expected = expected + made.bias.detach().view(1, -1, 1, 1)
    y = made(x)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    assert y.is_contiguous(memory_format=torch.channels_last)
    dy = torch.randn_like(y)
    dweight = reference.wgrad(dy, padded, made.shape, mask, *geometry)
    y.backward(dy)
    expected = made.pattern.pack(dweight)
    torch.testing.assert_close(made.values.grad, expected, rtol=1e-12, atol=1e-12)
    if made.bias is not None:
        torch.testing.assert_close(made.bias.grad, dy.sum((0, 2, 3)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in PATTERNS if not n.startswith("hrbp")])
def test_gradients(name: str) -> None:
    made = layer(PATTERNS[name], stride=GEOMETRY[0], padding=GEOMETRY[1], dilation=GEOMETRY[2])
    parts = dict(made.named_parameters())

    def call(x: Tensor, *tensors: Tensor) -> Tensor:
        return torch.func.functional_call(made, dict(zip(parts, tensors, strict=True)), (x,))

    tensors = (image(PATTERNS[name])[:, :, :4, :3].detach().requires_grad_(), *parts.values())
    assert torch.autograd.gradcheck(call, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, tensors, fast_mode=True)


@ALL
def test_both_ways_agree_and_padding_gets_no_gradient(name: str) -> None:
    x, found = image(PATTERNS[name]), []
    made = layer(PATTERNS[name], padding=1)
    with torch.no_grad():
        made.values.add_(1)  # in padding too
    for way in ("dense", "sparse"):
        made.policy = way
        y = made(x)
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, *made.parameters()))))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    weight = torch.ones(PATTERNS[name].shape, dtype=torch.float64)
    assert not found[0][2][PATTERNS[name].pack(weight) == 0].any()


@pytest.mark.parametrize(
    ("pattern", "width"),
    [
        (random_pattern((6, 8, 3, 3), (3, 4)), 4),
        (random_pattern((6, 8, 3, 3), (4, 4), some_taps=True), 4),  # padded filters
        (random_pattern((6, 6, 3, 3), (3, 4)), 2),  # half a group of padding
        (random_pattern((6, 7, 1, 1), (3, 4)), 1),
        (BlockPattern.from_blocks(
            (2, 8, 1, 1), 2, torch.tensor([[1, 0]]),
            torch.tensor([[6, 7], [0, 1], [4, 5], [2, 3]]), torch.ones(1, 4, dtype=torch.bool),
        ), 2),
        (BlockPattern.from_blocks(  # beside one another, but no run starts at an even channel
            (2, 8, 1, 1), 2, torch.tensor([[0, 1]]), torch.tensor([[1, 2], [3, 4], [5, 6], [7, 0]]),
            torch.tensor([[True, True, True, False]]),
        ), 1),
        (random_pattern((6, 8, 3, 3), (3, 4), 3, permuted=True), 1),
    ],
)  # fmt: skip
def test_runs_are_as_long_as_the_pattern_allows(pattern: BlockPattern, width: int) -> None:
    where = densely.unpacking(pattern)
    assert where.width == width
    values = torch.randn(pattern.values_shape, dtype=torch.float64)
    weight = densely.unpack(values, where, pattern.shape)
    assert torch.equal(weight, pattern.unpack(values))
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert where.padded == (pattern.work > pattern.density)


@pytest.mark.parametrize("name", ["padded", "permuted some taps", "one-sided"])
def test_nothing_is_worked_out_or_permuted_in_a_forward(name, monkeypatch) -> None:
    made = layer(PATTERNS[name], padding=1)

    def unwanted(*args: object) -> None:
        raise AssertionError

    for where, what in ((policy, "unpacking"), (densely, "weight_index")):
        monkeypatch.setattr(where, what, unwanted)
    with torch.profiler.profile() as seen:
        made(image(PATTERNS[name])).sum().backward()
    assert not [e.key for e in seen.key_averages() if "hrbp::" in e.key]
    assert "aten::convolution" in {e.key for e in seen.key_averages()}


@pytest.mark.parametrize("name", ["padded", "permuted some taps", "one-sided"])
@pytest.mark.parametrize("x_dtype", [torch.float32, torch.float16, torch.float64])
def test_autocast_is_that_of_the_sparse_way(name: str, x_dtype: torch.dtype) -> None:
    dtype = torch.float64 if x_dtype == torch.float64 else torch.float32
    found = []
    for way in ("dense", "sparse"):
        made = layer(PATTERNS[name], policy=way, padding=1, dtype=dtype)
        x = image(PATTERNS[name], x_dtype)
        with torch.autocast("cpu", torch.bfloat16):
            y = made(x)
        found.append((y, *torch.autograd.grad(y.float().sum(), (x, *made.parameters()))))
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        assert float((ours - theirs).detach().norm()) <= 0.02 * float(theirs.detach().norm())


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 6, 4, 3), ValueError, r"expected x \[N, 7, H, W\], got \[2, 6, 4, 3\]"),
        (torch.zeros(7, 4, 3), ValueError, r"expected x \[N, 7, H, W\], got \[7, 4, 3\]"),
        (torch.zeros(2, 7, 4, 3), TypeError, "expected values of x's dtype torch.float32, got"),
        (torch.zeros(2, 7, 1, 3).double(), ValueError, "expected an output with pixels, got"),
    ],
)
def test_errors_are_those_of_the_sparse_way(x: Tensor, error: Any, message: str) -> None:
    for way in policy.POLICIES:
        with pytest.raises(error, match=message):
            layer(PATTERNS["padded"], policy=way)(x)


def runs_densely(made: BlockSparseConv2d) -> bool:
    """Return which way a forward really goes."""
    with torch.profiler.profile() as seen:
        made(image(made.pattern))
    return not any("hrbp::" in event.key for event in seen.key_averages())


@pytest.mark.parametrize(("way", "choice"), [*itertools.product(policy.POLICIES, policy.CODES)])
def test_which_way_a_forward_goes(way: str, choice: str) -> None:
    made = layer(PATTERNS["padded"], policy=way)
    assert (made.policy, made.choice) == (way, "undecided")
    made.choose(choice)
    assert made.choice == choice
    assert runs_densely(made) == (way == "dense" or (way == "auto" and choice == "dense"))
    told = f"policy={way}, choice={choice}"
    assert (told in repr(made)) == (way != "sparse")
    for other in ("sparse", "auto", "dense"):
        made.policy = other
        assert runs_densely(made) == (other == "dense" or (other, choice) == ("auto", "dense"))
        assert made.choice == choice


def test_settled_in_inference_mode_and_trained_after_it() -> None:
    with torch.inference_mode():
        late = layer(PATTERNS["padded"], policy="auto")
    late.choose("dense")
    assert runs_densely(late)
    made = layer(PATTERNS["padded"], policy="sparse")
    with torch.inference_mode():
        made.policy = "dense"
        made(image(made.pattern))
    made(image(made.pattern)).sum().backward()
    assert made.values.grad is not None


def test_what_does_not_exist_is_refused() -> None:
    made = layer(PATTERNS["padded"], policy="auto")
    message = "expected policy as one of sparse, dense, auto, got 'fast'"
    with pytest.raises(ValueError, match=message):
        made.policy = "fast"
    with pytest.raises(ValueError, match=message):
        layer(PATTERNS["padded"], policy="fast")
    with pytest.raises(ValueError, match="expected choice as one of undecided, sparse, dense"):
        made.choose("auto")
    assert (made.policy, made.choice) == ("auto", "undecided")


@pytest.mark.parametrize("name", ["padded", "one-sided"])
def test_another_stride_needs_no_tables(name: str) -> None:
    made = layer(PATTERNS[name])
    made(image(PATTERNS[name]))
    made.stride, made.padding = (2, 2), (1, 1)
    x = image(PATTERNS[name])
    weight = made.pattern.unpack(made.values)
    expected = functional.conv2d(x, weight, made.bias, 2, 1)
    torch.testing.assert_close(made(x), expected, rtol=1e-12, atol=1e-12)
    made.policy = "sparse"
    torch.testing.assert_close(made(x), expected, rtol=1e-12, atol=1e-12)


def test_the_shape_of_the_output_is_that_of_the_cell() -> None:
    shape = ConvShape(3, 7, 7, 5, 5, 3, 2, *GEOMETRY)
    made = layer(PATTERNS["padded"], stride=GEOMETRY[0], padding=GEOMETRY[1], dilation=GEOMETRY[2])
    assert tuple(made(image(PATTERNS["padded"], n=3)).shape) == (3, 5, shape.P, shape.Q)
