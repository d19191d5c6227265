"""Blocks where they lie: no permutation."""

from __future__ import annotations

import numpy as np

from hrbp_core.regrouping.problem import Grouping, Problem, groups_in_order
from hrbp_core.regrouping.selection import best_blocks


def aligned(problem: Problem) -> Grouping:
    """Return contiguous groups and their best blocks."""
    (k, c), (block_k, block_c) = problem.scores.shape, problem.block
    filters = groups_in_order(np.arange(k), block_k)
    channels = groups_in_order(np.arange(c), block_c)
    return best_blocks(problem, filters, channels)
