"""2:4 sparsity of the vendor, where it exists: forward of 1x1 layers in half precision.

Not run on a GPU yet.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.impls.unfolded import Unfolding
from bench.problem import Prepared, Problem, Unsupported
from hrbp_core import reference
from hrbp_core.shapes import Pass

NAME = "two_four"
ABOUT = "another mask: cuSPARSELt's 2:4 product, for 1x1 layers at density 0.5"


def prepare(problem: Problem) -> Prepared:
    """Return fprop with the two largest of every four weights kept.

    Raises:
        Unsupported: everything but fprop of a 1x1 layer, stride 1, density 0.5, half precision.
    """
    _check(problem)
    unfolding = Unfolding(problem)
    dense = unfolding.flat(problem.weight) * two_of_four(unfolding.flat(problem.weight))
    stored = torch.sparse.to_sparse_semi_structured(dense)
    weight = unfolding.unflat(dense)

    def rows() -> Tensor:
        return problem.x.permute(0, 2, 3, 1).reshape(-1, problem.case.shape.C)

    def run() -> Tensor:
        shape = problem.case.shape
        found = torch.nn.functional.linear(rows(), stored)
        return found.view(shape.N, shape.P, shape.Q, shape.K).permute(0, 3, 1, 2)

    return Prepared(
        run,
        masked=False,
        oracle=lambda: reference.fprop(problem.x, weight, None, *problem.geometry),
        flops=problem.case.shape.flops() / 2,
    )


def two_of_four(matrix: Tensor) -> Tensor:
    """Return the 0/1 mask of the two largest magnitudes in every four along a row."""
    fours = matrix.abs().view(len(matrix), -1, 4)
    chosen = fours.topk(2, dim=2).indices
    return torch.zeros_like(fours).scatter_(2, chosen, 1).view_as(matrix)


def _check(problem: Problem) -> None:
    case, shape = problem.case, problem.case.shape
    if case.device != "cuda":
        raise Unsupported("no 2:4 kernels on a CPU")
    if problem.x.dtype not in (torch.float16, torch.bfloat16):
        raise Unsupported(f"2:4 needs float16 or bfloat16, got {case.dtype}")
    if (shape.R, shape.S, shape.stride, shape.padding) != (1, 1, (1, 1), (0, 0)):
        raise Unsupported("2:4 serves 1x1 layers of stride 1 without padding")
    if case.recipe.density != 0.5:
        raise Unsupported(f"2:4 is density 0.5, got {case.recipe.density:g}")
    if case.conv_pass is not Pass.FPROP:
        raise Unsupported("2:4 is along the channels of the weight: fprop alone")
    if shape.C % 64 or shape.K % 32:
        raise Unsupported("2:4 needs channels in multiples of 64, filters of 32")
