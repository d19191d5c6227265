"""A plain grouped convolution of equal FLOPs: contiguous groups, blind to the scores.

At the coverage floor of a square grid every pattern is a permuted one, so this is what a
regrouped pattern has to beat there.
"""

from __future__ import annotations

import numpy as np

from hrbp_core.regrouping.problem import Grouping, Problem, groups_in_order


def grouped(problem: Problem) -> Grouping:
    """Return the block diagonal of as many equal groups as the budget asks for.

    Raises:
        ValueError: no number of groups, dividing both sides of the grid, has this budget.
    """
    gk, gc = problem.grid
    groups = gk * gc // problem.blocks
    if gk * gc != groups * problem.blocks or gk % groups or gc % groups:
        fitting = [n for n in range(1, min(gk, gc) + 1) if gk % n == 0 and gc % n == 0]
        raise ValueError(
            f"expected a density of 1/n for n groups that divide {gk} filter groups and {gc} "
            f"channel groups ({', '.join(f'1/{n}' for n in fitting)}), got {problem.blocks} of "
            f"{gk * gc} blocks"
        )
    (k, c), (block_k, block_c) = problem.scores.shape, problem.block
    filters = groups_in_order(np.arange(k), block_k)
    channels = groups_in_order(np.arange(c), block_c)
    kept = np.kron(np.eye(groups), np.ones((gk // groups, gc // groups))).astype(bool)
    scores = problem.block_scores(filters, channels)
    return Grouping(filters, channels, kept, int(scores[kept].sum()))
