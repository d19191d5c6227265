"""A method's answer as a BlockPattern: groups numbered, members in order, on the scores' device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hrbp_core.pattern import BlockPattern
from hrbp_core.regrouping.problem import Grouping, Integers, OneSided, Problem


def pattern_of(scores: Tensor, problem: Problem, answer: Grouping | OneSided) -> BlockPattern:
    """Return the pattern of a method's answer, on the scores' device."""
    if isinstance(answer, OneSided):
        return _one_sided(scores, problem, answer)
    kept = answer.kept
    blocks = kept if kept.ndim == 2 else kept.sum(axis=2)
    filters, filter_rank = _group_table(answer.filters, blocks.sum(1), problem.block[0])
    channels, channel_rank = _group_table(answer.channels, blocks.sum(0), problem.block[1])
    pattern = BlockPattern.from_blocks(
        tuple(scores.shape),
        problem.block,
        torch.from_numpy(filters),
        torch.from_numpy(channels),
        torch.from_numpy(kept[filter_rank][:, channel_rank]),
    )
    return pattern.to(scores.device)


def _one_sided(scores: Tensor, problem: Problem, answer: OneSided) -> BlockPattern:
    """Return the pattern whose channel groups are the kept lists, filter group by filter group."""
    filters, rank = _group_table(answer.filters, answer.kept.sum(axis=(1, 2)), problem.block[0])
    places, kept = answer.places[rank], answer.kept[rank]
    lists = np.argwhere(kept.any(axis=2))
    table = np.full((len(lists), problem.block[1]), -1, dtype=np.int32)
    for row, (group, place) in enumerate(lists):
        members = np.flatnonzero(places[group] == place)
        table[row, : len(members)] = members
    number, tap = np.nonzero(kept[lists[:, 0], lists[:, 1]])
    entries = np.stack((lists[number, 0], number, tap), axis=1)
    order = np.lexsort((entries[:, 1], entries[:, 2], entries[:, 0]))
    pattern = BlockPattern(
        tuple(scores.shape),  # type: ignore[arg-type]
        problem.block,
        torch.from_numpy(filters),
        torch.from_numpy(table),
        torch.from_numpy(entries[order]),
    )
    return pattern.to(scores.device)


def _group_table(groups: Integers, blocks: Integers, block: int) -> tuple[np.ndarray, Integers]:
    """Return (int32 [groups, block] padded with -1, the old number of each new group).

    Args:
        groups: the group of each index. blocks: kept blocks, or entries, of each group.
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
