"""Swaps of two filters, or two channels, that let other blocks be kept."""

from __future__ import annotations

import numpy as np

from hrbp_core.regrouping.problem import Floats, Grouping, Integers, Problem, one_hot
from hrbp_core.regrouping.selection import best_blocks, thresholds

MOST_WORK = 2**26  # block scores recomputed a side; above, swaps are left out


def swap_pairs(problem: Problem, grouping: Grouping) -> Grouping:
    """Return the best of ``grouping`` and what swaps of filters, then of channels, make of it.

    Swaps are judged by the excess of block scores over fixed thresholds, then verified by an
    exact choice of the blocks.
    """
    for side in (0, 1):
        (size, other) = problem.scores.shape[side], problem.grid[1 - side]
        if size * size * other <= MOST_WORK:
            grouping = _swap_side(problem, grouping, side)
    return grouping


def _swap_side(problem: Problem, grouping: Grouping, side: int) -> Grouping:
    scores = problem.block_scores(grouping.filters, grouping.channels)
    ahead = (scores - thresholds(scores, problem.limits)).astype(np.float64)
    groups = (grouping.filters, grouping.channels)
    other = one_hot(groups[1 - side], problem.grid[1 - side])
    parts = (problem.exact if side == 0 else problem.exact.T) @ other
    swaps = _best_swaps(ahead if side == 0 else ahead.T, parts, groups[side])
    swaps = _disjoint(swaps, groups[side])
    for count in (len(swaps), 1):
        moved = groups[side].copy()
        for _, first, second in swaps[:count]:
            moved[[first, second]] = moved[[second, first]]
        sides = (moved, groups[1]) if side == 0 else (groups[0], moved)
        swapped = best_blocks(problem, *sides)
        if swapped.score > grouping.score:
            return swapped
    return grouping


def _best_swaps(ahead: Floats, parts: Floats, groups: Integers) -> list[tuple[int, int, int]]:
    """Return (gain, first, second), best first: the best gaining swap of each two groups.

    Args:
        ahead: exact integers [G, H], block scores less thresholds.
        parts: exact integers [n, H], what each index adds to each block of its group.
        groups: int64 [n].
    """
    swaps = []
    value = np.maximum(ahead, 0).sum(axis=1)
    by_group = np.argsort(groups, kind="stable")
    start = np.searchsorted(groups[by_group], np.arange(len(ahead) + 1))
    for group in range(len(ahead) - 1):
        firsts, others = by_group[start[group] : start[group + 1]], by_group[start[group + 1] :]
        change = parts[others] - parts[firsts][:, None]
        gain = np.maximum(ahead[group] + change, 0).sum(axis=2) - value[group]
        gain += np.maximum(ahead[groups[others]] - change, 0).sum(axis=2) - value[groups[others]]
        for theirs in range(group + 1, len(ahead)):
            low, high = start[theirs : theirs + 2] - start[group + 1]
            row, column = np.unravel_index(gain[:, low:high].argmax(), (len(firsts), high - low))
            if gain[row, low + column] > 0:
                best = gain[row, low + column], firsts[row], others[low + column]
                swaps.append((int(best[0]), int(best[1]), int(best[2])))
    return sorted(swaps, key=lambda swap: (-swap[0], swap[1], swap[2]))


def _disjoint(swaps: list[tuple[int, int, int]], groups: Integers) -> list[tuple[int, int, int]]:
    """Return the swaps whose groups no better one has changed: their gains add up."""
    changed: set[int] = set()
    chosen = []
    for swap in swaps:
        pair = {int(groups[swap[1]]), int(groups[swap[2]])}
        if not pair & changed:
            changed |= pair
            chosen.append(swap)
    return chosen
