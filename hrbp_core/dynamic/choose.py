"""Which units a layer drops and which it grows: pure, exact, the same on every machine.

Units stand in a grid [filter groups, channel groups, taps]; a block with all its taps is one
unit, and the last extent is 1. First the smallest kept ones drop, whatever group they are in.
Then as many grow, of all that are not kept any more: those of the greatest total score that
leave every group its limits. This choice exists, since all that dropped may return; units that
do were never away. When free growth breaks a limit, the best choice within the limits is a
transportation problem (:mod:`hrbp_core.regrouping.selection`). Ties fall to lower index.

What balance costs: a group of a balanced side regrows as many as it lost. With both sides
balanced, one dropped unit alone can but return, and two move by an exchange
(a, x), (b, y) -> (a, y), (b, x), or longer ones of this kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hrbp_core.regrouping.problem import Flags, Floats, Limits, quantise
from hrbp_core.regrouping.selection import choose_entries

BALANCES = ("keep", "none", "filters", "both")
# Growth scores sum to 2**44 at most, so that one survivor outweighs all growth, and a path
# through 2**13 groups of survivors stays below what the exchange takes for endless.
SPARE_BITS = 4
SURVIVOR = np.int64(2**45)


@dataclass(frozen=True)
class Rules:
    """What an update leaves as it was.

    Attributes:
        coverage: a group with a unit keeps one, on both sides.
        filters, channels: balanced: no group of this side gets more units than the fullest one
            has, or fewer than the emptiest.
    """

    coverage: bool = True
    filters: bool = False
    channels: bool = False


@dataclass(frozen=True, eq=False)
class Choice:
    """What becomes of a layer's units.

    Attributes:
        kept: bool [Gk, Gc, T], as many as before.
        dropped: how many left; as many came.
        returned: how many were among the smallest and stay, as their growth score says or a limit.
        lifted: how many a limit grew in the place of better ones.
    """

    kept: Flags
    dropped: int
    returned: int
    lifted: int


def drop_count(kept: Flags, fraction: float, allowed: Flags | None = None) -> int:
    """Return the units to drop: ``fraction`` of the kept ones, rounded half up; room permitting."""
    count = int(kept.sum())
    places = kept.size if allowed is None else int((allowed | kept).sum())
    return min(int(fraction * count + 0.5), count, places - count)


def choose(
    kept: Flags,
    magnitudes: Floats,
    growth: Floats,
    count: int,
    rules: Rules,
    allowed: Flags | None = None,
) -> Choice:
    """Return the units to keep after ``count`` of the smallest are dropped, and as many grown.

    Args:
        kept: bool [Gk, Gc, T].
        magnitudes: float [Gk, Gc, T]; read where kept.
        growth: float [Gk, Gc, T], finite and >= 0; read where nothing is kept after the drop.
        count: see ``drop_count``.
        allowed: bool [Gk, Gc, T]: where units may be; None: everywhere.
    """
    survivors = kept & ~_smallest(magnitudes, _droppable(kept, magnitudes, rules), count)
    count = int(kept.sum() - survivors.sum())
    candidates = ~survivors if allowed is None else (allowed | kept) & ~survivors
    free = survivors | _largest(growth, candidates, count)
    limits = limits_of(kept, rules)
    found = free if _within(free, limits) else _best(survivors, candidates, growth, limits)
    return Choice(
        kept=found,
        dropped=int((kept & ~found).sum()),
        returned=int((kept & found & ~survivors).sum()),
        lifted=int((found & ~free).sum()),
    )


def limits_of(kept: Flags, rules: Rules) -> Limits:
    """Return the limits that ``kept`` meets and its successor has to."""
    rows, columns = kept.sum(axis=(1, 2)), kept.sum(axis=(0, 2))
    per_row = np.minimum(rows, 1) if rules.coverage else np.zeros_like(rows)
    per_filter_group = (per_row, int(kept[0].size))
    per_channel_group = (int(rules.coverage and columns.min() > 0), int(kept[:, 0].size))
    if rules.filters:
        per_filter_group = (int(rows.min()), int(rows.max()))  # type: ignore[assignment]
    if rules.channels:
        per_channel_group = (int(columns.min()), int(columns.max()))
    return Limits(int(kept.sum()), per_filter_group, per_channel_group)


def is_balanced(kept: Flags, side: int) -> bool:
    """Return whether groups of ``side`` (0 filters, 1 channels) are as equal as they can be.

    As ``regroup`` balances: counts differ by one block at most, of all its taps.
    """
    counts = kept.sum(axis=(1 - side, 2))
    whole = len(counts) * kept.shape[2]
    least, most = counts.sum() // whole, -(-counts.sum() // whole)
    return bool((counts >= least * kept.shape[2]).all() and (counts <= most * kept.shape[2]).all())


def _droppable(kept: Flags, magnitudes: Floats, rules: Rules) -> Flags:
    """Return the kept units that may drop.

    One limit serves all channel groups. So where some are empty and others must not become it,
    the largest unit of each of those stays.
    """
    columns = kept.sum(axis=(0, 2))
    if not rules.coverage or rules.channels or columns.min() > 0:
        return kept
    may = kept.copy()
    for column in np.flatnonzero(columns):
        held = np.where(kept[:, column], magnitudes[:, column], -np.inf)
        may[:, column].flat[int(held.argmax())] = False
    return may


def _smallest(magnitudes: Floats, among: Flags, count: int) -> Flags:
    return _largest(-magnitudes, among, count)


def _largest(scores: Floats, among: Flags, count: int) -> Flags:
    """Return bool: the ``count`` largest (or all) of ``among``; ties by lower index."""
    places = np.flatnonzero(among)
    order = np.argsort(-scores.reshape(-1)[places], kind="stable")
    found = np.zeros(among.size, dtype=bool)
    found[places[order[:count]]] = True
    return found.reshape(among.shape)


def _within(kept: Flags, limits: Limits) -> bool:
    sides = ((1, 2), limits.per_filter_group), ((0, 2), limits.per_channel_group)
    return all(
        bool((kept.sum(axis=axes) >= least).all() and (kept.sum(axis=axes) <= most).all())
        for axes, (least, most) in sides
    )


def _best(survivors: Flags, candidates: Flags, growth: Floats, limits: Limits) -> Flags:
    """Return the survivors and the candidates of the greatest total growth within ``limits``."""
    scores = quantise(np.where(candidates, growth, 0.0)) >> SPARE_BITS
    scores[survivors] = SURVIVOR
    scores[~(survivors | candidates)] = -SURVIVOR
    return choose_entries(scores, limits)
