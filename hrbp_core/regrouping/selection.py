"""Which blocks, or entries, to keep once the groups are known: the best choice, exactly.

Keeping blocks under counts in all, a row and a column is a transportation problem, totally
unimodular. Prices make a start that is optimal for the limits it already meets;
:mod:`hrbp_core.regrouping.exchange` moves it to the others along shortest paths. All integers,
ties by lower index: the same choice everywhere.
"""

from __future__ import annotations

import numpy as np

from hrbp_core.regrouping.exchange import repair
from hrbp_core.regrouping.problem import Flags, Grouping, Integers, Limits, Problem

PRICE_ROUNDS = 20  # most are in balance, or stuck and repaired, before


def best_blocks(problem: Problem, filters: Integers, channels: Integers) -> Grouping:
    """Return the best grouping with these groups (a group number an index)."""
    scores = problem.block_scores(filters, channels)
    kept = choose_blocks(scores, problem.limits)
    return Grouping(filters, channels, kept, int(scores[kept].sum()))


def choose_blocks(scores: Integers, limits: Limits) -> Flags:
    """Return bool [Gk, Gc]: the blocks of the greatest total score within ``limits``.

    Of equal totals one is taken by block index, the same on every machine.

    Args:
        scores: int64 [Gk, Gc].
        limits: must be feasible.
    """
    return choose_entries(scores[:, :, None], limits)[:, :, 0]


def choose_entries(scores: Integers, limits: Limits) -> Flags:
    """Return bool [Gk, Gc, taps]: the entries of the greatest total score within ``limits``.

    Args:
        scores: int64 [Gk, Gc, taps].
        limits: must be feasible; counts of entries.
    """
    prices = np.zeros(scores.shape[1], dtype=np.int64)
    if limits.rows_are_open:
        return repair(scores, limits, _largest(scores, limits.blocks), prices)
    least, most = limits.per_channel_group
    kept = _largest_by_row(scores, limits)
    if most - least <= 1 and len(scores) > 1:
        kept, prices = _column_prices(scores, limits, kept)
    return repair(scores, limits, kept, prices)


def thresholds(scores: Integers, limits: Limits) -> Integers:
    """Return int64 [Gk, Gc]: about what a block has to reach to be kept.

    A guide for searches, not a certificate: the coverage limits are left out.
    """
    gk, gc = scores.shape
    prices = np.zeros(gc, dtype=np.int64)
    if limits.rows_are_open:
        ordered = np.sort(scores, axis=None)[::-1]
        level = (ordered[limits.blocks - 1] + ordered[min(limits.blocks, gk * gc - 1)]) // 2
        return np.full(scores.shape, level)
    if limits.per_channel_group[1] - limits.per_channel_group[0] <= 1 and gk > 1:
        tapwise = scores[:, :, None]
        _, prices = _column_prices(tapwise, limits, _largest_by_row(tapwise, limits))
    levels = _level(np.sort(scores - prices, axis=1), limits.per_filter_group[1])
    return levels[:, None] + prices


def _largest(scores: Integers, blocks: int) -> Flags:
    kept = np.zeros(scores.size, dtype=bool)
    kept[np.argsort(-scores, axis=None, kind="stable")[:blocks]] = True
    return kept.reshape(scores.shape)


def _largest_by_row(scores: Integers, limits: Limits) -> Flags:
    """Return the best choice whose row counts keep to their limits, whatever the columns get."""
    rows = len(scores)
    flat = scores.reshape(rows, -1)
    least = np.broadcast_to(limits.per_filter_group[0], rows)
    most = np.broadcast_to(limits.per_filter_group[1], rows)
    order = np.argsort(-flat, axis=1, kind="stable")
    ranks = np.arange(flat.shape[1])
    kept = ranks < least[:, None]
    left = limits.blocks - int(least.sum())
    if left:
        ordered = np.take_along_axis(flat, order, axis=1)
        # entries between the two limits, the largest first; in a row they descend
        row, rank = np.nonzero((ranks >= least[:, None]) & (ranks < most[:, None]))
        best = np.argsort(-ordered[row, rank], kind="stable")[:left]
        kept[row[best], rank[best]] = True
    chosen = np.zeros(flat.shape, dtype=bool)
    np.put_along_axis(chosen, order, kept, axis=1)
    return chosen.reshape(scores.shape)


def _column_prices(scores: Integers, limits: Limits, kept: Flags) -> tuple[Flags, Integers]:
    """Return (kept, prices): the rows' choice when each column's entries cost its price.

    Rows and columns set their levels in turn, until the columns are in balance too.
    """
    (rows, columns, _), (least, most) = scores.shape, limits.per_channel_group
    prices = np.zeros(columns, dtype=np.int64)
    for _ in range(PRICE_ROUNDS):
        counts = kept.sum(axis=(0, 2))
        if counts.min() >= least and counts.max() <= most:
            break
        priced = (scores - prices[:, None]).reshape(rows, -1)
        levels = _level(np.sort(priced, axis=1), limits.per_filter_group[1])
        offers = (scores - levels[:, None, None]).transpose(1, 0, 2).reshape(columns, -1)
        prices = _level(np.sort(offers, axis=1), most)
        kept = _largest_by_row(scores - prices[:, None], limits)
    return kept, prices


def _level(ascending: Integers, count: int | Integers) -> Integers:
    """Return the middle between the ``count``-th largest of each row and the next one."""
    rows, width = ascending.shape
    counts = np.broadcast_to(np.clip(count, 1, width), rows)
    places = np.arange(rows)
    lowest_in = ascending[places, width - counts]
    highest_out = ascending[places, np.maximum(width - counts - 1, 0)]
    return np.where(counts < width, (lowest_in + highest_out) // 2, lowest_in)
