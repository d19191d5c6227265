"""OVW (Tan et al., NeurIPS 2022): vectors of V filters x 1 column, after clustering the filters.

Filters are clustered into groups of V = block_k by balanced k-means on their strongest weights;
then the vectors of the greatest score stay, each a column (channel, tap) of one group.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from hrbp_core.mask import WeightMask
from hrbp_core.regrouping.problem import Integers, Limits, Problem, groups_in_order, random_order
from hrbp_core.regrouping.rivals.columns import column_mask, group_scores, strongest
from hrbp_core.regrouping.selection import choose_entries
from hrbp_core.regrouping.transport import assign

ROUNDS, STREAM = 10, 3000


def ovw(problem: Problem, scores: Tensor) -> WeightMask:
    """Return the mask of the best vectors."""
    filters = balanced_means(strongest(problem), problem.seats(0), problem.seed)
    columns = group_scores(problem, filters)
    groups, channels, taps = columns.shape
    vectors = min(problem.entries * problem.block[1], columns.size)
    least = int(problem.coverage)
    rows = (least, channels * taps)
    if problem.balance == "filters":
        rows = (vectors // groups, -(-vectors // groups))
    kept = choose_entries(columns, Limits(vectors, rows, (least, groups * taps)))
    return column_mask("ovw", problem, scores, filters, kept)


def balanced_means(rows: np.ndarray, seats: Integers, seed: int) -> Integers:
    """Return the group of each row: k-means with groups of fixed sizes, from a random start.

    Rows are 0/1, so the distance to a mean is, but for the row's own length, what the row shares
    with its group's sum less half that sum's square over the size; scaled to integers.
    """
    points = rows.astype(np.float64)
    groups = groups_in_order(random_order(len(rows), seed, STREAM), int(seats[0]))
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
