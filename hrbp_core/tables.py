"""The index tables of a pattern: their form, their invariants, where values lie.

Group tables are int32 [groups, block] and pad the end of a group with -1. Entries are int32
[E, 3]: filter group, channel group, tap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hrbp_core.shapes import FilterShape, Pair, block_grid, pair

FORMAT = "hrbp.pattern/1"

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True, eq=False)
class IndexTables:
    """The part of a pattern that is indices: checked on building, compared by content."""

    shape: FilterShape
    block: Pair
    filters: Tensor
    channels: Tensor
    entries: Tensor

    def __post_init__(self) -> None:
        shape = tuple(int(v) for v in self.shape)
        if len(shape) != 4 or min(shape) < 1:
            raise ValueError(f"expected shape as (K, C, R, S), all >= 1, got {self.shape}")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "block", pair(self.block, "block", least=1))
        block_grid(self.shape, self.block)
        for name, width in (
            ("filters", self.block[0]),
            ("channels", self.block[1]),
            ("entries", 3),
        ):
            table = index_table(getattr(self, name), name, width)
            object.__setattr__(self, name, table)
        check_groups(self.filters, "filters", self.shape[0])
        check_groups(self.channels, "channels", self.shape[1])
        if not is_partition(self.filters, self.shape[0]):
            raise ValueError(
                f"expected each of {self.shape[0]} filters in exactly one of "
                f"{-(-self.shape[0] // self.block[0])} groups, and padding in the last one only"
            )
        check_entries(self.entries, self._limits)
        if not self.partitioned:
            check_overlaps(self.entries, self.channels, self.shape[1])

    @property
    def _limits(self) -> tuple[int, int, int]:
        """(filter groups, channel groups, taps)."""
        return self.filters.shape[0], self.channels.shape[0], self.shape[2] * self.shape[3]

    @property
    def device(self) -> torch.device:
        """Where the index tables are."""
        return self.entries.device

    @cached_property
    def partitioned(self) -> bool:
        """True when every channel is in exactly one group and only the last one is padded."""
        return is_partition(self.channels, self.shape[1])

    @cached_property
    def all_taps(self) -> bool:
        """True when every kept block keeps all R * S taps."""
        blocks = torch.unique(self.entries[:, :2], dim=0).shape[0]
        return blocks * self.shape[2] * self.shape[3] == len(self.entries)

    @cached_property
    def twin(self) -> Tensor:
        """int32 [E]: entry numbers sorted by (channel group, tap, filter group), for dgrad."""
        return torch.argsort(sort_keys(self.entries, self._limits, (1, 2, 0))).to(torch.int32)

    @cached_property
    def blocks_per_filter_group(self) -> Tensor:
        """int64 [G]: kept blocks of each filter group."""
        return self._blocks_per(0, self.filters.shape[0])

    @cached_property
    def blocks_per_channel_group(self) -> Tensor:
        """int64 [Hc]: kept blocks of each channel group."""
        return self._blocks_per(1, self.channels.shape[0])

    def _blocks_per(self, column: int, groups: int) -> Tensor:
        blocks = torch.unique(self.entries[:, :2].long(), dim=0)
        return torch.bincount(blocks[:, column], minlength=groups)

    @cached_property
    def dead_filters(self) -> Tensor:
        """int64: filters without a kept weight; none under coverage."""
        members = self.filters[self.blocks_per_filter_group == 0]
        return members[members >= 0].long().sort().values

    @cached_property
    def dead_channels(self) -> Tensor:
        """int64: channels that no filter group keeps; none under coverage."""
        members = self.channels[self.blocks_per_channel_group > 0]
        alive = torch.zeros(self.shape[1], dtype=torch.bool, device=self.device)
        alive[members[members >= 0].long()] = True
        return (~alive).nonzero().view(-1)

    @cached_property
    def is_canonical(self) -> bool:
        """True when the groups are contiguous runs in order: nothing has to be gathered."""
        return torch.equal(
            self.filters, contiguous_groups(self.shape[0], self.block[0], self.device)
        ) and torch.equal(
            self.channels, contiguous_groups(self.shape[1], self.block[1], self.device)
        )

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over shape, block and index tables; the same on every machine."""
        digest = hashlib.sha256(repr((FORMAT, self.shape, self.block)).encode())
        for table in (self.filters, self.channels, self.entries):
            digest.update(table.cpu().contiguous().numpy().astype("<i4").tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IndexTables):
            return NotImplemented
        return self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)


def contiguous_groups(size: int, block: int, device: torch.device | str | None = None) -> Tensor:
    """Return int32 [ceil(size / block), block]: 0, 1, 2, ...; -1 after the last."""
    groups = -(-size // block)
    table = torch.arange(groups * block, dtype=torch.int32, device=device)
    return torch.where(table < size, table, -1).view(groups, block)


def index_table(table: Tensor, name: str, width: int) -> Tensor:
    """Return the table as contiguous int32 [n, width], or raise."""
    if not isinstance(table, Tensor) or table.dtype not in INTEGERS:
        got = table.dtype if isinstance(table, Tensor) else type(table).__name__
        raise TypeError(f"expected {name} as an integer tensor, got {got}")
    if table.dim() != 2 or table.shape[1] != width or not len(table):
        raise ValueError(f"expected {name} as [n >= 1, {width}], got {list(table.shape)}")
    # a copy, so that the caller's later writes stay out; autograd saves it, in any mode
    with torch.inference_mode(False):
        narrow = table.detach().to(torch.int32, copy=True).contiguous()
    if bool((narrow != table).any()):
        raise ValueError(f"expected {name} within int32, got {table.min()} to {table.max()}")
    return narrow


def check_groups(table: Tensor, name: str, size: int) -> None:
    """Refuse indices out of range and groups that are empty or padded before their end."""
    low, high = int(table.min()), int(table.max())
    if high >= size or low < -1:
        raise ValueError(f"expected {name} in [-1, {size}), got {low} to {high}")
    padded = table < 0
    if bool(padded.all(1).any()) or bool((padded[:, :-1] & ~padded[:, 1:]).any()):
        raise ValueError(f"expected each row of {name} to hold an index and pad at its end only")


def is_partition(table: Tensor, size: int) -> bool:
    """Return whether each of ``size`` indices stands once and only the last group is padded."""
    real = table[table >= 0].long()
    return (
        table.shape[0] == -(-size // table.shape[1])
        and real.numel() == size
        and int(torch.bincount(real, minlength=size).max()) == 1
        and not bool((table[:-1] < 0).any())
    )


def check_entries(entries: Tensor, limits: tuple[int, int, int]) -> None:
    """Refuse entries out of range, double or out of order.

    Args:
        limits: (filter groups, channel groups, taps).
    """
    low, high = entries.amin(0).tolist(), entries.amax(0).tolist()
    if min(low) < 0 or any(h >= limit for h, limit in zip(high, limits, strict=True)):
        raise ValueError(
            f"expected entries below (filter groups, channel groups, taps) {limits}, "
            f"got {low} to {high}"
        )
    keys = sort_keys(entries, limits, (0, 2, 1))
    if bool((keys[1:] <= keys[:-1]).any()):
        raise ValueError("expected distinct entries sorted by (filter group, tap, channel group)")


def check_overlaps(entries: Tensor, channels: Tensor, size: int) -> None:
    """Refuse a channel that one filter group would take twice."""
    pairs = torch.unique(entries[:, :2].long(), dim=0)
    taken = channels.long()[pairs[:, 1]]
    keys = (pairs[:, :1] * size + taken)[taken >= 0]
    if torch.unique(keys).numel() != keys.numel():
        raise ValueError("expected no channel twice in one filter group's blocks")


def sort_keys(entries: Tensor, limits: Sequence[int], columns: Sequence[int]) -> Tensor:
    """Return one int64 key an entry that sorts by the given columns."""
    key = torch.zeros(len(entries), dtype=torch.int64, device=entries.device)
    for column in columns:
        key = key * limits[column] + entries[:, column]
    return key


def weight_index(shape: FilterShape, filters: Tensor, channels: Tensor, entries: Tensor) -> Tensor:
    """Return int64 [entries * block_k, block_c]: where each value lies in the flat weight.

    Padding points one past the end, at K*C*R*S.
    """
    k, c, r, s = shape
    block_k, block_c = filters.shape[1], channels.shape[1]
    group, channel, tap = entries.long().unbind(1)
    counts = torch.bincount(group, minlength=filters.shape[0])
    start = torch.cumsum(counts, 0) - counts
    place = torch.arange(len(group), device=entries.device) - start[group]
    lane = torch.arange(block_k, device=entries.device)
    # the row of values that holds (entry, lane): lanes outside, a group's entries inside
    row = (start[group] * block_k)[:, None] + lane * counts[group][:, None] + place[:, None]
    own_filters, own_channels = filters.long()[group], channels.long()[channel]
    flat = (own_filters[:, :, None] * c + own_channels[:, None, :]) * (r * s) + tap[:, None, None]
    real = (own_filters >= 0)[:, :, None] & (own_channels >= 0)[:, None, :]
    flat = torch.where(real, flat, k * c * r * s)
    index = torch.empty((len(entries) * block_k, block_c), dtype=torch.int64, device=flat.device)
    index[row.reshape(-1)] = flat.reshape(-1, block_c)
    return index
