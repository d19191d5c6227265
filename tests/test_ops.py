"""The operators as torch sees them: gradients, fakes, compilation, autocast, errors."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional

from hrbp_core import block_sparse_conv2d, operators
from hrbp_core.launch_tables import launch_tables
from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.shapes import ConvShape
from tests.pattern_samples import Problem, overlapping_pattern, random_pattern

SHAPE = (5, 7, 3, 2)
PATTERNS = {
    "canonical": random_pattern((4, 6, 3, 2), (2, 3), 1),
    "padded": random_pattern(SHAPE, (2, 3), 1),
    "some taps": random_pattern(SHAPE, (2, 3), 2, some_taps=True),
    "permuted": random_pattern(SHAPE, (2, 3), 3, permuted=True),
    "permuted some taps": random_pattern(SHAPE, (3, 2), 4, permuted=True, some_taps=True),
    "one-sided": overlapping_pattern(SHAPE, (2, 3), 5),
}
# the stride does not divide, the padding differs, the dilation leaves holes
GEOMETRY = ((2, 1), (1, 2), (1, 2))
OPERATORS = torch.ops.hrbp
BIAS_OR_NOT = pytest.mark.parametrize("with_bias", [False, True])


def problem(name: str, n: int = 2) -> Problem:
    pattern = PATTERNS[name]
    k, c, r, s = pattern.shape
    return Problem(pattern, ConvShape(n, c, 4, 3, k, r, s, *GEOMETRY), 0)


def inputs(name: str, with_bias: bool) -> list[Tensor]:
    """Return x, values and perhaps bias, in float64, that require gradients."""
    each = problem(name)
    x, values, _ = each.tensors(torch.float64)
    bias = [torch.arange(each.shape.K, dtype=torch.float64)] if with_bias else []
    return [t.requires_grad_() for t in (x, values, *bias)]


def convolve(name: str, x: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    return block_sparse_conv2d(x, values, PATTERNS[name], bias, *GEOMETRY)


@BIAS_OR_NOT
@pytest.mark.parametrize("name", PATTERNS)
def test_forward_is_the_masked_dense_convolution(name: str, with_bias: bool) -> None:
    x, values, *bias = inputs(name, with_bias)
    y = convolve(name, x, values, *bias)
    weight = PATTERNS[name].unpack(values)
    expected = functional.conv2d(x, weight, bias[0] if bias else None, *GEOMETRY)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    assert y.is_contiguous(memory_format=torch.channels_last)


@BIAS_OR_NOT
@pytest.mark.parametrize("name", PATTERNS)
def test_gradients(name: str, with_bias: bool) -> None:
    def call(*tensors: Tensor) -> Tensor:
        return convolve(name, *tensors)

    tensors = inputs(name, with_bias)
    assert torch.autograd.gradcheck(call, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, tensors, fast_mode=True)


@pytest.mark.parametrize("name", ["padded", "permuted some taps"])
def test_every_gradient_of_the_slow_check(name: str) -> None:
    def call(*tensors: Tensor) -> Tensor:
        return convolve(name, *tensors)

    assert torch.autograd.gradcheck(call, inputs(name, True))


def operator_calls(name: str) -> Iterator[tuple[str, tuple]]:
    """Yield each operator with arguments, on the pattern's canonical form."""
    each = problem(name)
    pattern = each.pattern
    x, values, dy = (t.requires_grad_() for t in each.tensors(torch.float64))
    tail = (list(pattern.shape), list(pattern.block), *(list(g) for g in GEOMETRY))
    index = (pattern.entries, launch_tables(pattern, *GEOMETRY))
    yield "fprop", (x, values, None, *index, *tail)
    yield "dgrad", (dy, values, *index, [4, 3], *tail)
    yield "wgrad", (dy, x, *index, *tail)
    order = torch.randperm(x.shape[1])
    yield "permute_channels", (x, order, order.argsort())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("operator", ["fprop", "dgrad", "wgrad", "permute_channels"])
@pytest.mark.parametrize("name", ["canonical", "padded", "some taps"])
def test_opcheck(operator: str, name: str) -> None:
    args = dict(operator_calls(name))[operator]
    torch.library.opcheck(getattr(OPERATORS, operator).default, args)


@pytest.mark.parametrize("name", ["canonical", "padded"])
@pytest.mark.parametrize("operator", ["fprop", "dgrad", "wgrad"])
def test_gradients_of_each_operator(operator: str, name: str) -> None:
    first, second, *rest = dict(operator_calls(name))[operator]

    def call(first: Tensor, second: Tensor) -> Tensor:
        return getattr(OPERATORS, operator)(first, second, *rest)

    assert torch.autograd.gradcheck(call, (first, second), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (first, second), fast_mode=True)


@pytest.mark.parametrize("needed", ["x", "values"])
def test_only_what_is_needed_is_computed(needed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(*args: object) -> Tensor:
        raise AssertionError

    monkeypatch.setattr(operators.cpu, "wgrad" if needed == "x" else "dgrad", unwanted)
    x, values = (t.detach() for t in inputs("padded", False))
    tensor = {"x": x, "values": values}[needed].requires_grad_()
    (gradient,) = torch.autograd.grad(convolve("padded", x, values).sum(), tensor)
    assert gradient.any()


LAYOUTS = {
    "expanded": lambda t: t[:1, :1].expand(t.shape),
    "transposed": lambda t: t.t().contiguous().t(),
    "sliced": lambda t: torch.cat((t, t), 1)[:, : t.shape[1]],
}


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_of_any_layout(name: str, layout: str) -> None:
    x, values = (t.detach() for t in inputs(name, False))
    strided = LAYOUTS[layout](values)
    y = convolve(name, x, strided)
    torch.testing.assert_close(y, convolve(name, x, strided.contiguous()))


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_second_gradients_of_any_layout(name: str, layout: str) -> None:
    x, values = inputs(name, False)
    (dvalues,) = torch.autograd.grad(convolve(name, x, values).sum(), values, create_graph=True)
    strided = LAYOUTS[layout](torch.randn_like(dvalues))
    gradients = [
        torch.autograd.grad(dvalues, x, g, retain_graph=True)
        for g in (strided, strided.contiguous())
    ]
    torch.testing.assert_close(*gradients)


@pytest.fixture
def backend() -> Iterator[CompileCounterWithBackend]:
    torch._dynamo.reset()
    yield CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own, on first use
@pytest.mark.parametrize("name", ["padded", "permuted some taps"])
def test_the_module_compiles_whole_for_any_batch(name: str, backend) -> None:
    k, c, r, s = PATTERNS[name].shape
    layer = BlockSparseConv2d(c, k, (r, s), *GEOMETRY, pattern=PATTERNS[name]).double()
    compiled = torch.compile(layer, fullgraph=True, backend=backend, dynamic=True)
    for n in (2, 3, 5):
        x = problem(name, n).tensors(torch.float64)[0].requires_grad_()
        results = []
        for each in (layer, compiled):
            y = each(x)
            gradients = torch.autograd.grad(y.square().sum(), (x, *layer.parameters()))
            results.append((y.detach(), *gradients))
        torch.testing.assert_close(results[1], results[0])
        assert results[1][0].is_contiguous(memory_format=torch.channels_last)
    assert backend.frame_count == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_new_batch_size_compiles_once_more_at_most(backend) -> None:
    k, c, r, s = PATTERNS["padded"].shape
    layer = BlockSparseConv2d(c, k, (r, s), *GEOMETRY, pattern=PATTERNS["padded"]).double()
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    for n in (2, 3, 4, 6):
        compiled(problem("padded", n).tensors(torch.float64)[0])
    assert backend.frame_count == 2


@BIAS_OR_NOT
@pytest.mark.parametrize("name", ["padded", "permuted"])
def test_autocast(name: str, with_bias: bool) -> None:
    tensors = [t.detach().float().requires_grad_() for t in inputs(name, with_bias)]
    x, values, *bias = tensors
    with torch.autocast("cpu", torch.bfloat16):
        y = convolve(name, x, values, *bias)
    assert y.dtype == torch.bfloat16
    gradients = torch.autograd.grad(y.float().square().sum(), tensors)
    expected = convolve(name, *tensors)
    wanted = (expected, *torch.autograd.grad(expected.square().sum(), tensors))
    for got, want in zip((y, *gradients), wanted, strict=True):
        error = (got.detach() - want.detach()).norm()
        assert error <= 0.02 * want.detach().norm()
    assert all(g.dtype == torch.float32 for g in gradients)


def test_autocast_takes_mixed_dtypes() -> None:
    x, values, bias = (t.detach() for t in inputs("padded", True))
    with torch.autocast("cpu", torch.bfloat16):
        y = convolve("padded", x.float(), values.bfloat16(), bias.half())
        assert y.dtype == torch.bfloat16
    with torch.autocast("cpu", enabled=False):
        assert convolve("padded", x, values, bias).dtype == torch.float64


X, V, B = torch.zeros(2, 7, 4, 3), torch.zeros(PATTERNS["padded"].values_shape), torch.zeros(5)
ROWS = len(V)
REFUSED = [
    ({"x": X[0]}, ValueError, r"expected x \[N, 7, H, W\], got \[7, 4, 3\]"),
    ({"x": X[:, :6]}, ValueError, r"expected x \[N, 7, H, W\], got \[2, 6, 4, 3\]"),
    ({"values": V[1:]}, ValueError, rf"expected values \[{ROWS}, 3\], got \[{ROWS - 1}, 3\]"),
    ({"values": V[:, 1:]}, ValueError, rf"expected values \[{ROWS}, 3\], got \[{ROWS}, 2\]"),
    ({"values": V.flatten()}, ValueError, rf"expected values \[{ROWS}, 3\], got \[{ROWS * 3}\]"),
    ({"bias": B[1:]}, ValueError, r"expected bias \[5\], got \[4\]"),
    ({"bias": B[None]}, ValueError, r"expected bias \[5\], got \[1, 5\]"),
    ({"x": X.int()}, TypeError, "expected x of float32, bfloat16, float16, float64, got torch.int"),
    ({"values": V.double()}, TypeError, "expected values of x's dtype torch.float32, got"),
    ({"bias": B.half()}, TypeError, "expected bias of x's dtype torch.float32, got torch.float16"),
    ({"values": V.to("meta")}, ValueError, "expected values on x's device cpu, got meta"),
    ({"bias": B.to("meta")}, ValueError, "expected bias on x's device cpu, got meta"),
    ({"x": X[..., :2, :]}, ValueError, r"expected an output with pixels, got \[0, 2\]"),
    ({"stride": 0}, ValueError, "expected stride as"),
    ({"padding": -1}, ValueError, "expected padding as"),
    ({"padding": "same"}, TypeError, "expected padding as"),
    ({"dilation": (1, 2, 3)}, ValueError, "expected dilation as"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED)
def test_errors(change: dict, error: type[Exception], message: str) -> None:
    arguments = {"x": X, "values": V, "pattern": PATTERNS["padded"], "bias": B} | change
    with pytest.raises(error, match=message):
        block_sparse_conv2d(**arguments)


def test_importing_again_registers_nothing_twice() -> None:
    assert importlib.import_module("hrbp_core.operators") is operators
    assert "block_sparse_conv2d" in dir(importlib.import_module("hrbp_core"))
    source = inspect.getsource(operators)
    assert source.count('Library("hrbp", "DEF")') == 1


def test_evaluating_first_does_not_stop_training() -> None:
    pattern = random_pattern(SHAPE, (2, 3), 9, permuted=True)
    x, values = torch.randn(1, 7, 4, 3), torch.randn(pattern.values_shape, requires_grad=True)
    with torch.inference_mode():
        block_sparse_conv2d(x, values, pattern)
    block_sparse_conv2d(x, values, pattern).sum().backward()
    assert values.grad is not None
