"""Copies of an image's rows as the passes read them: blocked, padded, float32."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from hrbp_core.kernels.native.emit import Slots, Vectors, i64, loop

ROW_SLOTS = (
    "source", "source_image", "source_row", "source_height", "source_pixel", "first_column",
    "last_column", "column_shift", "row_floats", "group_floats", "row_count", "in_groups",
    "columns",
)  # fmt: skip


class RowCopy:
    """Writes [groups, rows, columns, block] float32 from rows of an NHWC image.

    Args:
        block: channels of a group, a multiple of the vectors' lanes.
    """

    def __init__(self, b: ir.IRBuilder, vectors: Vectors, slots: Slots, block: int) -> None:
        self.b, self.v, self.s, self.block = b, vectors, slots, block

    def write(self, image: Any, first: Any, memory: Any) -> None:
        """Copy rows first, first + 1, ... of the image; zeros outside it."""
        b, s, item_bytes = self.b, self.s, self.v.item_bytes
        source = b.add(s.source, b.mul(b.mul(image, s.source_image), i64(item_bytes)))
        with loop(b, i64(0), s.row_count) as row:
            there = b.add(first, row)
            inside = b.and_(
                b.icmp_signed(">=", there, i64(0)), b.icmp_signed("<", there, s.source_height)
            )
            start = b.select(inside, s.first_column, s.columns)
            stop = b.select(inside, s.last_column, s.columns)
            to = b.add(memory, b.mul(b.mul(row, s.row_floats), i64(4)))
            self._zero(to, i64(0), start)
            line = b.add(source, b.mul(b.mul(there, s.source_row), i64(item_bytes)))
            self._copy(to, line, start, stop)
            self._zero(to, stop, s.columns)

    def _copy(self, to: Any, line: Any, start: Any, stop: Any) -> None:
        b, s, item_bytes = self.b, self.s, self.v.item_bytes
        with loop(b, start, stop) as column:
            shifted = b.mul(b.add(column, s.column_shift), s.source_pixel)
            origin = b.add(line, b.mul(shifted, i64(item_bytes)))
            place = b.add(to, b.mul(column, i64(4 * self.block)))
            with loop(b, i64(0), s.in_groups) as group:
                block = b.add(place, b.mul(b.mul(group, s.group_floats), i64(4)))
                there = b.add(origin, b.mul(group, i64(item_bytes * self.block)))
                self.v.copy(b, there, block, self.block)

    def _zero(self, to: Any, start: Any, stop: Any) -> None:
        b, s = self.b, self.s
        with loop(b, start, stop) as column:
            place = b.add(to, b.mul(column, i64(4 * self.block)))
            with loop(b, i64(0), s.in_groups) as group:
                block = b.add(place, b.mul(b.mul(group, s.group_floats), i64(4)))
                for at in range(0, self.block, self.v.lanes):
                    self.v.store_float32(b, self.v.zero(), b.add(block, i64(4 * at)))
