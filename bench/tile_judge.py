"""One tile against the oracle: poisoned memory, two runs, bounds taken from a dense convolution.

The rule: the error is at most twice that of torch's own masked dense convolution of the same
dtype on the same device, plus 4 eps of the largest number of the answer; the root mean square
of the error likewise, plus one eps and the drift of a sum in float32. (The form of
flash-attention's tests.) The second is what sees a block that is missing from a long sum of
bfloat16.

tf32 keeps 10 bits of a significand, and a matrix unit may cut off the rest: an operand is short
by less than 2**-10 of itself, a product by less than 2**-9, and a sum by less than 2**-9 of the
sum of the absolute products. That, which no luck in the signs can pass, is a lower limit of
both bounds: the vendor's convolution may round where the unit cuts, or may not use tf32 at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.tile_cases import BEYOND_INT32, Item, TileBatch
from bench.tile_problem import CL, Answer, JudgedProblem, TileProblem, draw, kept_blocks, rms
from hrbp_core.shapes import Pass

__all__ = [
    "CL", "Answer", "DeviceLost", "Finding", "TileProblem", "check_batch", "draw", "figures",
    "judge", "kept_blocks", "reason_of", "rms",
]  # fmt: skip
PARTS = (1, 5)  # wgrad: the last of five parts of 429 pixels is empty at 64 pixels a step
REASON_LENGTH = 300
OK, WRONG, FAILED, UNREPEATABLE = "ok", "wrong", "failed", "not repeatable"
SKIPPED = "skipped"


class DeviceLost(RuntimeError):
    """The CUDA context answers no more: nothing else can be done in this process."""


@dataclass(frozen=True)
class Finding:
    """How far an output was from its answer; ``reason`` is None when it is right."""

    error: float
    bound: float
    rms_error: float
    rms_bound: float
    reason: str | None

    @property
    def worst(self) -> float:
        """The larger of the two errors over their bounds."""
        pairs = ((self.error, self.bound), (self.rms_error, self.rms_bound))
        return max(e / b if b else float(e > 0) for e, b in pairs)


def judge(out: Tensor, answer: Answer) -> Finding:
    """Return how far ``out`` is from the answer. NaN never passes."""
    if out.shape != answer.expected.shape:
        text = f"expected an output {list(answer.expected.shape)}, got {list(out.shape)}"
        return Finding(float("inf"), answer.bound, float("inf"), answer.rms_bound, text)
    off = (out.double() - answer.expected).abs()
    error, rms_error = float(off.max()), rms(off)
    reason: str | None = None
    if not (error <= answer.bound and rms_error <= answer.rms_bound):
        bad = ~(off <= answer.bound)
        count, lost = int(bad.sum()), int((~out.isfinite()).sum())
        reason = f"{count} of {off.numel()} numbers beyond the bound, {lost} not finite"
        if count:
            reason += f"; the first at {bad.nonzero()[0].tolist()}"
    return Finding(error, answer.bound, rms_error, answer.rms_bound, reason)


def check_tile(batch: TileBatch, item: Item, problems: list[TileProblem]) -> dict[str, Any]:
    """Return the record of one tile on all problems of its case."""
    worst: Finding | None = None
    for problem in problems:
        for parts in PARTS if item.conv_pass is Pass.WGRAD else (None,):
            status, reason, found = run_twice(problem, item, parts)
            if reason:
                where = f"stride, padding, dilation {problem.geometry}" + (
                    f", {parts} parts" if parts else ""
                )
                return batch.record(item, status, f"{where}: {reason}", **figures(found))
            if worst is None or found.worst > worst.worst:
                worst = found
    return batch.record(item, OK, None, **(figures(worst) if worst else {}))


def run_twice(
    problem: JudgedProblem, item: Item, parts: int | None
) -> tuple[str, str | None, Finding]:
    """Return (status, reason, how far off) of a tile on one problem; no reason when it is right."""
    answer = problem.answer(item.conv_pass)
    out = problem.run(item, parts)
    found = judge(out, answer)
    if found.reason:
        return WRONG, found.reason, found
    if not torch.equal(out, problem.run(item, parts)):
        return UNREPEATABLE, "other bits in a second run", found
    return OK, None, found


def figures(found: Finding) -> dict[str, float]:
    """Return a finding's numbers by the names they are stored under."""
    return {name: getattr(found, name) for name in ("error", "bound", "rms_error", "rms_bound")}


def check_batch(batch: TileBatch, device: str) -> Iterator[dict[str, Any]]:
    """Yield one record a tile, in the order of ``batch.items``.

    Args:
        device: "cuda", or "cpu" under the interpreter.

    Raises:
        DeviceLost: a kernel has broken the CUDA context; its record came before.
    """
    torch.backends.cudnn.allow_tf32 = batch.kind.precision == "tf32"
    problems: list[TileProblem] = []
    for item in batch.items:
        try:
            if batch.case == BEYOND_INT32:
                from bench.tile_wide import check_wide

                record = check_wide(batch, item)
            else:
                if not problems:
                    problems = [TileProblem(batch, g, device) for g in batch.case.geometries]
                record = check_tile(batch, item, problems)
        except Exception as error:  # whatever a kernel or its compiler raises is a finding
            yield batch.record(item, FAILED, reason_of(error))
            if device == "cuda":
                still_there(error)
        else:
            yield record


def reason_of(error: BaseException) -> str:
    """Return an exception on one line of bounded length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:REASON_LENGTH]


def still_there(cause: Exception) -> None:
    """Raise DeviceLost when the CUDA context answers no more."""
    try:
        torch.cuda.synchronize()
        torch.ones(1, device="cuda").item()
    except RuntimeError as error:
        raise DeviceLost(reason_of(error)) from cause
