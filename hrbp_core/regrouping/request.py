"""Turns a user's arguments into a :class:`Problem`, or says what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hrbp_core.regrouping.problem import BALANCES, Floats, Problem, quantise
from hrbp_core.shapes import block_grid, least_density, pair


def pose(
    scores: Tensor,
    density: float,
    block: int | Sequence[int],
    *,
    seed: int,
    coverage: bool,
    balance: str,
) -> Problem:
    """Return the problem; arguments and errors are those of ``regroup``."""
    if balance not in BALANCES:
        raise ValueError(f"expected balance as one of {', '.join(BALANCES)}, got {balance!r}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"expected seed as an int, got {type(seed).__name__}")
    if seed < 0:
        raise ValueError(f"expected seed >= 0, got {seed}")
    values = _checked(scores)
    blocks = _budget(values.shape, density, block, coverage=coverage)
    sides = pair(block, "block", least=1)
    kernel_wise = quantise(values).sum(axis=(2, 3))
    return Problem(kernel_wise, sides, blocks, bool(coverage), balance, seed)


def _checked(scores: Tensor) -> Floats:
    """Return the scores as float64 [K, C, R, S]."""
    if not isinstance(scores, Tensor):
        raise TypeError(f"expected scores as a tensor, got {type(scores).__name__}")
    if scores.is_complex():
        raise TypeError(f"expected scores of a real dtype, got {scores.dtype}")
    if scores.dim() != 4 or scores.numel() == 0:
        raise ValueError(f"expected scores [K, C, R, S], all >= 1, got {list(scores.shape)}")
    values = scores.detach().to("cpu").to(torch.float64).numpy()
    for name, wrong in (
        ("NaN", np.isnan(values)),
        ("infinite", np.isinf(values)),
        ("negative", values < 0),
    ):
        if wrong.any():
            first = tuple(int(place) for place in np.argwhere(wrong)[0])
            raise ValueError(
                f"expected scores >= 0 and finite, got {int(wrong.sum())} {name} of "
                f"{values.size}, the first at {first}"
            )
    return values


def _budget(
    shape: Sequence[int], density: float, block: int | Sequence[int], *, coverage: bool
) -> int:
    """Return how many blocks to keep."""
    gk, gc = block_grid(shape, block)
    if not 0 < density <= 1:
        raise ValueError(f"expected density in (0, 1], got {density}")
    least = least_density(shape, block)
    if coverage and density < least:
        raise ValueError(
            f"expected density >= {least:.6g}, the least at which each of {gk} filter groups and "
            f"{gc} channel groups keeps a block, got {density} (coverage=False drops this floor)"
        )
    blocks = round(density * gk * gc)
    if blocks < 1:
        raise ValueError(
            f"expected a density that rounds to 1 block or more, got {density} of {gk * gc} blocks"
        )
    return blocks
