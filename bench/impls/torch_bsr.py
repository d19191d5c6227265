"""torch's BSR matrix times a dense one: MKL on a CPU; Triton, not cuSPARSE, on CUDA."""

from __future__ import annotations

import torch

from bench.impls.unfolded import Unfolding, prepare_product, quiet, tried
from bench.problem import Prepared, Problem, Unsupported
from hrbp_core.shapes import Pass

NAME = "torch_bsr"
ABOUT = "unfold + torch's BSR product + fold: MKL on a CPU, Triton on CUDA"


def prepare(problem: Problem) -> Prepared:
    """Return the pass with unfold and fold."""
    return prepare_bsr(problem, alone=False)


def prepare_bsr(problem: Problem, *, alone: bool) -> Prepared:
    """Return the pass by BSR products.

    Raises:
        Unsupported: wgrad; a dtype without a kernel; groups that are no whole runs of channels.
    """
    case, dtype = problem.case, problem.x.dtype
    if case.conv_pass is Pass.WGRAD:
        raise Unsupported("torch has no SDDMM on BSR")
    if case.device == "cpu" and dtype not in (torch.float32, torch.float64):
        raise Unsupported(f"no kernel: MKL multiplies BSR in float32 and float64, not in {dtype}")
    block_k, block_c = problem.pattern.block
    if case.layout != "canonical" or case.shape.K % block_k or case.shape.C % block_c:
        raise Unsupported("needs a canonical pattern whose groups are whole")
    unfolding = Unfolding(problem)
    matrix, size = unfolding.matrix(), (block_k, block_c)
    if case.conv_pass is Pass.DGRAD:
        matrix, size = matrix.t().contiguous(), (block_c, block_k)
    with quiet():
        stored = matrix.to_sparse_bsr(size)
    probe = torch.zeros(stored.shape[1], 16, dtype=dtype, device=stored.device)
    tried(lambda: stored @ probe, f"BSR SpMM in {dtype}, blocks {size}")
    detail = {"backend": "MKL" if case.device == "cpu" else "torch's Triton kernel"}
    return prepare_product(problem, unfolding, lambda dense: stored @ dense, detail, alone=alone)
