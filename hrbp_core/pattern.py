"""Which blocks of a convolution's weight are kept, and how they are stored.

A block is filter group x channel group x taps; both group tables are index lists, so that
aligned blocks, regrouped blocks (HRBP) and blocks with one common set of taps (HRBP++) are
one type.

Storage. ``values`` is a matrix ``[entries * block_k, block_c]``. The entries of one filter
group lie side by side and filters run outside them: the group's part, read as
``[block_k, n * block_c]``, holds for each filter its ``n`` kept segments of ``block_c``
channels, ordered by (tap, channel group). With every block kept this *is* the channels_last
weight ``[K, R, S, C]``, and oneDNN takes a run of groups with equal counts as a view. The
entry-major form ``[entries, block_k, block_c]`` needs a copy a call instead: 1-10 % of the
forward (fp32 and bf16, 3x3, blocks of 32, two cores of a Zen 4 EPYC).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from hrbp_core.shapes import Pair, block_grid, pair
from hrbp_core.tables import FORMAT, IndexTables, contiguous_groups, weight_index

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class BlockPattern(IndexTables):
    """The kept blocks of one weight [K, C, R, S].

    Example: 4 filters and 4 channels, 1x1, blocks of 2, the two diagonal blocks kept::

        filters  = [[0, 1], [2, 3]]      filter groups  [G, block_k]
        channels = [[0, 1], [2, 3]]      channel groups [Hc, block_c]
        entries  = [[0, 0, 0], [1, 1, 0]]   (filter group, channel group, tap)
        mask     = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]

    Attributes:
        shape: (K, C, R, S).
        block: (block_k, block_c).
        filters: int32 [G, block_k]; every filter once; -1 pads the end of a group.
        channels: int32 [Hc, block_c]; -1 pads the end of a group. Groups partition the
            channels (``partitioned``), or overlap when each filter group chose its own.
        entries: int32 [E, 3], sorted by (filter group, tap, channel group); tap = r * S + s.

    Two patterns are equal when all of these are; ``hash`` agrees. Built tensors are never
    written to.

    Raises:
        TypeError: an index table that is not an integer tensor.
        ValueError: any broken invariant, as "expected ..., got ...".
    """

    @classmethod
    def from_blocks(
        cls,
        shape: Sequence[int],
        block: int | Sequence[int],
        filters: Tensor,
        channels: Tensor,
        kept: Tensor,
    ) -> BlockPattern:
        """Return the pattern of ``kept`` blocks.

        Args:
            shape: (K, C, R, S).
            block: (block_k, block_c), or one int for both.
            filters, channels: the group tables.
            kept: bool [G, Hc] for blocks with all taps, or [G, Hc, R * S].
        """
        k, c, r, s = shape
        grid = (filters.shape[0], channels.shape[0])
        if kept.dtype != torch.bool or tuple(kept.shape) not in (grid, (*grid, r * s)):
            raise ValueError(
                f"expected kept as bool {list(grid)} or {[*grid, r * s]}, "
                f"got {kept.dtype} {list(kept.shape)}"
            )
        if kept.dim() == 2:
            kept = kept.unsqueeze(2).expand(*grid, r * s)
        group, tap, channel = kept.transpose(1, 2).nonzero(as_tuple=True)
        entries = torch.stack((group, channel, tap), 1)
        return cls((k, c, r, s), pair(block, "block", least=1), filters, channels, entries)  # type: ignore[arg-type]

    @classmethod
    def dense(cls, shape: Sequence[int], block: int | Sequence[int]) -> BlockPattern:
        """Return the pattern of all blocks, where they lie."""
        gk, gc = block_grid(shape, block)
        block_k, block_c = pair(block, "block", least=1)
        return cls.from_blocks(
            shape,
            block,
            contiguous_groups(shape[0], block_k),
            contiguous_groups(shape[1], block_c),
            torch.ones(gk, gc, dtype=torch.bool),
        )

    @property
    def values_shape(self) -> Pair:
        """(entries * block_k, block_c): the shape of ``values``."""
        return len(self.entries) * self.block[0], self.block[1]

    @cached_property
    def density(self) -> float:
        """Real weights kept / all weights; padding does not count."""
        k, c, r, s = self.shape
        return int((self._weight_index < k * c * r * s).sum()) / (k * c * r * s)

    @property
    def sparsity(self) -> float:
        """1 - density."""
        return 1.0 - self.density

    @property
    def work(self) -> float:
        """Multiply-adds done / dense ones; above ``density`` where blocks are padded."""
        k, c, r, s = self.shape
        return len(self.entries) * self.block[0] * self.block[1] / (k * c * r * s)

    @cached_property
    def _weight_index(self) -> Tensor:
        """int64 [entries * block_k, block_c]: where each value lies in the flat weight.

        Padding points one past the end, at K*C*R*S.
        """
        with torch.inference_mode(False):  # kept, and saved by autograd later
            return weight_index(self.shape, self.filters, self.channels, self.entries)

    def mask(self) -> Tensor:
        """Return bool [K, C, R, S]: True where a weight is kept."""
        k, c, r, s = self.shape
        flat = torch.zeros(k * c * r * s + 1, dtype=torch.bool, device=self.device)
        flat[self._weight_index] = True
        return flat[:-1].view(k, c, r, s)

    def pack(self, weight: Tensor) -> Tensor:
        """Return the kept weights as ``values`` [entries * block_k, block_c].

        Differentiable; padding is zero.

        Args:
            weight: [K, C, R, S], any layout, on the pattern's device.
        """
        if tuple(weight.shape) != self.shape:
            raise ValueError(f"expected weight {list(self.shape)}, got {list(weight.shape)}")
        self._check_device(weight, "weight")
        flat = torch.cat((weight.reshape(-1), weight.new_zeros(1)))
        return flat[self._weight_index]

    def unpack(self, values: Tensor) -> Tensor:
        """Return the dense weight [K, C, R, S] of ``values``, zero where nothing is kept.

        Differentiable; what lies in padding is dropped.
        """
        self.check_values(values)
        k, c, r, s = self.shape
        flat = values.new_zeros(k * c * r * s + 1)
        flat = flat.index_put((self._weight_index.reshape(-1),), values.reshape(-1))
        return flat[:-1].view(k, c, r, s)

    def check_values(self, values: Tensor) -> None:
        """Raise when ``values`` cannot belong to this pattern."""
        if tuple(values.shape) != self.values_shape:
            raise ValueError(
                f"expected values {list(self.values_shape)} (entries * block_k, block_c), "
                f"got {list(values.shape)}"
            )
        if not values.is_floating_point():
            raise TypeError(f"expected values of a floating-point dtype, got {values.dtype}")
        self._check_device(values, "values")

    def _check_device(self, tensor: Tensor, name: str) -> None:
        if tensor.device != self.device:
            raise ValueError(
                f"expected {name} on the pattern's device {self.device}, got {tensor.device}"
            )

    def canonical(self) -> tuple[BlockPattern, Tensor, Tensor]:
        """Return (pattern of contiguous groups, filter order, channel order).

        ``filter_order`` [K] and ``channel_order`` [C] (int64) say which filter and channel
        stands at each place: ``canonical.mask() == mask()[filter_order][:, channel_order]``.
        Groups keep their numbers, so entries and values serve both patterns as they are.

        Raises:
            ValueError: channel groups overlap; no order of the channels makes them contiguous.
        """
        if not self.partitioned:
            raise ValueError("expected channel groups that partition the channels, got overlaps")
        k, c = self.shape[:2]
        filter_order = self.filters.reshape(-1)[:k].long()
        channel_order = self.channels.reshape(-1)[:c].long()
        if self.is_canonical:
            return self, filter_order, channel_order
        tables = (
            contiguous_groups(k, self.block[0], self.device),
            contiguous_groups(c, self.block[1], self.device),
        )
        pattern = BlockPattern(self.shape, self.block, *tables, self.entries)
        return pattern, filter_order, channel_order

    def derived(self, make: Callable[..., T], *args: Hashable) -> T:
        """Return ``make(self, *args)``, worked out once: a pattern never changes."""
        kept = self.__dict__.setdefault("_derived", {})
        if (make, args) not in kept:
            with torch.inference_mode(False):  # kept, and saved by autograd later
                kept[make, args] = make(self, *args)
        return kept[make, args]  # type: ignore[no-any-return]

    def to(self, device: torch.device | str) -> BlockPattern:
        """Return the pattern with its index tables on ``device``."""
        if torch.empty(0, device=device).device == self.device:
            return self
        tables = (t.to(device) for t in (self.filters, self.channels, self.entries))
        return BlockPattern(self.shape, self.block, *tables)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "format": FORMAT,
            "shape": list(self.shape),
            "block": list(self.block),
            "filters": self.filters.tolist(),
            "channels": self.channels.tolist(),
            "entries": self.entries.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BlockPattern:
        """Return the pattern that :meth:`to_dict` wrote."""
        if data.get("format") != FORMAT:
            raise ValueError(f"expected format {FORMAT!r}, got {data.get('format')!r}")
        tables = (
            torch.tensor(data[name], dtype=torch.int32)
            for name in ("filters", "channels", "entries")
        )
        return cls(tuple(data["shape"]), tuple(data["block"]), *tables)

    def __repr__(self) -> str:
        return (
            f"BlockPattern(shape={self.shape}, block={self.block}, "
            f"entries={len(self.entries)}, density={self.density:.4g}, "
            f"partitioned={self.partitioned})"
        )
