"""The index tables of a pattern: their form, their invariants, where values lie.

Group tables are int32 [groups, block] and pad the end of a group with -1. Entries are int32
[E, 3]: filter group, channel group, tap.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hrbp_core.shapes import FilterShape

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


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
