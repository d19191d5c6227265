"""What the grouped convolutions take: buckets, weight segments, row indices.

One filter group is one group of a grouped convolution, and oneDNN wants equal groups: filter
groups are sorted by their number of blocks and cut into buckets; a bucket is one call, padded
to its longest row. The cut is the cheapest by a small dynamic programme that counts a call as
``CALL_COST`` blocks. Seen from dgrad the same is done for channel groups over the twin.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrbp_core.shapes import Pair

# One more call costs about as much as three more 32x32 blocks: over four 3x3 layers (128 to 512
# channels, batch 8, all passes) 1, 2, 3, 4, 6, 9 gave 2.27, 2.34, 2.38, 2.35, 2.38, 2.33 times
# dense in bf16 and 2.90, 3.00, 3.03, 2.89, 2.90, 2.75 in fp32.
CALL_COST = 3
# Row indices kept for this many different pixel counts (train and eval batches differ).
KEPT_SIZES = 4
INT32_MAX = 2**31 - 1
Pair2 = tuple[Tensor, Tensor]


def make_room(cache: dict[Any, Any]) -> None:
    """Drop the oldest entries until one more fits."""
    while len(cache) >= KEPT_SIZES:
        del cache[next(iter(cache))]


def cut_buckets(counts: np.ndarray, call_cost: int = CALL_COST) -> tuple[list[np.ndarray], int]:
    """Return groups of rows, and their cost in blocks: sum of rows * longest + call_cost a call.

    Args:
        counts: blocks of each row; empty rows are in no bucket.

    Rows of a bucket ascend; ties in cost go to fewer rows in the last bucket.
    """
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    ordered = counts[order]
    cost = np.zeros(len(order) + 1, dtype=np.int64)
    cut = np.zeros(len(order) + 1, dtype=np.int64)
    for end in range(1, len(order) + 1):
        starts = np.arange(end)
        candidates = cost[:end] + (end - starts) * ordered[:end] + call_cost
        cut[end] = end - 1 - int(np.argmin(candidates[::-1]))
        cost[end] = candidates[cut[end]]
    buckets: list[np.ndarray] = []
    end = len(order)
    while end:
        buckets.append(np.sort(order[cut[end] : end]))
        end = int(cut[end])
    return buckets[::-1], int(cost[-1])


@dataclass
class Gather:
    """Picks groups of channels out of an NHWC tensor.

    Attributes:
        groups: the channel group taken at each place.
        total: channel groups of the source.
    """

    groups: np.ndarray
    total: int
    _rows: dict[tuple[int, torch.device], Tensor] = field(default_factory=dict, repr=False)

    @cached_property
    def is_identity(self) -> bool:
        """True when all groups are taken in order."""
        return np.array_equal(self.groups, np.arange(self.total))

    def __call__(self, source: Tensor, width: int) -> Tensor:
        """Return [N, places * width, H, W] (channels_last) from [N, total * width, H, W].

        Rows of ``width`` channels by a cached row index: 0.1-0.4 ms where ``index_select``
        over channels and a layout copy take up to ten times that.
        """
        if self.is_identity:
            return source
        n, _, h, w = source.shape
        rows = source.permute(0, 2, 3, 1).reshape(n * h * w * self.total, width)
        taken = rows.index_select(0, self._row_index(n * h * w, source.device))
        return taken.view(n, h, w, len(self.groups) * width).permute(0, 3, 1, 2)

    def _row_index(self, pixels: int, device: torch.device) -> Tensor:
        key = (pixels, device)
        if key not in self._rows:
            dtype = torch.int32 if pixels * self.total <= INT32_MAX else torch.int64
            base = torch.arange(pixels, device=device).mul_(self.total)
            groups = torch.from_numpy(self.groups.astype(np.int64)).to(device)
            make_room(self._rows)
            self._rows[key] = (base[:, None] + groups).reshape(-1).to(dtype)
        return self._rows[key]


@dataclass
class Bucket:
    """Rows (groups of the output side) that one grouped convolution computes.

    Attributes:
        rows: int64 [n]: the output-side groups, ascending.
        cols: int64 [n, width]: input-side groups of each row, padded by repeating.
        real: bool [n, width]: False where padded.
        shared: all rows take the same columns, so that one ungrouped product does.
        take: picks the input-side groups; own: picks the rows from the output side.
        segments: int64: the row of ``values`` at each place of this bucket's weight; -1: none.
    """

    rows: np.ndarray
    cols: np.ndarray
    real: np.ndarray
    shared: bool
    take: Gather
    own: Gather
    segments: np.ndarray

    @property
    def conv_groups(self) -> int:
        """Groups of the grouped convolution."""
        return 1 if self.shared else len(self.rows)

    @property
    def real_places(self) -> np.ndarray:
        """bool: which of ``take``'s places are no padding."""
        return np.ones(len(self.take.groups), bool) if self.shared else self.real.reshape(-1)

    @cached_property
    def run(self) -> Pair | None:
        """(start, stop) when the weight is one run of ``values``: a view, no copy."""
        start = int(self.segments[0])
        if start >= 0 and np.array_equal(self.segments, start + np.arange(len(self.segments))):
            return start, start + len(self.segments)
        return None

    @cached_property
    def _index(self) -> tuple[Tensor, Tensor, Tensor]:
        places = torch.from_numpy(self.segments)
        real = places >= 0
        return places.clamp(min=0), real.nonzero().view(-1), (~real).nonzero().view(-1)

    def collect(self, values: Tensor) -> Tensor:
        """Return this bucket's weight segments [len(segments), block_c], contiguous."""
        if self.run:
            return values[self.run[0] : self.run[1]].contiguous()
        index, _, padding = (t.to(values.device) for t in self._index)
        segments = values.index_select(0, index)
        return segments.index_fill_(0, padding, 0) if len(padding) else segments

    def scatter(self, segments: Tensor, values: Tensor) -> None:
        """Write this bucket's gradient segments to their places in ``values``."""
        if self.run:
            values[self.run[0] : self.run[1]] = segments
            return
        index, real, padding = (t.to(values.device) for t in self._index)
        if len(padding):
            index, segments = index[real], segments.index_select(0, real)
        values.index_copy_(0, index, segments)


@dataclass
class Side:
    """One way to cut the pattern: over filter groups (R) or over channel groups (C)."""

    buckets: list[Bucket]
    cost: int
    groups: int
    in_groups: int
    _sums: dict[tuple[int, torch.device], Pair2] = field(default_factory=dict, repr=False)

    @cached_property
    def complete(self) -> bool:
        """True when the buckets write every group."""
        return sum(len(b.rows) for b in self.buckets) == self.groups

    @cached_property
    def tiled(self) -> bool:
        """True when the buckets' rows, one bucket after the other, are 0, 1, 2, ..."""
        rows = np.concatenate([b.rows for b in self.buckets])
        return np.array_equal(rows, np.arange(self.groups))

    def sum_index(self, pixels: int, device: torch.device) -> Pair2:
        """Return (index, offsets) by which embedding_bag sums copies of the input side.

        Copies are the buckets' [pixels * places] rows, one bucket after the other; the result
        has [pixels * in_groups] rows. Padded places are left out.
        """
        key = (pixels, device)
        if key not in self._sums:
            make_room(self._sums)
            index, offsets = self._count_sums(pixels)
            dtype = np.int32 if len(index) <= INT32_MAX else np.int64
            tensors = (torch.from_numpy(t.astype(dtype)).to(device) for t in (index, offsets))
            self._sums[key] = (next(tensors), next(tensors))
        return self._sums[key]

    def _count_sums(self, pixels: int) -> tuple[np.ndarray, np.ndarray]:
        places = [len(b.take.groups) for b in self.buckets]
        starts = np.cumsum([0, *places])[:-1] * pixels
        group = np.concatenate([b.take.groups for b in self.buckets])
        real = np.concatenate([b.real_places for b in self.buckets])
        first = np.concatenate([s + np.arange(n) for s, n in zip(starts, places, strict=True)])
        pitch = np.repeat(places, places)
        order = np.argsort(group, kind="stable")
        order = order[real[order]]
        counts = np.bincount(group[order], minlength=self.in_groups)
        pixel = np.arange(pixels)[:, None]
        index = (first[order] + pixel * pitch[order]).reshape(-1)
        offsets = (np.cumsum(counts) - counts + pixel * len(order)).reshape(-1)
        return index, offsets
