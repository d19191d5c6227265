"""The vendor's CSR product alone: what unfold and fold cost is left out, and said so."""

from __future__ import annotations

from bench.impls.csr import prepare_csr
from bench.problem import Prepared, Problem

NAME = "csr_product"
ABOUT = "the CSR product alone, without unfold and fold"


def prepare(problem: Problem) -> Prepared:
    """Return the sparse product of the pass."""
    return prepare_csr(problem, alone=True)
