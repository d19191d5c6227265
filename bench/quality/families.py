"""Synthetic scores of four kinds, as [K, C, R, S] draws from a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

CLUSTERS = 12


def independent(rng: np.random.Generator, k: int, c: int) -> np.ndarray:
    """Every kernel alike: nothing to find."""
    return np.ones((k, c))


def rank_one(rng: np.random.Generator, k: int, c: int) -> np.ndarray:
    """Filters and channels of different strength: lognormal(0.7) factors of each."""
    return np.outer(rng.lognormal(0, 0.7, k), rng.lognormal(0, 0.7, c))


def clustered(rng: np.random.Generator, k: int, c: int) -> np.ndarray:
    """Rank one, times lognormal(0.8) factors of every two of 12 hidden clusters a side."""
    table = rng.lognormal(0, 0.8, (CLUSTERS, CLUSTERS))
    places = rng.integers(CLUSTERS, size=k), rng.integers(CLUSTERS, size=c)
    return rank_one(rng, k, c) * table[places[0]][:, places[1]]


def heavy_tailed(rng: np.random.Generator, k: int, c: int) -> np.ndarray:
    """Every kernel its own lognormal(1.5) factor: few kernels hold most, anywhere."""
    return rng.lognormal(0, 1.5, (k, c))


FAMILIES: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "independent": independent,
    "rank_one": rank_one,
    "clustered": clustered,
    "heavy_tailed": heavy_tailed,
}


def draw(family: str, shape: Sequence[int], seed: int) -> Tensor:
    """Return float64 [K, C, R, S]: the family's kernel factors times exponential draws."""
    k, c, r, s = shape
    rng = np.random.default_rng((seed, list(FAMILIES).index(family)))
    factors = FAMILIES[family](rng, k, c)
    return torch.from_numpy(factors[:, :, None, None] * rng.exponential(size=(k, c, r, s)))
