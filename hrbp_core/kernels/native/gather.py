"""The machine code under fprop and dgrad: one thread's share of output tiles.

A thread takes (image, band of rows) items from a shared counter. It copies the rows that the
band reads into memory of its own, [channel groups, rows, columns, block] in float32 with the
padding filled in, which stays in its L2 cache. Then for each group of output channels it walks
tiles of up to six pixels by two vectors of channels: an inner step is a broadcast of one input
and two fused multiply-adds a pixel. An entry of the pattern is an offset into the copy, so a
dropped block costs nothing and uneven groups need no padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from hrbp_core.kernels.native.emit import (
    I32,
    Program,
    chunk_of,
    i64,
    items,
    loop,
    read,
    summing,
    taken,
)
from hrbp_core.kernels.native.layout import TILES
from hrbp_core.kernels.native.rows import ROW_SLOTS, RowCopy

UNROLL = 4
SLOTS = (
    "next_item", "next_thread", "items", "out", "weights", "bias", "memory", "memory_floats",
    "bands", "phases", "groups", "entries", "starts", "offsets", "pixel_in", "pixel_out", "tiles",
    "band_rows", "band_out", "out_image", *ROW_SLOTS,
)  # fmt: skip


@dataclass(frozen=True)
class GatherSpec:
    """What is compiled in.

    Attributes:
        dtype: of x, y: "float32", "bfloat16" or "float16"; sums are float32.
        lanes: float32 numbers in a vector register.
        block_in, block_out: channels of a reduced and of an output group, multiples of lanes.
    """

    dtype: str
    lanes: int
    block_in: int
    block_out: int

    @property
    def name(self) -> str:
        """Of the function: no two alike."""
        return f"gather_{self.dtype}_{self.lanes}_{self.block_in}_{self.block_out}"

    @property
    def chunk(self) -> int:
        """Output channels of a tile."""
        return chunk_of(self.block_out, self.lanes)


def gather_module(spec: GatherSpec) -> tuple[ir.Module, str]:
    """Return a module and the name of its function, ``gather(slots)``."""
    return _Gather(spec).written()


class _Gather(Program):
    def __init__(self, spec: GatherSpec) -> None:
        super().__init__(spec.name, spec.lanes, spec.dtype, SLOTS)
        self.spec = spec
        self.rows = RowCopy(self.b, self.v, self.s, spec.block_in)

    def body(self) -> None:
        b, s = self.b, self.s
        memory = b.add(s.memory, b.mul(taken(b, s.next_thread), b.mul(s.memory_floats, i64(4))))
        with items(b, s.next_item, s.items) as item:
            image, band = b.sdiv(item, s.bands), b.srem(item, s.bands)
            self.rows.write(image, read(b, s.band_rows, band, I32), memory)
            with loop(b, i64(0), s.phases) as phase:
                at = b.add(b.mul(band, s.phases), phase)
                self._phase(image, phase, at, memory)

    def _phase(self, image: Any, phase: Any, at: Any, memory: Any) -> None:
        """Compute one phase's pixels of the band, group by group."""
        b, s, spec = self.b, self.s, self.spec
        base = b.add(b.mul(image, s.out_image), read(b, s.band_out, at, I32))
        out = b.add(s.out, b.mul(base, i64(self.v.item_bytes)))
        chunk_floats = spec.block_in * spec.chunk
        with loop(b, i64(0), s.groups) as group:
            slot = b.add(b.mul(phase, s.groups), group)
            first = read(b, s.starts, slot, I32)
            count = b.sub(read(b, s.starts, b.add(slot, i64(1)), I32), first)
            entries = b.add(s.entries, b.mul(first, i64(4)))
            block = b.mul(first, i64(4 * spec.block_in * spec.block_out))
            weights = b.add(s.weights, block)
            with loop(b, i64(0), i64(spec.block_out // spec.chunk)) as part:
                channel = b.add(b.mul(group, i64(spec.block_out)), b.mul(part, i64(spec.chunk)))
                here = b.add(weights, b.mul(b.mul(count, part), i64(4 * chunk_floats)))
                self._tiles(phase, at, memory, entries, count, here, out, channel)

    def _tiles(
        self, phase: Any, at: Any, memory: Any, entries: Any, count: Any, weights: Any, out: Any,
        channel: Any,
    ) -> None:  # fmt: skip
        b, s = self.b, self.s
        pixel = read(b, s.offsets, phase, I32)
        bias = b.add(s.bias, b.mul(channel, i64(4)))
        out = b.add(out, b.mul(channel, i64(self.v.item_bytes)))
        for place, size in enumerate(TILES):
            number = b.add(b.mul(at, i64(len(TILES))), i64(place))
            last = b.add(pixel, b.mul(read(b, s.tiles, number, I32), i64(size)))
            with loop(b, pixel, last, size) as first:
                self._tile(size, first, memory, entries, count, weights, out, bias)
            pixel = last

    def _tile(
        self, size: int, first: Any, memory: Any, entries: Any, count: Any, weights: Any, out: Any,
        bias: Any,
    ) -> None:  # fmt: skip
        b, s, spec = self.b, self.s, self.spec
        pixels = [b.add(first, i64(i)) for i in range(size)]
        sources = [b.add(memory, b.mul(read(b, s.pixel_in, p, I32), i64(4))) for p in pixels]
        vectors = spec.chunk // spec.lanes
        starts = [
            self.v.load_float32(b, b.add(bias, i64(4 * spec.lanes * i))) for i in range(vectors)
        ]
        sums = [start for _ in pixels for start in starts]
        step = 4 * spec.block_in * spec.chunk
        with summing(b, i64(0), count, 1, sums) as (entry, current):
            offset = b.mul(read(b, entries, entry, I32), i64(4))
            at = b.add(weights, b.mul(entry, i64(step)))
            with summing(b, i64(0), i64(spec.block_in), UNROLL, current) as (channel, inner):
                for i in range(UNROLL):
                    shift = b.add(offset, b.mul(b.add(channel, i64(i)), i64(4)))
                    row = b.add(at, b.mul(b.add(channel, i64(i)), i64(4 * spec.chunk)))
                    inputs = [b.add(source, shift) for source in sources]
                    self.v.add_products(b, inputs, row, vectors, inner)
        for i, pixel in enumerate(pixels):
            target = b.add(out, b.mul(read(b, s.pixel_out, pixel, I32), i64(self.v.item_bytes)))
            for j in range(vectors):
                place = b.add(target, i64(self.v.item_bytes * spec.lanes * j))
                self.v.store(b, sums[i * vectors + j], place)
