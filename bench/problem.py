"""One case made real: seeded inputs, the pattern, the oracle's answer, the check."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from bench.records import Case, Recipe
from hrbp_core import BlockPattern, reference
from hrbp_core.regrouping import block_pattern
from hrbp_core.shapes import FilterShape, Pass

CL = torch.channels_last
EPS = {
    torch.float64: 2.0**-52,
    torch.float32: 2.0**-23,
    torch.float16: 2.0**-10,
    torch.bfloat16: 2.0**-7,
}
TF32_EPS = 2.0**-10


def torch_dtype(name: str) -> torch.dtype:
    """Return the dtype in memory of a case's dtype; a ValueError for another name."""
    found = torch.float32 if name == "tf32" else getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"expected the name of a dtype of torch, or tf32; got {name!r}")
    return found


@lru_cache(maxsize=64)
def pattern_of(shape: FilterShape, recipe: Recipe) -> BlockPattern:
    """Return the recipe's pattern; scores are seeded draws of the family it names.

    Raises:
        ValueError: an unknown family; anything ``regroup`` refuses.
    """
    if recipe.scores != "independent":
        raise ValueError(f"expected scores 'independent', got {recipe.scores!r}")
    generator = torch.Generator().manual_seed(recipe.seed)
    scores = torch.empty(shape).exponential_(generator=generator)
    return block_pattern(
        scores,
        recipe.density,
        method=recipe.method,
        block=recipe.block,
        seed=recipe.seed,
        coverage=recipe.coverage,
        balance=recipe.balance,
        taps=recipe.taps,
    )


@dataclass
class Problem:
    """A case's inputs. Implementations read them and must not write to them.

    Attributes:
        pattern: canonical when the case's layout is.
        x [N, C, H, W], dy [N, K, P, Q], weight [K, C, R, S]: channels_last, uniform [-1, 1].
            Zeros would draw less power and clock higher.
    """

    case: Case
    pattern: BlockPattern
    x: Tensor
    dy: Tensor
    weight: Tensor
    _answers: dict[bool, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, case: Case, pattern: BlockPattern | None = None) -> Problem:
        """Return the case's problem, in its dtype, on its device.

        Args:
            pattern: what ``pattern_of`` gave for the case earlier; made when left out.
        """
        shape, dtype = case.shape, torch_dtype(case.dtype)
        pattern = pattern_of(shape.filter_shape, case.recipe) if pattern is None else pattern
        if case.layout == "canonical":
            pattern = pattern.canonical()[0]
        if len(pattern.entries) != case.entries:
            raise ValueError(f"expected {case.entries} entries, got {len(pattern.entries)}")
        sizes = (
            (shape.N, shape.C, shape.H, shape.W),
            (shape.N, shape.K, shape.P, shape.Q),
            shape.filter_shape,
        )
        x, dy, weight = (
            torch.empty(size, dtype=dtype, device=case.device, memory_format=CL) for size in sizes
        )
        problem = cls(case, pattern.to(case.device), x, dy, weight)
        problem.refresh(0)
        _draw(weight, 3)
        return problem

    def twin(self) -> Problem:
        """Return the same problem in memory of its own."""
        return replace(
            self, x=self.x.clone(), dy=self.dy.clone(), weight=self.weight.clone(), _answers={}
        )

    @property
    def geometry(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """(stride, padding, dilation)."""
        return self.case.shape.stride, self.case.shape.padding, self.case.shape.dilation

    def refresh(self, phase: int) -> None:
        """Draw new x and dy in place: an answer kept from an earlier phase is then wrong."""
        _draw(self.x, 10 * phase + 1)
        _draw(self.dy, 10 * phase + 2)
        self._answers.clear()

    def answer(self, *, masked: bool) -> Tensor:
        """Return the oracle's output of the case's pass, float64, with or without the mask."""
        if masked not in self._answers:
            mask = self.pattern.mask() if masked else None
            geometry = self.geometry
            match self.case.conv_pass:
                case Pass.FPROP:
                    out = reference.fprop(self.x, self.weight, mask, *geometry)
                case Pass.DGRAD:
                    out = reference.dgrad(self.dy, self.weight, self.x.shape, mask, *geometry)
                case Pass.WGRAD:
                    out = reference.wgrad(self.dy, self.x, self.weight.shape, mask, *geometry)
            self._answers[masked] = out
        return self._answers[masked]

    def errors(
        self, out: Tensor, *, masked: bool, oracle: Callable[[], Tensor] | None = None
    ) -> dict[str, float]:
        """Return error figures and their bounds; see ``is_right``.

        Sums are kept in float32 (float64 for float64), so their error grows with the square
        root of their length; one rounding to the output's dtype comes on top.
        """
        expected = self.answer(masked=masked) if oracle is None else oracle()
        if tuple(out.shape) != tuple(expected.shape):
            raise ValueError(f"expected output {list(expected.shape)}, got {list(out.shape)}")
        difference = (out.double() - expected).abs()
        scale = float(expected.square().mean().sqrt())
        eps = TF32_EPS if self.case.dtype == "tf32" else EPS[out.dtype]
        length = self.case.shape.gemm_extents(self.case.conv_pass)[2]
        summing = min(eps, EPS[torch.float32]) * math.sqrt(length)
        allowed = 4 * eps * expected.abs() + (4 * eps + 8 * summing) * scale
        worst = float((difference / allowed).nan_to_num(nan=math.inf).max())
        return {
            "max_abs": _finite(float(difference.max())),
            "worst_over_bound": _finite(worst),
            "rel_rms": _finite(float(difference.square().mean().sqrt()) / scale),
            "rel_rms_bound": eps + summing,
        }


def is_right(errors: dict[str, float]) -> bool:
    """Return whether every element and the RMS stay below their bounds."""
    return errors["worst_over_bound"] <= 1 and errors["rel_rms"] <= errors["rel_rms_bound"]


def _finite(value: float) -> float:
    """JSON has no infinity: an output that is not finite is recorded as the largest float."""
    return value if math.isfinite(value) else 1.7e308


def _draw(tensor: Tensor, seed: int) -> None:
    # drawn on the CPU in float32, so that every device and dtype sees the same numbers
    generator = torch.Generator().manual_seed(seed)
    tensor.copy_(torch.empty(tensor.shape).uniform_(-1, 1, generator=generator))


@dataclass(frozen=True)
class Prepared:
    """What an implementation hands back, ready to be timed.

    Attributes:
        run: does the pass once and returns its output.
        masked: the output is that of masked weights (and, in wgrad, zero outside the mask).
        to_oracle: turns the output into the oracle's form, untimed.
        detail: facts worth recording (the variant chosen, ...).
        follow: copies refreshed inputs into private copies, where an implementation has any.
        oracle: returns the float64 answer where another function of equal work is computed (a
            thinner layer, ...) from the problem's present inputs; ``masked`` is then ignored.
        flops: operations that a call does; those of the stored weights when left out, or of the
            dense layer where the output is not masked.
    """

    run: Callable[[], Tensor]
    masked: bool
    to_oracle: Callable[[Tensor], Tensor] = lambda out: out
    detail: dict[str, Any] = field(default_factory=dict)
    follow: Callable[[], None] = lambda: None
    oracle: Callable[[], Tensor] | None = None
    flops: float | None = None


class Unsupported(Exception):
    """An implementation cannot run a case; the text says why. Recorded as skipped."""
