"""OVW (Tan et al., NeurIPS 2022): vectors of V filters x 1 column, after clustering the filters.

Filters are clustered into groups of V = block_k by balanced k-means on their strongest weights;
then the vectors of the greatest score stay, each a column (channel, tap) of one group.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from hrbp_core.mask import WeightMask
from hrbp_core.regrouping.problem import (
    Flags,
    Integers,
    Limits,
    Problem,
    groups_in_order,
    random_order,
)
from hrbp_core.regrouping.rivals.columns import column_mask, group_scores, strongest
from hrbp_core.regrouping.selection import choose_entries
from hrbp_core.regrouping.transport import assign

ROUNDS, DRAWS, STREAM = 10, 3, 3000


def ovw(problem: Problem, scores: Tensor) -> WeightMask:
    """Return the mask of the best vectors, of the best of some clusterings."""
    rows = strongest(problem)
    found = [
        _vectors(problem, balanced_means(rows, problem.seats(0), problem.seed, draw))
        for draw in range(DRAWS)
    ]
    filters, kept, _ = max(found, key=lambda f: f[2])  # the first of equal ones
    return column_mask("ovw", problem, scores, filters, kept)


def _vectors(problem: Problem, filters: Integers) -> tuple[Integers, Flags, int]:
    """Return (filters, bool [Gk, C, R * S], score) of the best vectors of some clusters."""
    columns = group_scores(problem, filters)
    groups, channels, taps = columns.shape
    vectors = min(problem.entries * problem.block[1], columns.size)
    least = int(problem.coverage)
    rows = (least, channels * taps)
    if problem.balance == "filters":
        rows = (vectors // groups, -(-vectors // groups))
    kept = choose_entries(columns, Limits(vectors, rows, (least, groups * taps)))
    return filters, kept, int(columns[kept].sum())


def balanced_means(rows: Flags, seats: Integers, seed: int, draw: int = 0) -> Integers:
    """Return the group of each row: k-means with groups of fixed sizes, from a random start.

    Rows are 0/1, so the distance to a mean is, but for the row's own length, what the row shares
    with its group's sum less half that sum's square over the size; scaled to integers.
    """
    points = rows.astype(np.float64)
    groups = groups_in_order(random_order(len(rows), seed, STREAM + draw), int(seats[0]))
    for _ in range(ROUNDS):
        sums = np.zeros((len(seats), points.shape[1]))
        np.add.at(sums, groups, points)
        size = seats.astype(np.float64)
        # 2 * size * <row, sum> - |sum|**2, over size**2: integers over a common multiple
        scale = size.max() ** 2
        gains = (2 * (points @ sums.T) / size - (sums**2).sum(axis=1) / size**2) * scale
        moved = assign(np.rint(gains).astype(np.int64), seats)
        if np.array_equal(moved, groups):
            break
        groups = moved
    return groups
