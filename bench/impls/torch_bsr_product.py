"""torch's BSR product alone: what unfold and fold cost is left out, and said so."""

from __future__ import annotations

from bench.impls.torch_bsr import prepare_bsr
from bench.problem import Prepared, Problem

NAME = "torch_bsr_product"
ABOUT = "torch's BSR product alone, without unfold and fold"


def prepare(problem: Problem) -> Prepared:
    """Return the sparse product of the pass."""
    return prepare_bsr(problem, alone=True)
