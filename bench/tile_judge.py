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

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.measure import poisoned
from bench.problem import EPS
from bench.tile_cases import BATCH_SIZE, BEYOND_INT32, IMAGE, Item, TileBatch
from hrbp_core import BlockPattern, reference
from hrbp_core.launch_tables import Geometry, launch_tables
from hrbp_core.shapes import ConvShape, Pair, Pass
from hrbp_core.tables import contiguous_groups

CL = torch.channels_last
TF32_CUT = 2.0**-9
PARTS = (1, 5)  # wgrad: the last of five parts of 429 pixels is empty at 64 pixels a step
REASON_LENGTH = 300
OK, WRONG, FAILED, UNREPEATABLE = "ok", "wrong", "failed", "not repeatable"
SKIPPED = "skipped"


class DeviceLost(RuntimeError):
    """The CUDA context answers no more: nothing else can be done in this process."""


@dataclass(frozen=True)
class Answer:
    """The oracle's output in the tile's form, and how far from it a right one may be."""

    expected: Tensor
    bound: float
    rms_bound: float


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


def draw(size: tuple[int, ...], dtype: torch.dtype, device: str, seed: int) -> Tensor:
    """Return uniform numbers in [-1, 1], channels_last: the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.empty(size).uniform_(-1, 1, generator=generator).to(device, dtype)
    return numbers.contiguous(memory_format=CL) if len(size) == 4 else numbers


def kept_blocks(groups: Pair, taps: int, seed: int) -> Tensor:
    """Return bool [filter groups, channel groups, taps]: uneven counts, and empty groups.

    Filter group 0 and channel group 1 are empty where there are three; about six in ten of the
    other blocks' taps are kept.
    """
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(*groups, taps, generator=generator) < 0.6
    kept[1:, 0, 0] = kept[-1, -1, 0] = True
    kept[1:-1, -1, 0] = False  # counts differ in a 1x1 kernel too
    if groups[0] > 2:
        kept[0] = False
    if groups[1] > 2:
        kept[:, 1] = False
    return kept


class TileProblem:
    """The inputs of one problem, and its answers, worked out once for all tiles."""

    def __init__(self, batch: TileBatch, geometry: Geometry, device: str) -> None:
        self.dtype, self.tf32 = batch.kind.torch_dtype, batch.kind.precision == "tf32"
        self.block, self.geometry = batch.block, geometry
        k, c, r, s = self.shape = batch.case.shape(batch.block)
        groups = (contiguous_groups(k, self.block[0]), contiguous_groups(c, self.block[1]))
        seed = zlib.crc32(repr((self.shape, self.block, geometry)).encode())
        taps = 1 if batch.case.whole else r * s
        kept = kept_blocks((len(groups[0]), len(groups[1])), taps, seed).expand(-1, -1, r * s)
        pattern = BlockPattern.from_blocks(self.shape, self.block, *groups, kept)
        self.pattern = pattern.to(device)
        self.tables = launch_tables(self.pattern, *geometry)
        self.conv = conv = ConvShape(BATCH_SIZE, c, *IMAGE, k, r, s, *geometry)
        self.x = draw((BATCH_SIZE, c, *IMAGE), self.dtype, device, seed + 1)
        self.dy = draw((BATCH_SIZE, k, conv.P, conv.Q), self.dtype, device, seed + 2)
        self.weight = draw(self.shape, self.dtype, device, seed + 3)
        self.bias = draw((k,), self.dtype, device, seed + 4) if batch.case.bias else None
        self.values = self.pattern.pack(self.weight)
        self._answers: dict[Pass, Answer] = {}

    @cached_property
    def mask(self) -> Tensor:
        """bool [K, C, R, S]."""
        return self.pattern.mask()

    def run(self, item: Item, parts: int | None) -> Tensor:
        """Return the pass's output in poisoned memory, waited for."""
        from hrbp_core.kernels import gpu

        about = (self.shape, self.block, self.geometry)
        with poisoned():
            if not bool(torch.empty(4, device=self.x.device).isnan().all()):
                raise RuntimeError("expected unwritten memory to hold NaN, it does not")
            match item.conv_pass:
                case Pass.FPROP:
                    args = (self.x, self.values, self.bias, self.tables, *about)
                    out = gpu.fprop(*args, tile=item.tile)
                case Pass.DGRAD:
                    args = (self.dy, self.values, self.tables, IMAGE, *about)  # type: ignore[assignment]
                    out = gpu.dgrad(*args, tile=item.tile)  # type: ignore[arg-type]
                case _:
                    entries = len(self.pattern.entries)
                    out = gpu.wgrad(
                        self.dy, self.x, self.tables, entries, *about, tile=item.tile, parts=parts
                    )
        if out.is_cuda:
            torch.cuda.synchronize()
        return out

    def answer(self, conv_pass: Pass) -> Answer:
        """Return the oracle's answer, and the bounds of the dense convolution's own errors."""
        if conv_pass not in self._answers:
            expected = self._oracle(conv_pass, self.x, self.weight, self.dy, self.bias)
            off = self._dense(conv_pass).double() - expected
            eps, largest = EPS[self.dtype], float(expected.abs().max())
            bound = 2 * float(off.abs().max()) + 4 * eps * largest
            # sums run in float32, one term after the other; a vendor's may run in shorter chains
            summing = EPS[torch.float32] * math.sqrt(self.conv.gemm_extents(conv_pass)[2])
            rms_bound = 2 * rms(off) + (eps + summing) * rms(expected)
            if self.tf32:
                x, weight, dy = self.x.abs(), self.weight.abs(), self.dy.abs()
                cut = TF32_CUT * self._oracle(conv_pass, x, weight, dy, None)
                bound = max(bound, float(cut.max()))
                rms_bound = max(rms_bound, rms(cut))
            self._answers[conv_pass] = Answer(expected, bound, rms_bound)
        return self._answers[conv_pass]

    def _oracle(
        self, conv_pass: Pass, x: Tensor, weight: Tensor, dy: Tensor, bias: Tensor | None
    ) -> Tensor:
        match conv_pass:
            case Pass.FPROP:
                y = reference.fprop(x, weight, self.mask, *self.geometry)
                return y if bias is None else y + bias.double().view(1, -1, 1, 1)
            case Pass.DGRAD:
                return reference.dgrad(dy, weight, x.shape, self.mask, *self.geometry)
            case _:
                dense = reference.wgrad(dy, x, self.shape, self.mask, *self.geometry)
                return self.pattern.pack(dense)

    def _dense(self, conv_pass: Pass) -> Tensor:
        """Return what torch's own convolution with masked weights makes of it."""
        weight = self.weight * self.mask
        if conv_pass is Pass.FPROP:
            return functional.conv2d(self.x, weight, self.bias, *self.geometry)
        wanted = [conv_pass is Pass.DGRAD, conv_pass is Pass.WGRAD, False]
        dx, dweight, _ = torch.ops.aten.convolution_backward(
            self.dy, self.x, weight, None, *self.geometry, False, (0, 0), 1, wanted
        )
        return dx if conv_pass is Pass.DGRAD else self.pattern.pack(dweight)


def rms(tensor: Tensor) -> float:
    """Return the root mean square."""
    return float(tensor.double().square().mean().sqrt())


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
        answer = problem.answer(item.conv_pass)
        for parts in PARTS if item.conv_pass is Pass.WGRAD else (None,):
            out = problem.run(item, parts)
            found = judge(out, answer)
            where = f"stride, padding, dilation {problem.geometry}" + (
                f", {parts} parts" if parts else ""
            )
            if found.reason:
                return batch.record(item, WRONG, f"{where}: {found.reason}", **figures(found))
            if not torch.equal(out, problem.run(item, parts)):
                reason = f"{where}: other bits in a second run"
                return batch.record(item, UNREPEATABLE, reason, **figures(found))
            if worst is None or found.worst > worst.worst:
                worst = found
    return batch.record(item, OK, None, **(figures(worst) if worst else {}))


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
                _still_there(error)
        else:
            yield record


def reason_of(error: BaseException) -> str:
    """Return an exception on one line of bounded length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:REASON_LENGTH]


def _still_there(cause: Exception) -> None:
    try:
        torch.cuda.synchronize()
        torch.ones(1, device="cuda").item()
    except RuntimeError as error:
        raise DeviceLost(reason_of(error)) from cause
