"""cuSPARSE's Blocked-ELL through nvmath-python: SpMM for fprop and dgrad."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.impls import cusparse
from bench.problem import Prepared, Problem, Unsupported
from hrbp_core.shapes import Pass

NAME = "cusparse_ell"
ABOUT = "cuSPARSE's Blocked-ELL product alone (SpMM), by nvmath-python"


def prepare(problem: Problem) -> Prepared:
    """Return the product of the pass, without unfold and fold."""
    return prepare_with(problem, cusparse.bindings(problem))


def prepare_with(problem: Problem, library: Any) -> Prepared:
    """Return the product of the pass by these bindings."""
    if problem.case.conv_pass is Pass.WGRAD:
        raise Unsupported("cuSPARSE has no SDDMM on Blocked-ELL")
    return cusparse.prepare_spmm(problem, library, describe, int(library.SpMMAlg.BLOCKED_ELL_ALG1))


def describe(
    library: Any, matrix: Tensor, block: tuple[int, int]
) -> tuple[int, Tensor, list[Tensor]]:
    """Return (descriptor, values, index tensors); rows are padded to the longest by column -1."""
    size = block[0]
    starts, columns, blocks = cusparse.blocks_of(matrix, size)
    counts = starts.diff()
    width = int(counts.max())
    rows = torch.repeat_interleave(torch.arange(len(counts), device=matrix.device), counts)
    slots = torch.arange(len(columns), device=matrix.device) - starts[:-1].long()[rows]
    places = torch.full((len(counts), width), -1, dtype=torch.int32, device=matrix.device)
    places[rows, slots] = columns
    values = matrix.new_zeros(len(counts), width, size, size)
    values[rows, slots] = blocks
    values = values.transpose(1, 2).reshape(len(matrix), width * size).contiguous()
    descriptor = library.create_blocked_ell(
        len(matrix), matrix.shape[1], size, width * size, places.data_ptr(), values.data_ptr(),
        int(library.IndexType.INDEX_32I), int(library.IndexBase.ZERO),
        cusparse.CUDA_TYPES[matrix.dtype],
    )  # fmt: skip
    return descriptor, values, [places]
