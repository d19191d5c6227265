"""Dense with the mask applied in every call: what most sparse training code does."""

from __future__ import annotations

from bench.impls.vendor import conv_pass
from bench.problem import CL, Prepared, Problem
from hrbp_core.shapes import Pass

NAME = "masked_dense"
ABOUT = "dense with weights multiplied by the mask in every call: no speed-up"


def prepare(problem: Problem) -> Prepared:
    """Return dense, channels_last, on weight * mask (wgrad: the gradient times the mask)."""
    mask = problem.pattern.mask().to(problem.weight.dtype)
    mask = mask.contiguous(memory_format=CL)
    weight = problem.weight
    call = conv_pass(problem, problem.x, problem.dy)
    if problem.case.conv_pass is Pass.WGRAD:
        return Prepared(lambda: call(weight) * mask, masked=True)
    return Prepared(lambda: call(weight * mask), masked=True)
