"""The case that 32-bit offsets cannot hold: x, y and their gradients of more than 2**31 numbers.

About 20 GB of a GPU's memory. fprop and dgrad are judged on whole images, among them the first
and last and those on both sides of element 2**31; wgrad, which sums over all images, as a whole.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from bench.measure import poisoned
from bench.problem import EPS
from bench.tile_cases import BEYOND_INT32, Item, TileBatch
from bench.tile_judge import (
    CL,
    OK,
    SKIPPED,
    UNREPEATABLE,
    WRONG,
    Answer,
    draw,
    figures,
    judge,
    kept_blocks,
    rms,
)
from hrbp_core import BlockPattern, reference
from hrbp_core.launch_tables import launch_tables
from hrbp_core.shapes import Pass
from hrbp_core.tables import contiguous_groups

IMAGES, SIZE = 2688, (56, 56)  # 2688 * 256 * 56 * 56 = 2.158e9 numbers, 4.3 GB in bfloat16
LEAST_FREE_BYTES = 40 * 2**30


def check_wide(batch: TileBatch, item: Item) -> dict[str, Any]:
    """Return the record of one pass, skipped where the memory is too small."""
    free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    if free < LEAST_FREE_BYTES:
        reason = f"expected 40 GiB of free GPU memory, got {free / 2**30:.1f}"
        return batch.record(item, SKIPPED, reason)
    shape = BEYOND_INT32.shape(batch.block)
    problem = WideProblem(shape, batch.block, IMAGES, SIZE, "cuda", batch.kind.torch_dtype)
    out = problem.run(item)
    found = judge(problem.sample(item.conv_pass, out), problem.answer(item.conv_pass))
    if found.reason:
        where = f"images {problem.looked_at}"
        return batch.record(item, WRONG, f"{where}: {found.reason}", **figures(found))
    again = problem.run(item)
    if any(not torch.equal(a, b) for a, b in zip(out, again, strict=True)):
        return batch.record(item, UNREPEATABLE, "other bits in a second run", **figures(found))
    return batch.record(item, OK, None, **figures(found))


class WideProblem:
    """Inputs of one 3x3 layer, and its answers where they are looked at."""

    def __init__(
        self, shape: tuple[int, int, int, int], block: tuple[int, int], images: int,
        size: tuple[int, int], device: str, dtype: torch.dtype,
    ) -> None:  # fmt: skip
        self.shape, self.block, self.size, self.dtype = shape, block, size, dtype
        self.geometry = BEYOND_INT32.geometries[0]
        groups = contiguous_groups(shape[0], block[0]), contiguous_groups(shape[1], block[1])
        kept = kept_blocks((len(groups[0]), len(groups[1])), shape[2] * shape[3], 1)
        kept &= torch.rand(kept.shape, generator=torch.Generator().manual_seed(2)) < 0.4
        kept[-1, -1, 0] = True
        pattern = BlockPattern.from_blocks(shape, block, *groups, kept)
        self.pattern = pattern.to(device)
        self.tables = launch_tables(self.pattern, *self.geometry)
        self.weight = draw(shape, dtype, device, 3)
        self.x = _big((images, shape[1], *size), dtype, device, 4)
        self.dy = _big((images, shape[0], *size), dtype, device, 5)
        edge = min(2**31 // (shape[1] * size[0] * size[1]), images - 1)  # element 2**31 is in it
        places = (0, images // 2, edge - 1, edge, images - 1)
        self.looked_at = sorted({max(p, 0) for p in places})

    def run(self, item: Item) -> Tensor:
        """Return the pass's output in poisoned memory, waited for."""
        from hrbp_core.kernels import gpu

        about = (self.shape, self.block, self.geometry)
        values = self.pattern.pack(self.weight)
        with poisoned():
            match item.conv_pass:
                case Pass.FPROP:
                    out = gpu.fprop(self.x, values, None, self.tables, *about, tile=item.tile)
                case Pass.DGRAD:
                    out = gpu.dgrad(self.dy, values, self.tables, self.size, *about, tile=item.tile)
                case _:
                    entries = len(self.pattern.entries)
                    out = gpu.wgrad(self.dy, self.x, self.tables, entries, *about, tile=item.tile)
        if out.is_cuda:
            torch.cuda.synchronize()
        return out

    def sample(self, conv_pass: Pass, out: Tensor) -> Tensor:
        """Return the part of an output that is looked at."""
        return out if conv_pass is Pass.WGRAD else self._images(out)

    def answer(self, conv_pass: Pass) -> Answer:
        """Return the oracle's part. No dense convolution runs beside: sums are in float32, so
        what remains is the rounding of the output."""
        mask = self.pattern.mask()
        match conv_pass:
            case Pass.FPROP:
                x = self._images(self.x)
                expected = reference.fprop(x, self.weight, mask, *self.geometry)
            case Pass.DGRAD:
                dy = self._images(self.dy)
                size = (len(dy), self.shape[1], *self.size)
                expected = reference.dgrad(dy, self.weight, size, mask, *self.geometry)
            case _:
                dense = reference.wgrad(self.dy, self.x, self.shape, mask, *self.geometry)
                expected = self.pattern.pack(dense)
        eps = EPS[self.dtype]
        return Answer(expected, 4 * eps * float(expected.abs().max()), eps * rms(expected))

    def _images(self, tensor: Tensor) -> Tensor:
        return torch.stack([tensor[i] for i in self.looked_at])


@lru_cache(maxsize=2)
def _big(size: tuple[int, ...], dtype: torch.dtype, device: str, seed: int) -> Tensor:
    """Return uniform numbers in [-1, 1], drawn where they lie; the passes share them."""
    generator = torch.Generator(device=device).manual_seed(seed)
    empty = torch.empty(size, dtype=dtype, device=device, memory_format=CL)
    return empty.uniform_(-1, 1, generator=generator)
