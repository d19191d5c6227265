"""A start for searches: filters with like strong channels together, and channels likewise."""

from __future__ import annotations

import numpy as np

from hrbp_core.regrouping.problem import Grouping, Integers, Problem
from hrbp_core.regrouping.selection import best_blocks


def clustered(problem: Problem) -> Grouping:
    """Return greedy clusters of the budgeted top scores, and their best blocks.

    Rows are compared by how many of their strong places differ (Hamming), so equal supports
    meet whatever their values, and distances are small exact integers.
    """
    count = min(problem.blocks * problem.block[0] * problem.block[1], problem.scores.size)
    ordered = np.sort(problem.scores, axis=None)
    level = max(int(ordered[problem.scores.size - count]), 1)  # a zero is never strong
    strong = problem.scores >= level
    filters = greedy_clusters(strong, problem.block[0])
    channels = greedy_clusters(strong.T, problem.block[1])
    return best_blocks(problem, filters, channels)


def greedy_clusters(strong: np.ndarray, block: int) -> Integers:
    """Return the group of each row: the strongest row left takes the block - 1 nearest."""
    table = strong.astype(np.float32)  # counts below 2**24: products are exact
    counts = strong.sum(axis=1)
    distance = counts[:, None] + counts - 2 * (table @ table.T).astype(np.int64)
    groups = np.full(len(counts), -1, dtype=np.int64)
    by_count = np.argsort(-counts, kind="stable")
    for group in range(-(-len(counts) // block)):
        free = by_count[groups[by_count] < 0]
        nearest = np.argsort(distance[free[0], free], kind="stable")
        groups[free[nearest[:block]]] = group
    return groups
