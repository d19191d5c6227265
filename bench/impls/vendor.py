"""The vendor's convolution passes as plain calls, shared by the dense implementations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.problem import Problem
from hrbp_core.shapes import Pass


def conv_pass(
    problem: Problem, x: Tensor, dy: Tensor, groups: int = 1
) -> Callable[[Tensor], Tensor]:
    """Return the case's pass as a function of the weight (whose extents alone wgrad reads)."""
    stride, padding, dilation = problem.geometry

    def fprop(weight: Tensor) -> Tensor:
        return torch.ops.aten.convolution(
            x, weight, None, stride, padding, dilation, False, [0, 0], groups
        )

    def backward(weight: Tensor, want: int) -> Tensor:
        grads = torch.ops.aten.convolution_backward(
            dy, x, weight, None, stride, padding, dilation, False, [0, 0], groups,
            [want == 0, want == 1, False],
        )  # fmt: skip
        return grads[want]

    return {
        Pass.FPROP: fprop,
        Pass.DGRAD: lambda weight: backward(weight, 0),
        Pass.WGRAD: lambda weight: backward(weight, 1),
    }[problem.case.conv_pass]
