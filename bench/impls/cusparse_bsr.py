"""cuSPARSE's BSR through nvmath-python: SpMM for fprop and dgrad, SDDMM for wgrad."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.impls import cusparse
from bench.impls.unfolded import Unfolding, tried
from bench.problem import Prepared, Problem
from hrbp_core.shapes import Pass

NAME = "cusparse_bsr"
ABOUT = "cuSPARSE's BSR product alone (SpMM, SDDMM), by nvmath-python"


def prepare(problem: Problem) -> Prepared:
    """Return the product of the pass, without unfold and fold."""
    return prepare_with(problem, cusparse.bindings(problem))


def prepare_with(problem: Problem, library: Any) -> Prepared:
    """Return the product of the pass by these bindings."""
    if problem.case.conv_pass is Pass.WGRAD:
        return _sddmm(problem, library)
    return cusparse.prepare_spmm(problem, library, describe, int(library.SpMMAlg.BSR_ALG1))


def describe(
    library: Any, matrix: Tensor, block: tuple[int, int]
) -> tuple[int, Tensor, list[Tensor]]:
    """Return (descriptor, values, index tensors) of the blocks of a matrix that are not zero."""
    starts, columns, values = cusparse.blocks_of(matrix, block[0])
    index, size = int(library.IndexType.INDEX_32I), block[0]
    descriptor = library.create_bsr(
        matrix.shape[0] // size, matrix.shape[1] // size, len(columns), size, size,
        starts.data_ptr(), columns.data_ptr(), values.data_ptr(), index, index,
        int(library.IndexBase.ZERO), cusparse.CUDA_TYPES[matrix.dtype], int(library.Order.ROW),
    )  # fmt: skip
    return descriptor, values, [starts, columns]


def _sddmm(problem: Problem, library: Any) -> Prepared:
    unfolding, block = Unfolding(problem), problem.pattern.block
    mask = unfolding.flat(problem.pattern.mask().to(problem.x.dtype))
    stream = torch.cuda.current_stream().cuda_stream if problem.x.is_cuda else 0
    lib = cusparse.Library(library, stream)
    descriptor, values, index = describe(library, mask, block)
    pixels, columns = unfolding.pixels(), unfolding.columns()
    product = cusparse.sddmm(lib, lib.sparse(descriptor), values, pixels, columns)
    tried(product, "cuSPARSE SDDMM on BSR")

    def follow() -> None:
        pixels.copy_(unfolding.pixels())
        columns.copy_(unfolding.columns())

    def to_oracle(out: Tensor) -> Tensor:
        size, (starts, places) = block[0], index
        rows = torch.repeat_interleave(
            torch.arange(len(starts) - 1, device=out.device), starts.diff()
        )
        grid = out.new_zeros(len(starts) - 1, mask.shape[1] // size, size, size)
        grid[rows, places.long()] = out
        return unfolding.unflat(grid.transpose(1, 2).reshape(mask.shape))

    def run(_alive: Any = lib) -> Tensor:
        return product()

    return Prepared(run, True, to_oracle, {"backend": "cuSPARSE"}, follow)
