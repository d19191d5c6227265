"""Turns a user's arguments into a :class:`Problem`, or says what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hrbp_core.regrouping.problem import BALANCES, Floats, Problem, quantise
from hrbp_core.shapes import Pair, block_grid, check_taps, least_density, pair


def pose(
    scores: Tensor,
    density: float,
    block: int | Sequence[int],
    *,
    seed: int,
    coverage: bool,
    balance: str,
    taps: int | str | None = None,
    plus_plus: bool = False,
) -> Problem:
    """Return the problem; arguments and errors are those of ``regroup``.

    Args:
        plus_plus: the budget is spent in entries (or weights), which reaches further down.
    """
    if balance not in BALANCES:
        raise ValueError(f"expected balance as one of {', '.join(BALANCES)}, got {balance!r}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"expected seed as an int, got {type(seed).__name__}")
    if seed < 0:
        raise ValueError(f"expected seed >= 0, got {seed}")
    values = _checked(scores)
    count = check_taps(taps, values.shape[2] * values.shape[3])
    floor = (count or "auto") if plus_plus else None
    blocks = _budget(values.shape, density, block, coverage=coverage, taps=floor)
    sides = pair(block, "block", least=1)
    tap_scores = quantise(values).reshape(*values.shape[:2], -1)
    _check_room(values.shape, sides, blocks, count)
    return Problem(tap_scores, sides, blocks, bool(coverage), balance, seed, count)


def _check_room(shape: Sequence[int], block: Pair, blocks: int, taps: int | None) -> None:
    """Refuse taps so few that the budget makes more blocks than there are."""
    (gk, gc), all_taps = block_grid(shape, block), shape[2] * shape[3]
    if taps is not None and -(-blocks * all_taps // taps) > gk * gc:
        least = -(-blocks * all_taps // (gk * gc))
        raise ValueError(
            f"expected taps >= {least}, so that {blocks * all_taps} entries fit {gk * gc} blocks, "
            f"got {taps}"
        )


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
    shape: Sequence[int],
    density: float,
    block: int | Sequence[int],
    *,
    coverage: bool,
    taps: int | str | None,
) -> int:
    """Return how many blocks to keep."""
    gk, gc = block_grid(shape, block)
    if not 0 < density <= 1:
        raise ValueError(f"expected density in (0, 1], got {density}")
    least = least_density(shape, block, taps=taps)
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
