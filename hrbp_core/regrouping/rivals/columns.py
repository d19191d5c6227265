"""What the rivals share: filter groups that keep columns (channel, tap) of the weight matrix.

A filter group's dense block in the forward is its filters x its columns. In dgrad the same
weights are rows of channels; they are dense only where all channels of a block keep the same
taps, which nothing here asks for.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hrbp_core.mask import WeightMask
from hrbp_core.regrouping.own_channels import blocks_per_group
from hrbp_core.regrouping.problem import Flags, Integers, Limits, Problem, group_sizes, one_hot
from hrbp_core.regrouping.selection import choose_entries


def strongest(problem: Problem) -> Flags:
    """Return bool [K, C * R * S]: the budget's strongest weights; ties by lower index.

    A weight of no score is never strong.
    """
    flat = problem.tap_scores.reshape(-1)
    strong = np.zeros(flat.size, dtype=bool)
    strong[np.argsort(-flat, kind="stable")[: problem.weights]] = True
    return (strong & (flat > 0)).reshape(len(problem.tap_scores), -1)


def group_scores(problem: Problem, filters: Integers) -> Integers:
    """Return int64 [Gk, C, R * S]: the score of each column of each filter group."""
    flat = problem.tap_scores.reshape(len(filters), -1).astype(np.float64)
    sums = one_hot(filters, problem.grid[0]).T @ flat
    return sums.astype(np.int64).reshape(-1, *problem.tap_scores.shape[1:])


def whole_blocks(problem: Problem, filters: Integers) -> Flags:
    """Return bool [Gk, C, R * S]: columns in whole blocks of ``block_c`` for each filter group."""
    scores = group_scores(problem, filters)
    flat = scores.reshape(len(scores), -1)
    blocks = blocks_per_group(flat, problem, problem.entries)
    kept = np.minimum(blocks * problem.block[1], flat.shape[1])
    least = int(problem.coverage)
    limits = Limits(int(kept.sum()), (kept, kept), (least, scores[:, 0].size))
    return choose_entries(scores, limits)


def column_mask(
    method: str, problem: Problem, like: Tensor, filters: Integers, kept: Flags
) -> WeightMask:
    """Return the mask of ``kept`` [Gk, C, R * S] columns of the groups ``filters`` [K]."""
    mask = kept[filters].reshape(tuple(like.shape))
    sizes = group_sizes(len(filters), problem.block[0])
    table = np.full((len(sizes), problem.block[0]), -1, dtype=np.int32)
    for group in range(len(sizes)):
        members = np.flatnonzero(filters == group)
        table[group, : len(members)] = members
    tables = (torch.from_numpy(t).to(like.device) for t in (mask, table))
    return WeightMask(method, next(tables), False, next(tables))
