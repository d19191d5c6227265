"""DSB (Jiang et al., NeurIPS 2022): rows by linkage, columns by their norm in a group.

Rows of the unfolded weight matrix are ordered by complete linkage on 1 - cosine and cut into
groups; within a group the columns, sorted by norm, are cut into blocks, and the best blocks
stay. ``dsb`` has the columns (channel, tap); ``dsb_kernel`` does the same with whole kernels,
whose blocks dgrad finds dense.
"""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from torch import Tensor

from hrbp_core.mask import WeightMask
from hrbp_core.regrouping.own_channels import as_lists, own_channels
from hrbp_core.regrouping.problem import Grouping, Integers, OneSided, Problem, groups_in_order
from hrbp_core.regrouping.rivals.columns import column_mask, whole_blocks

COSINE_BITS = 19  # products of two, summed over 2**14 columns, stay below 2**53


def dsb(problem: Problem, scores: Tensor) -> WeightMask:
    """Return the mask of the best blocks of columns (channel, tap) of each group of rows."""
    filters = _linked_groups(problem.tap_scores.reshape(len(problem.tap_scores), -1), problem)
    return column_mask("dsb", problem, scores, filters, whole_blocks(problem, filters))


def dsb_kernel(problem: Problem) -> Grouping | OneSided:
    """Return the same with channels for columns."""
    filters = _linked_groups(problem.scores, problem)
    return as_lists(problem, own_channels(problem, filters))


def _linked_groups(rows: Integers, problem: Problem) -> Integers:
    """Return the group of each row: runs of ``block_k`` in the order of the dendrogram."""
    if len(rows) == 1:
        return np.zeros(1, dtype=np.int64)
    # rounded to integers, so that the products are exact and no matrix library decides a tie
    largest = np.maximum(rows.max(axis=1, keepdims=True), 1)
    scaled = np.rint(rows / largest * 2**COSINE_BITS)
    products = scaled @ scaled.T
    lengths = np.sqrt(np.diagonal(products))
    cosine = products / np.maximum(np.outer(lengths, lengths), 1)
    distance = np.clip(1 - cosine, 0, None)[np.triu_indices(len(rows), 1)]
    order = leaves_list(linkage(distance, method="complete")).astype(np.int64)
    return groups_in_order(order, problem.block[0])
