"""Ours: the operators that ``block_sparse_conv2d`` calls in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench import injection
from bench.problem import Prepared, Problem, Unsupported
from hrbp_core.kernels import cpu, gpu
from hrbp_core.kernels import problem as gpu_problem
from hrbp_core.kernels.limits import check_problem
from hrbp_core.kernels.native import machine
from hrbp_core.launch_tables import whole_blocks
from hrbp_core.ops import IndexTensors, index_tensors, spread_width
from hrbp_core.shapes import Pass

NAME = "block_sparse"
ABOUT = "ours: hrbp_core's three passes"


def prepare(problem: Problem) -> Prepared:
    """Return one pass; a standalone pattern includes the permutations around it."""
    pattern, ops = problem.pattern, torch.ops.hrbp
    index = index_tensors(pattern, problem.geometry)
    values = pattern.pack(problem.weight)
    inner_fprop, inner_dgrad, inner_wgrad = _passes(problem, index)

    def x_in() -> Tensor:
        if index.channel_order is None:
            return problem.x
        return ops.permute_channels(problem.x, index.channel_order, index.channel_place)

    def dy_in() -> Tensor:
        if index.filter_order is None:
            return problem.dy
        return ops.permute_channels(problem.dy, index.filter_order, index.filter_place)

    def fprop() -> Tensor:
        y = inner_fprop(x_in(), values)
        if index.filter_place is None:
            return y
        return ops.permute_channels(y, index.filter_place, index.filter_order)

    def dgrad() -> Tensor:
        dx = inner_dgrad(dy_in(), values)
        if index.channel_place is None:
            return dx
        return ops.permute_channels(dx, index.channel_place, index.channel_order)

    def wgrad() -> Tensor:
        return inner_wgrad(dy_in(), x_in())

    run = {Pass.FPROP: fprop, Pass.DGRAD: dgrad, Pass.WGRAD: wgrad}[problem.case.conv_pass]
    detail = {**_backend(problem), "pattern": pattern.content_hash[:16]}
    if (asked := injection.delay()) and asked.meets(problem.case):
        run = injection.slowed(run, problem.case, asked)
        detail["injected_delay"] = asked.text
    if problem.case.conv_pass is Pass.WGRAD:
        return Prepared(run, True, pattern.unpack, detail)
    return Prepared(run, True, detail=detail)


def _passes(problem: Problem, index: IndexTensors) -> tuple[Callable[..., Tensor], ...]:
    """Return the three operators on what differs between calls."""
    (k, _, r, s), block = problem.pattern.shape, problem.pattern.block
    ops, size = torch.ops.hrbp, problem.x.shape[1:]
    tables: tuple[Any, ...] = (index.entries, index.tables)
    if index.copies is None:
        tail = (problem.pattern.shape, block, *problem.geometry)
        return (
            lambda x, values: ops.fprop(x, values, None, *tables, *tail),
            lambda dy, values: ops.dgrad(dy, values, *tables, size[1:], *tail),
            lambda dy, x: ops.wgrad(dy, x, *tables, *tail),
        )
    places = spread_width(index)
    tail = (*tables, index.copies, index.rounds, (k, places, r, s), block, *problem.geometry)  # type: ignore[assignment]
    return (
        lambda x, values: ops.one_sided_fprop(x, values, None, *tail),
        lambda dy, values: ops.one_sided_dgrad(dy, values, size, *tail),
        lambda dy, x: ops.one_sided_wgrad(dy, x, *tail),
    )


def _backend(problem: Problem) -> dict[str, Any]:
    """Return what runs a case, and in which tile."""
    if not problem.x.is_cuda or problem.x.dtype == torch.float64:
        return {"backend": cpu_backend(problem)}
    return triton_backend(problem, problem.x.get_device())


def cpu_backend(problem: Problem) -> str:
    """Return what computes a case on a CPU."""
    case = problem.case
    source, size = (problem.x, problem.dy.shape[2:])
    if case.conv_pass is Pass.DGRAD:
        source, size = problem.dy, problem.x.shape[2:]
    shape, block = problem.pattern.shape, problem.pattern.block
    if cpu.takes_native(source, shape, block, (size[0], size[1]), problem.geometry):
        return machine.describe()
    return "torch grouped convolution"


def triton_backend(problem: Problem, device: int) -> dict[str, Any]:
    """Return the tile that the Triton kernels take, and where the choice is from.

    Raises:
        Unsupported: no kernel for the case, or for the device.
    """
    shape, case, dtype = problem.case.shape, problem.case, problem.x.dtype
    k, channels, r, s = shape.filter_shape
    if not problem.pattern.partitioned:
        channels = problem.pattern.channels.numel()
    inner = gpu_problem.Problem(
        (k, channels, r, s), problem.pattern.block, problem.geometry, shape.N, (shape.H, shape.W),
        case.entries, gpu.precision() if dtype == torch.float32 else "ieee",
        whole=whole_blocks(problem.pattern) > 0,
    )  # fmt: skip
    try:
        check_problem(inner, dtype, device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise Unsupported(str(error)) from error
    found = gpu.choose(case.conv_pass, inner, dtype, device)
    detail: dict[str, Any] = {"backend": "triton"}
    detail |= {"tile": found.tile.name, "tile_from": found.source}
    if found.parts is not None:
        detail["parts"] = found.parts
    return detail | ({"precision": inner.precision} if dtype == torch.float32 else {})
