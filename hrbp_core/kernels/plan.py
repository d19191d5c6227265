"""A pattern as the CPU's passes see it, and what they keep of it between calls."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np

from hrbp_core.kernels.buckets import KEPT_SIZES, Bucket, Gather, Side, cut_buckets
from hrbp_core.shapes import FilterShape, Pair

Pair2Array = tuple[np.ndarray, np.ndarray]


class Plan:
    """A pattern as the CPU path sees it.

    Args:
        entries: int array [E, 3], sorted by (filter group, tap, channel group).
        shape: (K, C, R, S). block: (block_k, block_c).
    """

    def __init__(self, entries: np.ndarray, shape: FilterShape, block: Pair) -> None:
        self.shape, self.block = shape, block
        self.taps = shape[2] * shape[3]
        self.grid = (-(-shape[0] // block[0]), -(-shape[1] // block[1]))
        self.entry_count = len(entries)
        self.entries = entries
        group, channel, tap = entries.astype(np.int64).T
        counts = np.bincount(group, minlength=self.grid[0])
        starts = np.cumsum(counts) - counts
        # values row of lane 0 of an entry, and how far the next lane's row lies
        self._first = np.full((*self.grid, self.taps), -1, dtype=np.int64)
        self._first[group, channel, tap] = starts[group] * (block[0] - 1) + np.arange(len(group))
        self.pitch = counts
        self._made: dict[Hashable, Any] = {}
        self._lock = Lock()
        self._kept = np.zeros(self.grid, dtype=bool)
        self._kept[group, channel] = True

    def kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what ``make`` returned for this key before; the oldest of a few goes."""
        found = self._made.get(key)
        if found is None:
            found = make()
            with self._lock:  # autograd calls from threads of its own
                # three passes, at the sizes of training and of evaluation
                while len(self._made) >= 4 * KEPT_SIZES:
                    del self._made[next(iter(self._made))]
                self._made[key] = found
        return found

    def value_rows(self, order: np.ndarray) -> Pair2Array:
        """Return (row of ``values`` of lane 0, rows from a lane to the next) of entries."""
        group, channel, tap = self.entries[order].T
        return self._first[group, channel, tap], self.pitch[group]

    @cached_property
    def by_filter(self) -> Side:
        """Buckets of filter groups; weights [rows * block_k, width * block_c] a tap."""
        return self._side(self._kept, self._filter_segments)

    @cached_property
    def by_channel(self) -> Side:
        """Buckets of channel groups; weights [rows * width * block_k, block_c] a tap."""
        return self._side(self._kept.T, self._channel_segments)

    def _side(self, kept: np.ndarray, segments_of: Callable[..., np.ndarray]) -> Side:
        counts = kept.sum(1)
        runs, cost = cut_buckets(counts)
        buckets = []
        for rows in runs:
            width = int(counts[rows].max())
            # stable sort: kept columns first, ascending
            cols = np.argsort(~kept[rows], axis=1, kind="stable")[:, :width]
            real = np.arange(width) < counts[rows][:, None]
            cols = np.where(real, cols, cols[:, :1])
            shared = bool(real.all() and (cols == cols[0]).all())
            take = Gather((cols[0] if shared else cols).reshape(-1), kept.shape[1])
            own = Gather(rows, kept.shape[0])
            segments = segments_of(rows, cols, real, shared).reshape(-1)
            buckets.append(Bucket(rows, cols, real, shared, take, own, segments))
        return Side(buckets, cost, *kept.shape)

    def _value_rows(self, group: np.ndarray, channel: np.ndarray, real: np.ndarray) -> np.ndarray:
        """Return values rows [..., block_k, taps] of blocks; -1 where nothing is stored."""
        lanes = np.arange(self.block[0])[:, None]
        first = self._first[group, channel][..., None, :]
        rows = first + lanes * self.pitch[group][..., None, None]
        return np.where((first >= 0) & real[..., None, None], rows, -1)

    def _filter_segments(
        self, rows: np.ndarray, cols: np.ndarray, real: np.ndarray, shared: bool
    ) -> np.ndarray:
        del shared  # the order [row, lane, tap, column] serves both forms
        index = self._value_rows(np.broadcast_to(rows[:, None], cols.shape), cols, real)
        return np.ascontiguousarray(index.transpose(0, 2, 3, 1))

    def _channel_segments(
        self, rows: np.ndarray, cols: np.ndarray, real: np.ndarray, shared: bool
    ) -> np.ndarray:
        index = self._value_rows(cols, np.broadcast_to(rows[:, None], cols.shape), real)
        # grouped: [row, column, lane, tap]; shared: [column, lane, tap, row]
        return np.ascontiguousarray(index.transpose(1, 2, 3, 0) if shared else index)
