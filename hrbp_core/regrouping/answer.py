"""A method's answer as a BlockPattern: groups numbered, members in order, on the scores' device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hrbp_core.pattern import BlockPattern
from hrbp_core.regrouping.problem import Flags, Grouping, Integers, OneSided, Problem
from hrbp_core.shapes import Pair


def pattern_of(scores: Tensor, problem: Problem, answer: Grouping | OneSided) -> BlockPattern:
    """Return the pattern of a method's answer, on the scores' device."""
    if isinstance(answer, OneSided):
        return _one_sided(scores, problem, answer)
    kept = answer.kept
    blocks = kept if kept.ndim == 2 else kept.sum(axis=2)
    filters = group_table(answer.filters, blocks.sum(1), problem.block[0])
    channels = group_table(answer.channels, blocks.sum(0), problem.block[1])
    return pattern_in_tables(scores, problem.block, kept, filters, channels)


def pattern_in_tables(
    scores: Tensor,
    block: Pair,
    kept: Flags,
    filters: tuple[np.ndarray, Integers],
    channels: tuple[np.ndarray, Integers],
) -> BlockPattern:
    """Return the pattern of ``kept`` blocks or entries, on the scores' device.

    Args:
        filters, channels: (table, the old number of each new group), as ``group_table`` makes them.
    """
    pattern = BlockPattern.from_blocks(
        tuple(scores.shape),
        block,
        torch.from_numpy(filters[0]),
        torch.from_numpy(channels[0]),
        torch.from_numpy(kept[filters[1]][:, channels[1]]),
    )
    return pattern.to(scores.device)


def _one_sided(scores: Tensor, problem: Problem, answer: OneSided) -> BlockPattern:
    """Return the pattern whose channel groups are the kept lists, filter group by filter group."""
    filters, rank = group_table(answer.filters, answer.kept.sum(axis=(1, 2)), problem.block[0])
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


def group_table(groups: Integers, blocks: Integers, block: int) -> tuple[np.ndarray, Integers]:
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
