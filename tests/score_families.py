"""Synthetic scores of three kinds, for tests of regrouping."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CLUSTERS = 12


def family(name: str, k: int, c: int, *, seed: int) -> Tensor:
    """Return float64 [k, c, 1, 1].

    ``independent``: exponential draws. ``rank_one``: these times lognormal(0.7) factors of each
    filter and channel. ``clustered``: that times a 12 x 12 table of lognormal(0.8) factors, one
    for each two hidden clusters.
    """
    rng = np.random.default_rng(seed)
    scores = rng.exponential(size=(k, c))
    if name != "independent":
        scores = scores * rng.lognormal(0, 0.7, (k, 1)) * rng.lognormal(0, 0.7, (1, c))
    if name == "clustered":
        table = rng.lognormal(0, 0.8, (CLUSTERS, CLUSTERS))
        scores = scores * table[rng.integers(CLUSTERS, size=k)][:, rng.integers(CLUSTERS, size=c)]
    return torch.from_numpy(scores)[:, :, None, None]


def hidden_blocks(k: int, c: int, block: int, blocks: int, *, seed: int) -> Tensor:
    """Return a 0/1 mask [k, c, 1, 1] of whole blocks, filters and channels shuffled."""
    rng = np.random.default_rng(seed)
    gk, gc = k // block, c // block
    kept = np.zeros((gk, gc))
    kept[np.arange(max(gk, gc)) % gk, np.arange(max(gk, gc)) % gc] = 1
    empty = np.flatnonzero(kept.ravel() == 0)
    kept.ravel()[rng.permutation(empty)[: blocks - int(kept.sum())]] = 1
    mask = np.kron(kept, np.ones((block, block)))
    mask = mask[rng.permutation(k)][:, rng.permutation(c)]
    return torch.from_numpy(mask)[:, :, None, None]
