"""What dgrad finds of a mask's blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from hrbp_core import BlockPattern, WeightMask


def dgrad_fill(kept: BlockPattern | WeightMask, block_c: int) -> float | None:
    """Return real weights / weights of the dense blocks that dgrad would have to compute.

    dgrad's matrix has a row for each channel and a column for each (filter, tap). The channels
    that a filter group keeps are cut into runs of ``block_c``, channels of like taps together; a
    run's dense block has every tap that one of its channels keeps. A pattern's blocks are dense
    by construction, so it gives 1 but for padding; None for masks without filter groups.
    """
    if isinstance(kept, BlockPattern):
        real = int(kept.mask().sum())
        return real / (len(kept.entries) * kept.block[0] * kept.block[1])
    if kept.filters is None:
        return None
    work = sum(_work(kept.mask(), row[row >= 0].long(), block_c) for row in kept.filters)
    inside = torch.zeros(kept.shape[0], dtype=torch.bool)
    inside[kept.filters[kept.filters >= 0].long()] = True
    return int(kept.mask()[inside].sum()) / work if work else None


def _work(mask: Tensor, filters: Tensor, block_c: int) -> int:
    """Return the weights of one group's dense blocks."""
    taps = mask[filters].any(0).flatten(1)  # [C, R * S]
    taps = taps[taps.any(1)]
    weights = 2 ** torch.arange(taps.shape[1], dtype=torch.float64)
    order = torch.argsort((taps * weights).sum(1) + taps.sum(1) * 2.0 ** taps.shape[1])
    runs = taps[order].split(block_c)
    return sum(int(run.any(0).sum()) * block_c * len(filters) for run in runs)
