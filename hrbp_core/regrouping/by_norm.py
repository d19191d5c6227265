"""Method ``sorted``: filters and channels in descending order of their scores."""

from __future__ import annotations

import numpy as np

from hrbp_core.regrouping.problem import Grouping, Problem, groups_in_order
from hrbp_core.regrouping.selection import best_blocks


def by_norm(problem: Problem) -> Grouping:
    """Return groups of like totals (the L1 norm of the scores) and their best blocks.

    Equal totals stay in index order.
    """
    block_k, block_c = problem.block
    filters = np.argsort(-problem.scores.sum(axis=1), kind="stable")
    channels = np.argsort(-problem.scores.sum(axis=0), kind="stable")
    return best_blocks(
        problem, groups_in_order(filters, block_k), groups_in_order(channels, block_c)
    )
