"""The kernels and the operators on a CUDA device; skipped, with the reason, where there is none."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from torch import Tensor
from torch.nn import functional
from torch.nn import grad as gradients

from bench.accuracy.models import make
from hrbp_core import (
    BlockPattern,
    BlockSparseConv2d,
    absorb,
    block_sparse_conv2d,
    convert,
    to_dense,
)
from hrbp_core.kernels import gpu
from hrbp_core.kernels.tiles import BLOCKS
from hrbp_core.launch_tables import launch_tables
from tests.cpu_checks import BOTH, Results, check, through_autograd
from tests.kernel_checks import check_kernels, kernel_problems, kernels, sized
from tests.pattern_samples import Problem, random_pattern

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CL = torch.channels_last
HALF = [torch.bfloat16, torch.float16]
GIB = 2**30


# tf32 keeps 10 bits and a matrix unit may cut off the rest: an operand is short by less than
# 2**-10 of itself. cuDNN may take float32 for a small convolution and is then no measure of it.
TF32 = 2.0**-9
# One kernel in four compiles anew (0.5 s); a session of some minutes asks for fewer examples.
EXAMPLES = int(os.environ.get("HRBP_GPU_EXAMPLES", "40"))
drawn = settings(max_examples=EXAMPLES, phases=(Phase.explicit, Phase.generate))


@contextmanager
def float32_as(precision: str) -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("dtype", HALF)
@drawn
@given(problem=kernel_problems(BLOCKS))
def test_half_precision(dtype: torch.dtype, problem: Problem) -> None:
    check_kernels(problem, dtype, "cuda")


@pytest.mark.parametrize("precision", ["tf32", "ieee"])
@drawn
@given(problem=kernel_problems((16, 32, 64)))
def test_float32(precision: str, problem: Problem) -> None:
    with float32_as(precision):
        check_kernels(problem, torch.float32, "cuda", cut=TF32 * (precision == "tf32"))


@pytest.mark.parametrize("dtype", [*HALF, torch.float32])
@pytest.mark.parametrize("block", [*itertools.product(BLOCKS, BLOCKS)])
def test_every_block(block: tuple[int, int], dtype: torch.dtype) -> None:
    cut = TF32 * (dtype == torch.float32)
    check_kernels(sized(block, size=(14, 15), n=3, stride=(2, 1)), dtype, "cuda", cut=cut)


@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64])
@drawn
@given(problem=kernel_problems())
def test_autograd(dtype: torch.dtype, problem: Problem) -> None:
    def run(given: Problem, *tensors: Tensor) -> Results:
        return through_autograd(replace(given, pattern=given.pattern.to("cuda")), *tensors)

    check(problem, dtype, run, "cuda", cut=TF32 * (dtype == torch.float32))


def test_the_same_bits_every_time() -> None:
    problem = sized((64, 64), size=(56, 56), n=8)
    tensors = [t.cuda() for t in problem.tensors(torch.bfloat16)]
    first = kernels(problem, *tensors)
    for _ in range(3):
        for name, result in kernels(problem, *tensors).items():
            assert torch.equal(result, first[name])


def layer(dtype: torch.dtype = torch.float32) -> BlockSparseConv2d:
    pattern = random_pattern((64, 64, 3, 3), (32, 32), 1, "diagonal", permuted=True)
    return BlockSparseConv2d(64, 64, 3, padding=1, pattern=pattern, device="cuda", dtype=dtype)


def step(module: Any, layer: BlockSparseConv2d, x: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of x and of the layer's parameters."""
    x = x.detach().requires_grad_()
    y = module(x)
    return torch.autograd.grad(y.float().square().sum(), (x, *layer.parameters()))


def test_a_module_that_was_moved() -> None:
    module = layer()
    dense = module.to_dense()
    x = torch.randn(2, 64, 9, 9, device="cuda")
    torch.testing.assert_close(module(x), dense(x), rtol=1e-2, atol=1e-2)
    moved = module.cpu()
    torch.testing.assert_close(moved(x.cpu()), dense.cpu()(x.cpu()), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # the compiler's own advice about this machine
@pytest.mark.parametrize("canonical", BOTH)
@pytest.mark.parametrize("dynamic", BOTH)
def test_compile(dynamic: bool, canonical: bool) -> None:
    module = layer(torch.bfloat16)
    if canonical:
        module = BlockSparseConv2d(64, 64, 3, padding=1, density=0.5, block=32)
        module = module.to("cuda", torch.bfloat16)
    compiled = torch.compile(module, fullgraph=True, dynamic=dynamic)
    for batch in (2, 3, 5):
        x = torch.randn(batch, 64, 9, 9, device="cuda", dtype=torch.bfloat16)
        for got, want in zip(step(compiled, module, x), step(module, module, x), strict=True):
            torch.testing.assert_close(got, want)


def test_cuda_graph() -> None:
    module = layer(torch.bfloat16)
    x = torch.randn(4, 64, 14, 14, device="cuda", dtype=torch.bfloat16).to(memory_format=CL)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(module, module, x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(module, module, x)
    x.copy_(torch.randn_like(x))
    graph.replay()
    replayed = [t.clone() for t in captured]
    for got, want in zip(replayed, step(module, module, x), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", HALF)
def test_autocast(dtype: torch.dtype) -> None:
    module, x = layer(), torch.randn(2, 64, 9, 9, device="cuda", requires_grad=True)
    with torch.autocast("cuda", dtype):
        y = module(x)
        expected = module.to_dense()(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y, expected, rtol=3e-2, atol=3e-2)
    dx, dvalues, dbias = torch.autograd.grad(y.float().sum(), (x, *module.parameters()))
    assert dx.dtype == dvalues.dtype == dbias.dtype == torch.float32


def test_a_bias_of_any_stride() -> None:
    pattern = BlockPattern.dense((32, 16, 1, 1), 16).to("cuda")
    x, values = torch.randn(1, 16, 2, 2).cuda(), torch.randn(pattern.values_shape).cuda()
    bias = torch.randn(1, device="cuda").expand(32)
    with float32_as("ieee"):
        y = block_sparse_conv2d(x, values, pattern, bias)
        expected = functional.conv2d(x, pattern.unpack(values), bias)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_layouts_are_converted_once() -> None:
    pattern = BlockPattern.dense((32, 32, 3, 3), 16).to("cuda")
    values = torch.randn(pattern.values_shape, device="cuda", requires_grad=True)
    for x, copies in (
        (torch.randn(2, 32, 8, 8, device="cuda").to(memory_format=CL), 0),
        (torch.randn(2, 32, 8, 8, device="cuda"), 1),
    ):
        gpu.conversions.clear()
        y = block_sparse_conv2d(x.requires_grad_(), values, pattern, padding=1)
        y.backward(torch.randn_like(y))
        assert y.is_contiguous(memory_format=CL)
        assert gpu.conversions.total() == copies


@pytest.mark.parametrize("block", [(8, 8), (16, 48)])
def test_blocks_without_kernels_are_refused(block: tuple[int, int]) -> None:
    pattern = random_pattern((48, 48, 1, 1), block).to("cuda")
    x, values = torch.randn(1, 48, 4, 4), torch.randn(pattern.values_shape)
    with pytest.raises(ValueError, match="block_k and block_c each of 16, 32, 64, 128"):
        block_sparse_conv2d(x.cuda(), values.cuda(), pattern)
    block_sparse_conv2d(x.cuda().double(), values.cuda().double(), pattern)  # float64 takes any


def test_running_out_of_memory_says_how_much_and_goes_on() -> None:
    pattern = BlockPattern.dense((128, 16, 1, 1), 16).to("cuda")
    values = torch.randn(pattern.values_shape, device="cuda")
    free, _ = torch.cuda.mem_get_info()
    pixels = int(free * 0.3) // (16 * 4 * 1024) * 1024
    x = torch.empty(1, 16, 1024, pixels // 1024, device="cuda").to(memory_format=CL)
    with pytest.raises((torch.OutOfMemoryError, ValueError), match=r"GiB|MiB|expected fewer"):
        block_sparse_conv2d(x, values, pattern)
    del x
    gc.collect()
    torch.cuda.empty_cache()
    assert block_sparse_conv2d(torch.randn(1, 16, 4, 4, device="cuda"), values, pattern).numel()


@pytest.mark.parametrize("name", ["fprop", "dgrad", "wgrad"])
def test_memory_beyond_inputs_and_output(name: str) -> None:
    """At most a tenth of x or 64 MiB, whichever is more."""
    pattern = random_pattern((256, 256, 3, 3), (64, 64), 2, "diagonal")
    geometry = ((1, 1), (1, 1), (1, 1))
    x, dy = torch.randn(2, 32, 256, 28, 28, device="cuda").bfloat16()
    x, dy = (t.contiguous(memory_format=CL) for t in (x, dy))
    values = torch.randn(pattern.values_shape, device="cuda").bfloat16()
    where = (pattern.shape, pattern.block, geometry)
    tables = launch_tables(pattern, *geometry).cuda()
    run = {
        "fprop": lambda: gpu.fprop(x, values, None, tables, *where),
        "dgrad": lambda: gpu.dgrad(dy, values, tables, (28, 28), *where),
        "wgrad": lambda: gpu.wgrad(dy, x, tables, len(pattern.entries), *where),
    }[name]
    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = run()
    extra = torch.cuda.max_memory_allocated() - before - out.numel() * out.element_size()
    assert extra <= max(x.numel() * 2 // 10, 64 * 2**20)


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < 40 * GIB,
    reason="needs 40 GiB of free GPU memory",
)
def test_offsets_beyond_31_bits() -> None:
    """More than 2**31 elements of x and y: the last images are right, and so is their gradient."""
    n, c, size = 2689, 256, 56
    pattern = random_pattern((c, c, 1, 1), (64, 64), 2, "diagonal").to("cuda")
    values = torch.randn(pattern.values_shape, device="cuda").bfloat16() / 8
    x = torch.randn((n, c, size, size), device="cuda", dtype=torch.bfloat16).to(memory_format=CL)
    assert x.numel() > 2**31
    weight = pattern.unpack(values)
    x.requires_grad_()
    y = block_sparse_conv2d(x, values.requires_grad_(), pattern)
    last = x[-2:].detach()
    torch.testing.assert_close(y[-2:], functional.conv2d(last, weight), rtol=2e-2, atol=2e-2)
    dy = torch.zeros_like(y)
    dy[-2:] = torch.randn_like(y[-2:])
    dx, dvalues = torch.autograd.grad(y, (x, values), dy)
    tail = dy[-2:].detach()
    expected = gradients.conv2d_input(last.shape, weight, tail)
    torch.testing.assert_close(dx[-2:], expected, rtol=2e-2, atol=2e-2)
    assert not dx[:-2].any()
    dweight = gradients.conv2d_weight(last.float(), weight.shape, tail.float())
    torch.testing.assert_close(dvalues.float(), pattern.pack(dweight), rtol=2e-2, atol=0.5)


@pytest.mark.parametrize("method", ["hrbp2", "hrbp", "hrbp2_pp"])
def test_a_network_is_converted_and_absorbed_on_the_device(method: str) -> None:
    model = make("resnet18", 0).cuda().double().eval()
    sparse, report = convert(model, 0.25, block=32, method=method)
    absorbed, _ = absorb(sparse)
    assert all(layer.pattern.device.type == "cuda" for layer in report.layers.values())
    x = torch.randn(2, 3, 32, 32, device="cuda", dtype=torch.float64)
    with torch.no_grad():
        expected = sparse(x)
        for network in (absorbed, to_dense(absorbed)):
            assert float((network(x) - expected).norm()) <= 1e-10 * float(expected.norm())
