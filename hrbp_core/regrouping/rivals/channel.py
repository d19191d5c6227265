"""Whole input channels or whole filters: the structured lower bound.

The better of the two; the last channel (or filter) keeps its best kernels, so that the budget
is met exactly. What is dropped is dead by design, so coverage does not apply.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hrbp_core.mask import WeightMask
from hrbp_core.regrouping.problem import Flags, Integers, Problem


def channel(problem: Problem, scores: Tensor) -> WeightMask:
    """Return the mask of the strongest channels, or filters, in full."""
    kernels = problem.weights // problem.tap_scores.shape[2]
    choices = [
        _strongest_rows(problem.scores, kernels),
        _strongest_rows(problem.scores.T, kernels).T,
    ]
    best = max(choices, key=lambda kept: int(problem.scores[kept].sum()))
    mask = torch.from_numpy(np.ascontiguousarray(best))[:, :, None, None].expand(scores.shape)
    return WeightMask("channel", mask.clone().to(scores.device), None)


def _strongest_rows(scores: Integers, count: int) -> Flags:
    """Return bool, like ``scores``: whole rows by descending sum, then the best of the next."""
    order = np.argsort(-scores.sum(axis=1), kind="stable")
    kept = np.zeros(scores.shape, dtype=bool)
    whole, left = divmod(count, scores.shape[1])
    kept[order[:whole]] = True
    if left:
        row = order[whole]
        kept[row, np.argsort(-scores[row], kind="stable")[:left]] = True
    return kept
