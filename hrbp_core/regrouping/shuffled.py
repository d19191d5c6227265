"""Groups drawn at random: the control for every claim about grouping."""

from __future__ import annotations

from hrbp_core.regrouping.problem import Grouping, Problem, groups_in_order, random_order
from hrbp_core.regrouping.selection import best_blocks


def shuffled(problem: Problem, draw: int = 0) -> Grouping:
    """Return random groups and their best blocks; ``draw`` numbers draws of one seed."""
    (k, c), (block_k, block_c) = problem.scores.shape, problem.block
    filters = groups_in_order(random_order(k, problem.seed, 2 * draw), block_k)
    channels = groups_in_order(random_order(c, problem.seed, 2 * draw + 1), block_c)
    return best_blocks(problem, filters, channels)
