"""Ours: the operators that ``block_sparse_conv2d`` calls in training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.problem import Prepared, Problem, Unsupported
from hrbp_core.kernels import gpu
from hrbp_core.kernels import problem as gpu_problem
from hrbp_core.kernels.limits import check_problem
from hrbp_core.ops import index_tensors
from hrbp_core.shapes import Pass

NAME = "block_sparse"
ABOUT = "ours: hrbp_core's three passes"


def prepare(problem: Problem) -> Prepared:
    """Return one pass; a standalone pattern includes the permutations around it."""
    pattern, ops = problem.pattern, torch.ops.hrbp
    index = index_tensors(pattern, problem.geometry)
    tables = (index.entries, index.tables)
    values = pattern.pack(problem.weight)
    tail = (pattern.shape, pattern.block, *problem.geometry)
    size = problem.x.shape[2:]

    def x_in() -> Tensor:
        if index.channel_order is None:
            return problem.x
        return ops.permute_channels(problem.x, index.channel_order, index.channel_place)

    def dy_in() -> Tensor:
        if index.filter_order is None:
            return problem.dy
        return ops.permute_channels(problem.dy, index.filter_order, index.filter_place)

    def fprop() -> Tensor:
        y = ops.fprop(x_in(), values, None, *tables, *tail)
        if index.filter_place is None:
            return y
        return ops.permute_channels(y, index.filter_place, index.filter_order)

    def dgrad() -> Tensor:
        dx = ops.dgrad(dy_in(), values, *tables, size, *tail)
        if index.channel_place is None:
            return dx
        return ops.permute_channels(dx, index.channel_place, index.channel_order)

    def wgrad() -> Tensor:
        return ops.wgrad(dy_in(), x_in(), *tables, *tail)

    run = {Pass.FPROP: fprop, Pass.DGRAD: dgrad, Pass.WGRAD: wgrad}[problem.case.conv_pass]
    detail = {**_backend(problem), "pattern": pattern.content_hash[:16]}
    if problem.case.conv_pass is Pass.WGRAD:
        return Prepared(run, True, pattern.unpack, detail)
    return Prepared(run, True, detail=detail)


def _backend(problem: Problem) -> dict[str, Any]:
    """Return what runs a case, and in which tile."""
    if not problem.x.is_cuda or problem.x.dtype == torch.float64:
        return {"backend": "torch grouped convolution"}
    return triton_backend(problem, problem.x.get_device())


def triton_backend(problem: Problem, device: int) -> dict[str, Any]:
    """Return the tile that the Triton kernels take.

    Raises:
        Unsupported: no kernel for the case, or for the device.
    """
    shape, case, dtype = problem.case.shape, problem.case, problem.x.dtype
    inner = gpu_problem.Problem(
        shape.filter_shape, problem.pattern.block, problem.geometry, shape.N, (shape.H, shape.W),
        case.entries, gpu.precision() if dtype == torch.float32 else "ieee",
    )  # fmt: skip
    try:
        check_problem(inner, dtype, device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise Unsupported(str(error)) from error
    made_for = gpu.processors(device), gpu.capability(device)
    tile = gpu.default_tile(case.conv_pass, inner, dtype, *made_for)
    detail = {"backend": "triton", "tile": tile.name, "tile_from": "default"}
    return detail | ({"precision": inner.precision} if dtype == torch.float32 else {})
