"""Blocks of single weights: filters clustered by where their strong weights lie.

Rumi et al. (2020) and Chen et al. (2022) cluster the rows of the unfolded weight matrix
K x (C * R * S) by a hypergraph partitioner, and make dense blocks of the columns that a cluster
shares. Their partitioner is a closed program; here the clusters are of equal size and greedy,
by the number of places that differ. The budget is met exactly.
"""

from __future__ import annotations

from torch import Tensor

from hrbp_core.mask import WeightMask
from hrbp_core.regrouping.clustered import greedy_clusters
from hrbp_core.regrouping.problem import Problem
from hrbp_core.regrouping.rivals.columns import column_mask, strongest, whole_blocks


def elementwise(problem: Problem, scores: Tensor) -> WeightMask:
    """Return the mask of the best whole blocks of columns of each cluster."""
    filters = greedy_clusters(strongest(problem), problem.block[0])
    kept = whole_blocks(problem, filters)
    return column_mask("elementwise", problem, scores, filters, kept)
