"""The machine code that lays stored weights out as the gather kernel reads them.

``values`` holds rows of filters; the kernel wants, for each entry, rows of reduced channels with
a tile's output channels side by side. fprop transposes blocks on the way, dgrad copies them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from hrbp_core.kernels.native.emit import (
    Program,
    i64,
    items,
    loop,
    read,
    transpose,
)
from hrbp_core.kernels.native.gather import GatherSpec

WEIGHT_SLOTS = (
    "next_item", "items", "first", "values", "weights", "rows", "pitches", "places",
    "chunk_floats",
)  # fmt: skip


def weight_module(spec: GatherSpec, forward: bool) -> tuple[ir.Module, str]:
    """Return a module and the name of its function, ``weights(slots)``.

    An item is a run of entries.
    """
    return _Weights(spec, forward).written()


class _Weights(Program):
    def __init__(self, spec: GatherSpec, forward: bool) -> None:
        name = f"weights_{spec.name}_{'forward' if forward else 'backward'}"
        super().__init__(name, spec.lanes, spec.dtype, WEIGHT_SLOTS)
        self.spec, self.forward = spec, forward
        self.row_items = spec.block_in if forward else spec.block_out  # block_c

    def body(self) -> None:
        b, s = self.b, self.s
        with items(b, s.next_item, s.items) as item:
            first, last = read(b, s.first, item), read(b, s.first, b.add(item, i64(1)))
            with loop(b, first, last) as entry:
                row_bytes = self.row_items * self.v.item_bytes
                origin = b.add(s.values, b.mul(read(b, s.rows, entry), i64(row_bytes)))
                pitch = b.mul(read(b, s.pitches, entry), i64(row_bytes))
                place = b.add(s.weights, b.mul(read(b, s.places, entry), i64(4)))
                chunk = b.mul(read(b, s.chunk_floats, entry), i64(4))
                write = self._transposed if self.forward else self._copied
                write(origin, pitch, place, chunk)

    def _transposed(self, origin: Any, pitch: Any, place: Any, chunk: Any) -> None:
        """Output channels are filters: rows of values become columns."""
        b, spec, lanes = self.b, self.spec, self.spec.lanes
        for out in range(0, spec.block_out, lanes):
            part, within = divmod(out, spec.chunk)
            to = b.add(b.add(place, b.mul(chunk, i64(part))), i64(4 * within))
            with loop(b, i64(0), i64(spec.block_in), lanes) as reduced:
                across = b.mul(reduced, i64(self.v.item_bytes))
                starts = (b.add(origin, b.mul(pitch, i64(out + i))) for i in range(lanes))
                rows = [self.v.load(b, b.add(start, across)) for start in starts]
                line = b.add(to, b.mul(reduced, i64(4 * spec.chunk)))
                for i, row in enumerate(transpose(b, rows)):
                    self.v.store_float32(b, row, b.add(line, i64(4 * spec.chunk * i)))

    def _copied(self, origin: Any, pitch: Any, place: Any, chunk: Any) -> None:
        """Output channels are channels: rows of values stay rows."""
        b, spec = self.b, self.spec
        with loop(b, i64(0), i64(spec.block_in)) as reduced:
            row = b.add(origin, b.mul(pitch, reduced))
            to = b.add(place, b.mul(reduced, i64(4 * spec.chunk)))
            for out in range(0, spec.block_out, spec.lanes):
                part, within = divmod(out, spec.chunk)
                vector = self.v.load(b, b.add(row, i64(out * self.v.item_bytes)))
                at = b.add(b.add(to, b.mul(chunk, i64(part))), i64(4 * within))
                self.v.store_float32(b, vector, at)
