"""Values that follow their entries from one pattern to the next."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hrbp_core.pattern import BlockPattern
from hrbp_core.tables import sort_keys


def value_rows(pattern: BlockPattern) -> Tensor:
    """Return int64 [E, block_k]: the row of ``values`` of each entry and lane."""
    group = pattern.entries[:, 0].long()
    counts = torch.bincount(group, minlength=len(pattern.filters))
    start = torch.cumsum(counts, 0) - counts
    place = torch.arange(len(group), device=group.device) - start[group]
    lane = torch.arange(pattern.block[0], device=group.device)
    first = start[group] * pattern.block[0] + place
    return first[:, None] + lane * counts[group][:, None]


def source_rows(old: BlockPattern, new: BlockPattern) -> Tensor:
    """Return int64 [rows of values]: the old row that each new one comes from; -1: none, grown.

    Args:
        old, new: patterns with the same groups.
    """
    limits = (len(old.filters), len(old.channels), old.shape[2] * old.shape[3])
    before, after = (sort_keys(p.entries, limits, (0, 2, 1)) for p in (old, new))
    place = torch.searchsorted(before, after).clamp(max=len(before) - 1)
    found = before[place] == after
    rows = torch.where(found[:, None], value_rows(old)[place], -1)
    source = torch.empty_like(rows).reshape(-1)
    source[value_rows(new).reshape(-1)] = rows.reshape(-1)
    return source


@torch.no_grad()
def move_rows(tensor: Tensor, source: Tensor) -> None:
    """Put the rows of ``tensor`` where they belong now, bit for bit; grown ones are zero."""
    moved = tensor[source.clamp(min=0)]
    moved[source < 0] = 0
    tensor.copy_(moved)


def companions(parameter: nn.Parameter, optimizer: torch.optim.Optimizer) -> Iterable[Tensor]:
    """Return what has an element for each of the parameter's: the gradient, optimizer state."""
    found = [] if parameter.grad is None else [parameter.grad]
    for kept in optimizer.state.get(parameter, {}).values():
        if isinstance(kept, Tensor) and kept.shape == parameter.shape:
            found.append(kept)
    return found
