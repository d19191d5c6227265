"""Scores + density + block -> BlockPattern, by one of several methods.

===========  =============================================================================
``aligned``  blocks where they lie: no permutation
``shuffled`` groups drawn at random: the control for every claim about grouping
``sorted``   filters and channels in descending order of their norms
``hrbp2``    ours: one partition of filters and one of channels, found together
===========  =============================================================================

A method is a function ``Problem -> Grouping`` in its own module. What all share: scores become
integers whose sums are exact (:mod:`~hrbp_core.regrouping.problem`), and the blocks, given the
groups, are the best there are under budget, coverage and balance
(:mod:`~hrbp_core.regrouping.selection`). So the answer is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from hrbp_core.pattern import BlockPattern
from hrbp_core.regrouping.aligned import aligned
from hrbp_core.regrouping.by_norm import by_norm
from hrbp_core.regrouping.hrbp2 import hrbp2
from hrbp_core.regrouping.problem import BALANCES, Grouping, Integers, Problem
from hrbp_core.regrouping.request import pose
from hrbp_core.regrouping.shuffled import shuffled

_METHODS: dict[str, Callable[[Problem], Grouping]] = {
    "aligned": aligned,
    "shuffled": shuffled,
    "sorted": by_norm,
    "hrbp2": hrbp2,
}
METHODS = tuple(_METHODS)

__all__ = ["BALANCES", "METHODS", "regroup"]


def regroup(
    scores: Tensor,
    density: float,
    *,
    method: str = "hrbp2",
    block: int | Sequence[int] = (32, 32),
    seed: int = 0,
    coverage: bool = True,
    balance: str = "none",
) -> BlockPattern:
    """Return the pattern of ``round(density * Gk * Gc)`` all-tap blocks that keeps most score.

    Scores are summed over the taps. Given the groups, the choice of the blocks is optimal for
    the scores as integers (48 bits in all). Groups that lie where they were keep their order;
    others are numbered by descending block count (those of equal counts are then neighbours,
    and the CPU path reads their weights without a copy), then smallest index, a padded group
    last. Members ascend. Of groupings with equal scores the plainest is taken,
    aligned first, so constant scores change no order. Equal arguments give equal patterns on
    every machine.

    Args:
        scores: [K, C, R, S], finite and >= 0, any real dtype, any device; higher is better.
            A mask of 0 and 1 will do.
        density: share of the Gk * Gc blocks to keep, in (0, 1].
        method: one of ``METHODS``.
        block: (block_k, block_c), or one int for both. Where K or C does not divide, one
            group, then the last, is padded with -1.
        seed: >= 0, of the random draws (of shuffled, and of the starts of hrbp2).
        coverage: every filter group and channel group keeps a block.
        balance: "none"; "filters": block counts of the filter groups differ by one at most;
            "both": those of the channel groups too.

    Returns:
        A partitioned pattern with its index tables on the device of ``scores``.

    Raises:
        TypeError: scores that are not a tensor of real numbers; a seed that is not an int.
        ValueError: any other argument out of its range; the message names the range.
    """
    if method not in _METHODS:
        raise ValueError(f"expected method as one of {', '.join(METHODS)}, got {method!r}")
    problem = pose(scores, density, block, seed=seed, coverage=coverage, balance=balance)
    return _pattern(scores, problem, _METHODS[method](problem))


def _pattern(scores: Tensor, problem: Problem, grouping: Grouping) -> BlockPattern:
    """Return the pattern of a method's answer, on the scores' device."""
    kept = grouping.kept
    filters, filter_rank = _group_table(grouping.filters, kept.sum(1), problem.block[0])
    channels, channel_rank = _group_table(grouping.channels, kept.sum(0), problem.block[1])
    pattern = BlockPattern.from_blocks(
        tuple(scores.shape),
        problem.block,
        torch.from_numpy(filters),
        torch.from_numpy(channels),
        torch.from_numpy(kept[filter_rank][:, channel_rank]),
    )
    return pattern.to(scores.device)


def _group_table(groups: Integers, blocks: Integers, block: int) -> tuple[np.ndarray, Integers]:
    """Return (int32 [groups, block] padded with -1, the old number of each new group).

    Args:
        groups: the group of each index. blocks: kept blocks of each group.
    """
    count = len(blocks)
    smallest = np.array([np.flatnonzero(groups == group)[0] for group in range(count)])
    padded = np.bincount(groups, minlength=count) < block
    in_place = bool((np.diff(groups) >= 0).all())
    rank = np.lexsort((smallest, smallest if in_place else -blocks, padded))
    table = np.full((count, block), -1, dtype=np.int32)
    for row, group in enumerate(rank):
        members = np.flatnonzero(groups == group)
        table[row, : len(members)] = members
    return table, rank
