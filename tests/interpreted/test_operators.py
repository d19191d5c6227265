"""The operators and the module over the interpreted kernels: autograd, bias, layouts, errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn import grad as gradients

from hrbp_core import BlockPattern, BlockSparseConv2d, block_sparse_conv2d, operators
from hrbp_core.kernels import gpu
from hrbp_core.kernels.tile_types import GatherTile
from hrbp_core.launch_tables import launch_tables
from tests.kernel_checks import kernels, sized
from tests.pattern_samples import Problem, overlapping_pattern, random_pattern

CL = torch.channels_last
GEOMETRY = ((2, 1), (1, 2), (1, 2))


@pytest.fixture(autouse=True)
def through_triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Send the operators' CPU tensors to the kernels, as if they were on a GPU."""
    monkeypatch.setattr(operators, "has_kernels", lambda x: True)
    gpu.conversions.clear()
    yield
    gpu.conversions.clear()


def dense(pattern: BlockPattern, x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    return functional.conv2d(x, pattern.unpack(values), bias, *GEOMETRY)


@pytest.mark.parametrize("kind", ["canonical", "permuted", "one-sided"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_autograd_against_dense(kind: str, with_bias: bool) -> None:
    shape, block = (40, 40, 3, 2), (16, 16)
    pattern = random_pattern(shape, (16, 32), 4, permuted=kind == "permuted", some_taps=True)
    if kind == "one-sided":
        pattern = overlapping_pattern(shape, block, 4)
    x = torch.randn(2, 40, 7, 6, dtype=torch.float64, requires_grad=True)
    values = torch.randn(pattern.values_shape, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(40, dtype=torch.float64, requires_grad=True) if with_bias else None
    inputs = [t for t in (x, values, bias) if t is not None]
    y = block_sparse_conv2d(x, values, pattern, bias, *GEOMETRY)
    expected = dense(pattern, x, values, bias)
    torch.testing.assert_close(y, expected)
    assert y.is_contiguous(memory_format=CL)
    dy = torch.randn_like(y)
    for got, want in zip(
        torch.autograd.grad(y, inputs, dy), torch.autograd.grad(expected, inputs, dy), strict=True
    ):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("with_bias", [False, True])
def test_second_derivatives(with_bias: bool) -> None:
    pattern = random_pattern((16, 17, 2, 1), (16, 16), 1)
    x = torch.randn(1, 17, 4, 3, dtype=torch.float64, requires_grad=True)
    values = torch.randn(pattern.values_shape, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(16, dtype=torch.float64, requires_grad=True) if with_bias else None

    def call(x: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
        return block_sparse_conv2d(x, values, pattern, bias, stride=(2, 1))

    inputs = tuple(t for t in (x, values, bias) if t is not None)
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


def test_a_bias_of_any_stride() -> None:
    pattern = BlockPattern.dense((32, 16, 1, 1), 16)
    x, values = torch.randn(1, 16, 2, 2), torch.randn(pattern.values_shape)
    for bias in (torch.randn(1).expand(32), torch.randn(64)[::2]):
        y = block_sparse_conv2d(x, values, pattern, bias)
        torch.testing.assert_close(y, functional.conv2d(x, pattern.unpack(values), bias))


def test_a_module_trains() -> None:
    layer = BlockSparseConv2d(32, 32, 3, padding=1, density=0.5, block=16)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    x, target = torch.randn(2, 32, 5, 5), torch.randn(2, 32, 5, 5)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = functional.mse_loss(layer(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_another_stride_is_another_index() -> None:
    layer = BlockSparseConv2d(32, 32, 3, padding=1, density=0.5, block=16)
    layer.stride = (2, 2)
    x = torch.randn(1, 32, 6, 6, requires_grad=True)
    (dx,) = torch.autograd.grad(layer(x).square().sum(), x)
    (expected,) = torch.autograd.grad(layer.to_dense()(x).square().sum(), x)
    torch.testing.assert_close(dx, expected)


def test_unused_channels_and_sentinels_are_never_read() -> None:
    """A product with an unwritten weight would turn NaN; glued steps read past their list."""
    kept = torch.tensor([[True, False, True], [False, False, False]])
    groups = torch.arange(48, dtype=torch.int32).view(3, 16)
    pattern = BlockPattern.from_blocks((32, 48, 1, 1), 16, groups[:2], groups, kept)
    x = torch.randn(1, 48, 3, 3)
    x[:, 16:32] = float("nan")
    values = torch.randn(pattern.values_shape)
    bias = torch.randn(32)
    y = block_sparse_conv2d(x, values, pattern, bias)
    assert y.isfinite().all()
    torch.testing.assert_close(y[:, 16:], bias[16:].view(1, -1, 1, 1).expand_as(y[:, 16:]))
    dy = torch.randn_like(y)
    dy[:, 16:] = float("nan")  # an empty filter group: nothing reads its gradient
    dx = torch.ops.hrbp.dgrad(
        dy, values, pattern.entries, launch_tables(pattern, (1, 1), (0, 0), (1, 1)), [3, 3],
        [32, 48, 1, 1], [16, 16], [1, 1], [0, 0], [1, 1],
    )  # fmt: skip
    assert dx.isfinite().all()
    assert not dx[:, 16:32].any()


@pytest.mark.parametrize("block", [(16, 16), (32, 32)])
def test_a_glued_step_ends_with_its_list(block: tuple[int, int]) -> None:
    """What lies behind a short list belongs to others: their NaN must not be seen."""
    size = block[0]
    kept = torch.tensor([[True, False, False], [False, True, True], [False, False, True]])
    groups = torch.arange(3 * size, dtype=torch.int32).view(3, size)
    pattern = BlockPattern.from_blocks((3 * size, 3 * size, 1, 1), block, groups, groups, kept)
    weight = torch.randn(pattern.shape).half()  # 64 numbers a step: 4 blocks, or 2
    weight[1] = weight[size:] = float("nan")  # a filter of the first group, and all others
    values = pattern.pack(weight)
    x, dy = torch.randn(2, 1, 3 * size, 3, 3).half()
    x[:, size:] = float("nan")
    y = block_sparse_conv2d(x, values, pattern)
    assert y[:, 1:2].isnan().all()
    assert y[:, [0, *range(2, size)]].isfinite().all()
    dy[:, size:] = float("nan")
    clean = pattern.pack(weight.nan_to_num(1.0))
    tables = launch_tables(pattern, (1, 1), (0, 0), (1, 1))
    where = (tables, (3, 3), pattern.shape, block, ((1, 1), (0, 0), (1, 1)))
    assert gpu.dgrad(dy, clean, *where)[:, :size].isfinite().all()
    dy[:, 1] = 0
    weight[1] = 0
    assert gpu.dgrad(dy, pattern.pack(weight), *where)[:, :size].isfinite().all()


def test_the_same_bits_every_time() -> None:
    problem = sized((16, 32), size=(9, 8), n=3, stride=(2, 1))
    tensors = problem.tensors(torch.float32)
    first, second = (kernels(problem, *tensors, parts=5) for _ in range(2))
    for name, result in first.items():
        assert torch.equal(result, second[name])


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_wgrad_can_emit_what_float16_cannot_hold() -> None:
    pattern = BlockPattern.dense((16, 16, 1, 1), 16)
    x = torch.full((1, 16, 16, 16), 40.0, dtype=torch.float16).to(memory_format=CL)
    tables = launch_tables(pattern, (1, 1), (0, 0), (1, 1))
    where = (tables, 1, pattern.shape, pattern.block, ((1, 1), (0, 0), (1, 1)))
    assert gpu.wgrad(x, x, *where).isinf().all()
    wide = gpu.wgrad(x, x, *where, out_dtype=torch.float32)
    assert wide.dtype == torch.float32
    assert (wide == 40.0 * 40.0 * 256).all()


class TestLayouts:
    def step(self, x: Tensor) -> None:
        """A forward and a backward whose result is checked."""
        pattern = BlockPattern.dense((16, 16, 3, 3), 16)
        values = torch.randn(pattern.values_shape, requires_grad=True)
        y = block_sparse_conv2d(x, values, pattern, padding=1)
        y.backward(torch.randn_like(y))
        expected = functional.conv2d(x, pattern.unpack(values), padding=1)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)

    def test_channels_last_is_taken_as_it_is(self) -> None:
        self.step(torch.randn(2, 16, 4, 4).to(memory_format=CL).requires_grad_())
        assert not gpu.conversions

    @pytest.mark.parametrize(
        "x",
        [torch.randn(2, 16, 4, 4), torch.randn(2, 32, 4, 4).to(memory_format=CL)[:, ::2],
         torch.randn(16, 4, 4).expand(2, 16, 4, 4)],
        ids=["NCHW", "sliced", "expanded"],
    )  # fmt: skip
    def test_another_is_copied_once(self, x: Tensor) -> None:
        self.step(x)
        assert gpu.conversions.total() == 1

    def test_a_gradient_of_another_layout_is_copied_once(self) -> None:
        pattern = BlockPattern.dense((16, 16, 1, 1), 16)
        values = torch.randn(pattern.values_shape, requires_grad=True)
        x = torch.randn(2, 16, 4, 4).to(memory_format=CL).requires_grad_()
        dy = torch.randn(2, 16, 4, 4)
        dx, _ = torch.autograd.grad(block_sparse_conv2d(x, values, pattern), (x, values), dy)
        torch.testing.assert_close(dx, gradients.conv2d_input(x.shape, pattern.unpack(values), dy))
        assert gpu.conversions == {"dy": 1}

    def test_memory_off_its_boundary_is_copied(self) -> None:
        flat = torch.randn(2 * 16 * 16 + 1)[1:]
        x = flat.view(2, 4, 4, 16).permute(0, 3, 1, 2)
        assert x.is_contiguous(memory_format=CL)
        assert gpu.dense(x, "x").data_ptr() % 16 == 0
        assert gpu.conversions["x"] == 1


def call(problem: Problem, **changed: object) -> Tensor:
    x, values, _ = problem.tensors(torch.float32)
    tables = launch_tables(problem.pattern, *problem.geometry)
    args = {
        "x": x, "values": values, "bias": None, "tables": tables, "shape": problem.pattern.shape,
        "block": problem.pattern.block, "geometry": problem.geometry, **changed,
    }  # fmt: skip
    return gpu.fprop(**args)  # type: ignore[arg-type]


def odd_block(block: tuple[int, int], shape: tuple[int, ...] = (48, 48, 1, 1)) -> Problem:
    from hrbp_core.shapes import ConvShape

    k, c, r, s = shape
    pattern = random_pattern((k, c, r, s), block)
    return Problem(pattern, ConvShape(1, c, 9, 9, k, r, s), 0)


REFUSED: dict[str, tuple[Problem, dict[str, object], str]] = {
    "block": (odd_block((16, 24)), {}, "block_k and block_c each of 16, 32, 64, 128"),
    "small block": (odd_block((8, 16)), {}, "got 8 and 16"),
    "taps": (odd_block((16, 16), (16, 16, 9, 8)), {}, "at most 64 taps on a GPU, got 72"),
    "tile": (
        sized((16, 16)),
        {"tile": GatherTile(512, 64, 4, 4, False)},
        "expected a legal tile, one of ",
    ),
    "tables": (sized((16, 16)), {"tables": torch.zeros(3, dtype=torch.int64)}, "expected tables"),
    "geometry": (sized((16, 16)), {"geometry": ((1, 1), (40000, 0), (1, 1))}, "at most 32767"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    problem, changed, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        call(problem, **changed)


def test_refused_dtype() -> None:
    problem = sized((16, 16))
    x, values, _ = problem.tensors(torch.float32)
    with pytest.raises(TypeError, match="expected float16, bfloat16, float32, got int32"):
        call(problem, x=x.int(), values=values.int())


def test_refused_gradient_shape() -> None:
    problem = sized((16, 16))
    _, values, dy = problem.tensors(torch.float32)
    where = (launch_tables(problem.pattern, *problem.geometry), [5, 4])
    with pytest.raises(ValueError, match="expected dy"):
        gpu.dgrad(dy[:, :-1], values, *where, problem.pattern.shape, (16, 16), problem.geometry)


@pytest.mark.parametrize("n", [0, 1])
def test_batches_of_none(n: int) -> None:
    pattern = BlockPattern.dense((16, 16, 1, 1), 16)
    x = torch.randn(n, 16, 3, 3, requires_grad=True)
    values = torch.randn(pattern.values_shape, requires_grad=True)
    y = block_sparse_conv2d(x, values, pattern)
    dx, dvalues = torch.autograd.grad(y.sum(), (x, values))
    assert y.shape == (n, 16, 3, 3)
    assert dx.shape == x.shape
    assert bool(dvalues.any()) == (n > 0)
