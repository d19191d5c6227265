"""Transposable 2:4 (Hubara et al., NeurIPS 2021): a mask for the accuracy axis.

In every 4 filters x 4 channels, at every tap, each row and each column keeps exactly two
weights: so both the forward's and dgrad's matrix are 2:4. Of the 90 such patterns each tile
takes the best, exactly. The density is one half and nothing else.
"""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import torch
from torch import Tensor

from hrbp_core.mask import WeightMask
from hrbp_core.regrouping.problem import Problem

_ROWS = [np.isin(np.arange(4), pair) for pair in combinations(range(4), 2)]
TILES = np.array(
    [t for t in (np.array(rows) for rows in product(_ROWS, repeat=4)) if (t.sum(0) == 2).all()]
)  # bool [90, 4, 4]


def two_four(problem: Problem, scores: Tensor) -> WeightMask:
    """Return the best transposable 2:4 mask.

    Raises:
        ValueError: a budget other than half of the weights; filters or channels that are not
            multiples of 4.
    """
    k, c, taps = problem.tap_scores.shape
    if k % 4 or c % 4:
        raise ValueError(f"expected filters and channels in multiples of 4, got {k} and {c}")
    if 2 * problem.weights != k * c * taps:
        raise ValueError(
            f"expected density 0.5 with two_four, got a budget of {problem.weights} of "
            f"{k * c * taps} weights"
        )
    tiles = problem.tap_scores.reshape(k // 4, 4, c // 4, 4, taps).transpose(0, 2, 4, 1, 3)
    sums = tiles.reshape(-1, 16).astype(np.float64) @ TILES.reshape(-1, 16).T.astype(np.float64)
    best = TILES[sums.argmax(axis=1)].reshape(tiles.shape)
    kept = best.transpose(0, 3, 1, 4, 2).reshape(tuple(scores.shape))
    return WeightMask("two_four", torch.from_numpy(kept.copy()).to(scores.device), None)
