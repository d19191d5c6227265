"""A path beside the oracle, and how far apart they may be; with the CPU's own paths.

Tolerance: the error, against the oracle in float64, is at most twice that of torch's own masked
dense convolution in the same dtype, plus four roundings of the largest element. In float64 it
is 1e-12 of the largest element.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from hrbp_core import reference
from hrbp_core.kernels import cpu, grouped
from hrbp_core.kernels.plan import Plan
from hrbp_core.ops import block_sparse_conv2d
from hrbp_core.shapes import ConvShape
from tests.pattern_samples import Problem, random_pattern

CL = torch.channels_last
PASSES = ("fprop", "dgrad", "wgrad")
LOW = [torch.bfloat16, torch.float16]
Results = dict[str, Tensor]
BOTH = (True, False)


def oracle(problem: Problem, x: Tensor, values: Tensor, dy: Tensor) -> Results:
    pattern, geometry = problem.pattern, problem.geometry
    weight, mask = pattern.unpack(values.double()), pattern.mask()
    dweight = reference.wgrad(dy, x, pattern.shape, mask, *geometry)
    return {
        "fprop": reference.fprop(x, weight, mask, *geometry),
        "dgrad": reference.dgrad(dy, weight, x.shape, mask, *geometry),
        "wgrad": pattern.pack(dweight),
    }


def dense_error(problem: Problem, expected: Results, *tensors: Tensor) -> dict[str, float]:
    """Return the largest error of torch's masked dense convolution, over both layouts.

    oneDNN's channels_last kernels can round ten times as much as its NCHW ones in float32.
    """
    worst = dict.fromkeys(PASSES, 0.0)
    for layout in (torch.contiguous_format, CL):
        x, values, dy = tensors
        x = x.detach().clone(memory_format=layout).requires_grad_()
        weight = problem.pattern.unpack(values.cpu()).to(x.device)
        weight = weight.contiguous(memory_format=layout).requires_grad_()
        y = functional.conv2d(x, weight, None, *problem.geometry)
        dx, dweight = torch.autograd.grad(y, (x, weight), dy.contiguous(memory_format=layout))
        results = (y.detach(), dx, problem.pattern.pack(dweight.cpu()))
        for name, result in zip(PASSES, results, strict=True):
            error = float((result.cpu().double() - expected[name]).abs().max())
            worst[name] = max(worst[name], error)
    return worst


def plan_of(problem: Problem) -> Plan:
    return cpu.plan_for(problem.pattern.entries, problem.pattern.shape, problem.pattern.block)


def ours(problem: Problem, x: Tensor, values: Tensor, dy: Tensor) -> Results:
    plan, geometry = plan_of(problem), problem.geometry
    return {
        "fprop": cpu.fprop(x, values, plan, geometry),
        "dgrad": cpu.dgrad(dy, values, plan, x.shape[2:], geometry),
        "wgrad": cpu.wgrad(dy, x, plan, geometry),
    }


def by_convolutions(problem: Problem, x: Tensor, values: Tensor, dy: Tensor) -> Results:
    """The passes by torch's grouped convolutions, wherever machine code could compute them."""
    plan, geometry = plan_of(problem), problem.geometry
    return {
        "fprop": grouped.fprop(x, values, plan, geometry),
        "dgrad": grouped.dgrad(dy, values, plan, x.shape[2:], geometry),
        "wgrad": grouped.wgrad(dy, x, plan, geometry),
    }


def one_form(problem: Problem, x: Tensor, values: Tensor, dy: Tensor, *, channels: bool) -> Results:
    """The backward passes in the form asked for, cut over channel or over filter groups."""
    plan, geometry, (block_k, block_c) = plan_of(problem), problem.geometry, problem.pattern.block
    dy = grouped.pad_channels(dy, plan.grid[0] * block_k)
    padded = grouped.pad_channels(x, plan.grid[1] * block_c)
    dgrad = grouped._dgrad_over_channels if channels else grouped._dgrad_over_filters
    side = plan.by_channel if channels else plan.by_filter
    return {
        "dgrad": grouped.trim(
            dgrad(dy, values, plan, (x.shape[2], x.shape[3]), geometry), x.shape[1]
        ),
        "wgrad": grouped._wgrad_piece(dy, padded, plan, side, not channels, geometry),
    }


FORMS = (partial(one_form, channels=True), partial(one_form, channels=False))


def through_autograd(problem: Problem, x: Tensor, values: Tensor, dy: Tensor) -> Results:
    x, values = (t.detach().requires_grad_() for t in (x, values))
    y = block_sparse_conv2d(x, values, problem.pattern, None, *problem.geometry)
    dx, dvalues = torch.autograd.grad(y, (x, values), dy)
    return {"fprop": y.detach(), "dgrad": dx, "wgrad": dvalues}


def check(
    problem: Problem,
    dtype: torch.dtype,
    run: Callable[..., Results],
    device: str = "cpu",
    cut: float = 0.0,
) -> None:
    """Compare ``run`` with the oracle.

    Args:
        cut: what an operand may be short of, of itself, times two: the error of a product.
    """
    tensors = problem.tensors(dtype)
    expected = oracle(problem, *tensors)
    x, values, dy = (t.to(device) for t in tensors)
    got = run(problem, x, values, dy)
    products = oracle(problem, *(t.abs() for t in tensors)) if cut else {}
    dense = {} if dtype == torch.float64 else dense_error(problem, expected, x, values, dy)
    for name, result in got.items():
        want, most = expected[name], float(expected[name].abs().max())
        assert result.dtype == dtype
        assert result.shape == want.shape
        assert result.is_contiguous(
            memory_format=CL if name != "wgrad" else torch.contiguous_format
        )
        error = float((result.cpu().double() - want).abs().max())
        bound = 1e-12 * max(most, 1.0)
        if dense:
            bound = 2 * dense[name] + 4 * torch.finfo(dtype).eps * most
            bound += cut * float(products[name].max()) if cut else 0.0
        assert error <= bound, (name, error, bound)


def layer(style: str = "random", n: int = 5, **options: bool) -> Problem:
    pattern = random_pattern((23, 37, 3, 2), (4, 5), 11, style, **options)
    shape = ConvShape(n, 37, 7, 6, 23, 3, 2, (2, 1), (1, 2), (1, 2))
    return Problem(pattern, shape, 3)
