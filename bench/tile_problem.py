"""Inputs of a problem that tiles are judged on, the oracle's answers, and their bounds."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from bench.measure import poisoned
from bench.problem import EPS
from bench.tile_cases import BATCH_SIZE, IMAGE, Item, Kind, TileBatch
from hrbp_core import BlockPattern, reference
from hrbp_core.launch_tables import Geometry, launch_tables
from hrbp_core.shapes import ConvShape, Pair, Pass
from hrbp_core.tables import contiguous_groups

CL = torch.channels_last
TF32_CUT = 2.0**-9
Numbers = Callable[[tuple[int, ...], torch.dtype, str, int], Tensor]


@dataclass(frozen=True)
class Answer:
    """The oracle's output in the tile's form, and how far from it a right one may be."""

    expected: Tensor
    bound: float
    rms_bound: float


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


class JudgedProblem:
    """The inputs of one problem, and its answers, worked out once for all tiles.

    Args:
        kind: dtype, and how float32 is multiplied.
        conv: extents. pattern: canonical, of its filters.
        seed: of the numbers. bias: fprop adds one.
        numbers: draws them, from (size, dtype, device, seed).
    """

    def __init__(
        self, kind: Kind, conv: ConvShape, pattern: BlockPattern, device: str, seed: int = 0,
        bias: bool = False, numbers: Numbers = draw,
    ) -> None:  # fmt: skip
        self.dtype, self.tf32 = kind.torch_dtype, kind.precision == "tf32"
        self.shape, self.block, self.conv = conv.filter_shape, pattern.block, conv
        self.geometry: Geometry = (conv.stride, conv.padding, conv.dilation)
        self.pattern = pattern.to(device)
        self.tables = launch_tables(self.pattern, *self.geometry)
        about = self.dtype, device
        self.x = numbers((conv.N, conv.C, conv.H, conv.W), *about, seed + 1)
        self.dy = numbers((conv.N, conv.K, conv.P, conv.Q), *about, seed + 2)
        self.weight = numbers(self.shape, *about, seed + 3)
        self.bias = numbers((conv.K,), *about, seed + 4) if bias else None
        self.values = self.pattern.pack(self.weight)
        self._answers: dict[Pass, Answer] = {}

    @cached_property
    def mask(self) -> Tensor:
        """bool [K, C, R, S]."""
        return self.pattern.mask()

    def twin(self) -> JudgedProblem:
        """Return the same problem, whose inputs lie in memory of their own."""
        twin = copy.copy(self)
        twin.x, twin.dy, twin.values = self.x.clone(), self.dy.clone(), self.values.clone()
        return twin

    def run(self, item: Item, parts: int | None) -> Tensor:
        """Return the pass's output in poisoned memory, waited for."""
        with poisoned():
            if not bool(torch.empty(4, device=self.x.device).isnan().all()):
                raise RuntimeError("expected unwritten memory to hold NaN, it does not")
            out = self.call(item, parts)
        if out.is_cuda:
            torch.cuda.synchronize()
        return out

    def call(self, item: Item, parts: int | None) -> Tensor:
        """Enqueue the pass once; return its output."""
        from hrbp_core.kernels import gpu

        about = (self.shape, self.block, self.geometry)
        match item.conv_pass:
            case Pass.FPROP:
                args = (self.x, self.values, self.bias, self.tables, *about)
                return gpu.fprop(*args, tile=item.tile)
            case Pass.DGRAD:
                size = (self.conv.H, self.conv.W)
                return gpu.dgrad(self.dy, self.values, self.tables, size, *about, tile=item.tile)
            case _:
                entries = len(self.pattern.entries)
                return gpu.wgrad(
                    self.dy, self.x, self.tables, entries, *about, tile=item.tile, parts=parts
                )

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


class TileProblem(JudgedProblem):
    """One of the small problems that break tiles: uneven groups, missing taps, padding."""

    def __init__(self, batch: TileBatch, geometry: Geometry, device: str) -> None:
        k, c, r, s = shape = batch.case.shape(batch.block)
        groups = (contiguous_groups(k, batch.block[0]), contiguous_groups(c, batch.block[1]))
        seed = zlib.crc32(repr((shape, batch.block, geometry)).encode())
        taps = 1 if batch.case.whole else r * s
        kept = kept_blocks((len(groups[0]), len(groups[1])), taps, seed).expand(-1, -1, r * s)
        pattern = BlockPattern.from_blocks(shape, batch.block, *groups, kept)
        conv = ConvShape(BATCH_SIZE, c, *IMAGE, k, r, s, *geometry)
        super().__init__(batch.kind, conv, pattern, device, seed, batch.case.bias)


def rms(tensor: Tensor) -> float:
    """Return the root mean square."""
    return float(tensor.double().square().mean().sqrt())
