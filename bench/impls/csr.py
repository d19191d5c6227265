"""The vendor's CSR: SpMM forward, SpMM on a stored transpose and fold, SDDMM for wgrad."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.impls.unfolded import Unfolding, prepare_product, quiet, tried
from bench.problem import Prepared, Problem, Unsupported
from hrbp_core.shapes import Pass

NAME = "csr"
ABOUT = "unfold + the vendor's CSR product + fold: MKL on a CPU, cuSPARSE on CUDA"


def prepare(problem: Problem) -> Prepared:
    """Return the pass with unfold and fold."""
    return prepare_csr(problem, alone=False)


def prepare_csr(problem: Problem, *, alone: bool) -> Prepared:
    """Return the pass by CSR products.

    Raises:
        Unsupported: a dtype that the vendor's library has no kernel for.
    """
    dtype = problem.x.dtype
    if problem.case.device == "cpu" and dtype not in (torch.float32, torch.float64):
        raise Unsupported(f"no kernel: MKL multiplies CSR in float32 and float64, not in {dtype}")
    unfolding = Unfolding(problem)
    with quiet():
        if problem.case.conv_pass is Pass.WGRAD:
            return _sddmm(problem, unfolding, alone)
        matrix = unfolding.matrix()
        if problem.case.conv_pass is Pass.DGRAD:
            matrix = matrix.t().contiguous()
        stored = matrix.to_sparse_csr()
    probe = torch.zeros(stored.shape[1], 2, dtype=dtype, device=stored.device)
    tried(lambda: stored @ probe, f"CSR SpMM in {dtype}")
    detail = {"stored": stored.values().numel()}
    return prepare_product(problem, unfolding, lambda dense: stored @ dense, detail, alone=alone)


def _sddmm(problem: Problem, unfolding: Unfolding, alone: bool) -> Prepared:
    mask = unfolding.flat(problem.pattern.mask().to(problem.x.dtype)).to_sparse_csr()

    def product(pixels: Tensor, columns: Tensor) -> Tensor:
        return torch.sparse.sampled_addmm(mask, pixels, columns.t(), beta=0.0)

    rows, wide = mask.shape
    probe = [torch.zeros(n, 2, dtype=problem.x.dtype, device=mask.device) for n in (rows, wide)]
    tried(lambda: product(*probe), f"CSR SDDMM in {problem.x.dtype}")

    def to_oracle(out: Tensor) -> Tensor:
        return unfolding.unflat(out.to_dense())

    detail = {"stored": mask.values().numel()}
    if not alone:
        return Prepared(
            lambda: product(unfolding.pixels(), unfolding.columns()), True, to_oracle, detail
        )
    pixels, columns = unfolding.pixels(), unfolding.columns()

    def follow() -> None:
        pixels.copy_(unfolding.pixels())
        columns.copy_(unfolding.columns())

    return Prepared(lambda: product(pixels, columns), True, to_oracle, detail, follow)
