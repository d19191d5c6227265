"""Dense layers of fewer operations: another function each, so they bring their own answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.problem import CL, Prepared, Problem
from hrbp_core import reference
from hrbp_core.shapes import Pass


def prepare_smaller(
    problem: Problem, filters: int, channels: int, groups: int, detail: dict[str, Any]
) -> Prepared:
    """Return the case's pass of a layer with fewer ``filters`` and ``channels``, in groups.

    Its tensors are the first channels of the problem's, in memory of its own that follows them.
    """
    stride, padding, dilation = problem.geometry

    def cut() -> tuple[Tensor, Tensor]:
        return problem.x[:, :channels], problem.dy[:, :filters]

    x, dy = (t.clone(memory_format=CL) for t in cut())
    weight = problem.weight[:filters, : channels // groups].clone(memory_format=CL)

    def follow() -> None:
        for mine, theirs in zip((x, dy), cut(), strict=True):
            mine.copy_(theirs)

    def backward(want: int) -> Tensor:
        wanted = [want == 0, want == 1, False]
        return torch.ops.aten.convolution_backward(
            dy, x, weight, None, stride, padding, dilation, False, [0, 0], groups, wanted
        )[want]

    def fprop() -> Tensor:
        return torch.ops.aten.convolution(
            x, weight, None, stride, padding, dilation, False, [0, 0], groups
        )

    runs: dict[Pass, Callable[[], Tensor]] = {
        Pass.FPROP: fprop,
        Pass.DGRAD: lambda: backward(0),
        Pass.WGRAD: lambda: backward(1),
    }
    shape = problem.case.shape
    return Prepared(
        runs[problem.case.conv_pass],
        masked=False,
        detail=detail,
        follow=follow,
        oracle=lambda: _answer(problem, *cut(), weight, groups),  # not of the copies: they may lag
        flops=float(shape.flops(weight.numel())),
    )


def _answer(problem: Problem, x: Tensor, dy: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Return the float64 answer, group by group."""
    parts = []
    for xs, dys, ws in zip(
        x.chunk(groups, 1), dy.chunk(groups, 1), weight.chunk(groups), strict=True
    ):
        match problem.case.conv_pass:
            case Pass.FPROP:
                parts.append(reference.fprop(xs, ws, None, *problem.geometry))
            case Pass.DGRAD:
                parts.append(reference.dgrad(dys, ws, xs.shape, None, *problem.geometry))
            case Pass.WGRAD:
                parts.append(reference.wgrad(dys, xs, ws.shape, None, *problem.geometry))
    return torch.cat(parts, 0 if problem.case.conv_pass is Pass.WGRAD else 1)
