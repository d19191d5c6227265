"""The machine code under wgrad: one thread's share of the stored blocks' gradients.

A thread takes runs of filter groups. For each image and band of rows it copies x as the gather
kernel does, and dy of one filter group at a time, [pixels, block_k]; then for each entry of that
group it adds up to six filters by two vectors of channels over some hundred pixels, which both
stay in its L1 cache. Sums lie in float32 between bands.
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
from hrbp_core.kernels.native.rows import ROW_SLOTS, RowCopy

MOST = 6  # filters of a tile
WGRAD_SLOTS = (
    "next_item", "next_thread", "items", "memory", "memory_floats", "rows_floats", "group_runs",
    "first_group", "first_image", "bands", "band_rows", "band_dy", "band_pixels",
    "starts", "entries", "rows", "pitch", "pixel_in", "span", "dy", "dy_image", "dy_pixel",
    "out", "out_floats", *ROW_SLOTS,
)  # fmt: skip


@dataclass(frozen=True)
class WgradSpec:
    """What is compiled in: as ``GatherSpec``, with the pattern's own blocks."""

    dtype: str
    lanes: int
    block_k: int
    block_c: int

    @property
    def name(self) -> str:
        """Of the function: no two alike."""
        return f"wgrad_{self.dtype}_{self.lanes}_{self.block_k}_{self.block_c}"

    @property
    def chunk(self) -> int:
        """Channels of a tile."""
        return chunk_of(self.block_c, self.lanes)

    @property
    def parts(self) -> list[tuple[int, int, int]]:
        """(first filter, filters of a tile, tiles): at most six filters, as even as can be."""
        tiles = -(-self.block_k // MOST)
        least, more = divmod(self.block_k, tiles)
        found = [(0, least + 1, more), (more * (least + 1), least, tiles - more)]
        return [part for part in found if part[2]]


def wgrad_module(spec: WgradSpec) -> tuple[ir.Module, str]:
    """Return a module and the name of its function, ``wgrad(slots)``."""
    return _Wgrad(spec).written()


class _Wgrad(Program):
    def __init__(self, spec: WgradSpec) -> None:
        super().__init__(spec.name, spec.lanes, spec.dtype, WGRAD_SLOTS)
        self.spec = spec
        self.rows = RowCopy(self.b, self.v, self.s, spec.block_c)

    def body(self) -> None:
        b, s = self.b, self.s
        memory = b.add(s.memory, b.mul(taken(b, s.next_thread), b.mul(s.memory_floats, i64(4))))
        with items(b, s.next_item, s.items) as item:
            run, part = b.srem(item, s.group_runs), b.sdiv(item, s.group_runs)
            out = b.add(s.out, b.mul(b.mul(part, s.out_floats), i64(4)))
            first, last = self._ends(s.first_image, part)
            with loop(b, first, last) as image, loop(b, i64(0), s.bands) as band:
                self.rows.write(image, read(b, s.band_rows, band, I32), memory)
                low, high = self._ends(s.first_group, run)
                with loop(b, low, high) as group:
                    self._group(image, band, group, memory, out)

    def _ends(self, table: Any, at: Any) -> tuple[Any, Any]:
        b = self.b
        return read(b, table, at, I32), read(b, table, b.add(at, i64(1)), I32)

    def _group(self, image: Any, band: Any, group: Any, memory: Any, out: Any) -> None:
        """Add one filter group's gradients over one band."""
        b, s, spec = self.b, self.s, self.spec
        pixels = read(b, s.band_pixels, band, I32)
        first = b.add(b.mul(image, s.dy_image), read(b, s.band_dy, band, I32))
        first = b.add(first, b.mul(group, i64(spec.block_k)))
        origin = b.add(s.dy, b.mul(first, i64(self.v.item_bytes)))
        dy = b.add(memory, b.mul(s.rows_floats, i64(4)))
        with loop(b, i64(0), pixels) as pixel:
            there = b.mul(b.mul(pixel, s.dy_pixel), i64(self.v.item_bytes))
            place = b.add(dy, b.mul(pixel, i64(4 * spec.block_k)))
            self.v.copy(b, b.add(origin, there), place, spec.block_k)
        low, high = self._ends(s.starts, group)
        pitch = b.mul(read(b, s.pitch, group), i64(4 * spec.block_c))
        spans = b.sdiv(b.add(pixels, b.sub(s.span, i64(1))), s.span)
        with loop(b, i64(0), spans) as span:
            start = b.mul(span, s.span)
            stop = b.add(start, s.span)
            stop = b.select(b.icmp_signed("<", stop, pixels), stop, pixels)
            with loop(b, low, high) as entry:
                x = b.add(memory, b.mul(read(b, s.entries, entry, I32), i64(4)))
                to = b.add(out, b.mul(read(b, s.rows, entry), i64(4 * spec.block_c)))
                for lane, count, times in spec.parts:
                    with loop(b, i64(0), i64(times)) as part:
                        row = b.add(i64(lane), b.mul(part, i64(count)))
                        with loop(b, i64(0), i64(spec.block_c), spec.chunk) as channel:
                            across = b.mul(channel, i64(4))
                            place = b.add(b.add(to, b.mul(pitch, row)), across)
                            lanes = b.add(dy, b.mul(row, i64(4)))
                            self._tile(count, b.add(x, across), lanes, place, pitch, start, stop)

    def _tile(
        self, count: int, x: Any, dy: Any, place: Any, pitch: Any, start: Any, stop: Any
    ) -> None:
        """Add ``count`` filters by ``chunk`` channels over pixels start to stop."""
        b, s, spec = self.b, self.s, self.spec
        vectors = spec.chunk // spec.lanes
        places = [
            b.add(b.add(place, b.mul(pitch, i64(i))), i64(4 * spec.lanes * j))
            for i in range(count)
            for j in range(vectors)
        ]
        sums = [self.v.load_float32(b, at) for at in places]
        with summing(b, start, stop, 1, sums) as (pixel, current):
            inputs = b.add(x, b.mul(read(b, s.pixel_in, pixel, I32), i64(4)))
            grads = b.add(dy, b.mul(pixel, i64(4 * spec.block_k)))
            scalars = [b.add(grads, i64(4 * i)) for i in range(count)]
            self.v.add_products(b, scalars, inputs, vectors, current)
        for total, at in zip(sums, places, strict=True):
            self.v.store_float32(b, total, at)
