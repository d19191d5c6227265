"""Regrouping as in Chen et al. (ICML 2022), by the rule that their code applies.

Their rule (VITA-Group/Structure-LTH, ``pruning_utils.regroup``), on the rows of an unstructured
mask K x (C * R * S): cut the rows into 8 clusters; sort the columns by how many of the cluster's
rows have them; widen the block, column by column, while some row still has as many non-zeros
outside as two thirds of the width; drop clusters of 16 rows or less; all weights of a block are
then kept, whatever the mask had there. It has no budget: at a mask of density 0.2 it keeps two
to three times that, and where no cluster gives a block it returns the mask as it was. The result
says what it reached (``density``).

Different here: rows are clustered greedily by the places that differ, for their hypergraph
partitioner is a closed program; and a row's outside non-zeros are counted exactly, where their
loop takes off the wrong column.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hrbp_core.mask import WeightMask
from hrbp_core.regrouping.clustered import greedy_clusters
from hrbp_core.regrouping.problem import Flags, Problem
from hrbp_core.regrouping.rivals.columns import strongest

CLUSTERS, WIDTH_OVER_OUTSIDE, FEWEST_ROWS = 8, 1.5, 16


def structure_lth(problem: Problem, scores: Tensor) -> WeightMask:
    """Return what the rule makes of a 0/1 mask, or of the budget's strongest weights."""
    values = np.unique(problem.tap_scores)
    is_mask = len(values) <= 2 and values[0] == 0
    flat = problem.tap_scores.reshape(len(problem.tap_scores), -1)
    kept, groups = regrouped(flat > 0 if is_mask else strongest(problem))
    mask = torch.from_numpy(kept.reshape(tuple(scores.shape))).to(scores.device)
    table = None
    if groups:
        rows = [torch.from_numpy(g.astype(np.int32)) for g in groups]
        table = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
        table = table.to(scores.device)
    return WeightMask("structure_lth", mask, False, table)


def regrouped(mask: Flags) -> tuple[Flags, list[np.ndarray]]:
    """Return (bool [K, columns], the rows of each block); the mask and [] where none is found."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return mask, []
    clusters = greedy_clusters(mask[rows], -(-len(rows) // CLUSTERS))
    kept, groups = np.zeros(mask.shape, dtype=bool), []
    for cluster in range(int(clusters.max()) + 1):
        members = rows[clusters == cluster]
        columns = dense_columns(mask[members])
        if columns is not None and len(members) > FEWEST_ROWS:
            kept[np.ix_(members, columns)] = True
            groups.append(members)
    return (kept, groups) if groups else (mask, [])


def dense_columns(mask: Flags) -> np.ndarray | None:
    """Return the columns of one cluster's block; None when even all but one do not do."""
    order = np.argsort(-mask.sum(axis=0), kind="stable")
    total = mask.sum(axis=1)
    inside = np.cumsum(mask[:, order], axis=1)  # after 1, 2, ... columns
    widths = np.arange(1, mask.shape[1])
    outside = total[:, None] - inside[:, :-1]
    narrow = (widths <= WIDTH_OVER_OUTSIDE * outside).any(axis=0)
    done = np.flatnonzero(~narrow)
    return order[: widths[done[0]]] if len(done) else None
