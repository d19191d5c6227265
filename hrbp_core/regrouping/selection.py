"""Which blocks to keep once the groups are known: the best choice, exactly.

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
    gk, gc = scores.shape
    least, most = limits.per_channel_group
    if limits.per_filter_group[1] - limits.per_filter_group[0] > 1:
        return repair(scores, limits, _largest(scores, limits.blocks), np.zeros(gc, np.int64))
    prices = np.zeros(gc, dtype=np.int64)
    kept = _largest_by_row(scores, limits.blocks)
    if most - least <= 1 and gk > 1:
        kept, prices = _column_prices(scores, limits, kept)
    return repair(scores, limits, kept, prices)


def thresholds(scores: Integers, limits: Limits) -> Integers:
    """Return int64 [Gk, Gc]: about what a block has to reach to be kept.

    A guide for searches, not a certificate: the coverage limits are left out.
    """
    gk, gc = scores.shape
    prices = np.zeros(gc, dtype=np.int64)
    if limits.per_filter_group[1] - limits.per_filter_group[0] > 1:
        ordered = np.sort(scores, axis=None)[::-1]
        level = (ordered[limits.blocks - 1] + ordered[min(limits.blocks, gk * gc - 1)]) // 2
        return np.full(scores.shape, level)
    if limits.per_channel_group[1] - limits.per_channel_group[0] <= 1 and gk > 1:
        kept = _largest_by_row(scores, limits.blocks)
        _, prices = _column_prices(scores, limits, kept)
    levels = _level(np.sort(scores - prices, axis=1), limits.per_filter_group[1])
    return levels[:, None] + prices


def _largest(scores: Integers, blocks: int) -> Flags:
    kept = np.zeros(scores.size, dtype=bool)
    kept[np.argsort(-scores, axis=None, kind="stable")[:blocks]] = True
    return kept.reshape(scores.shape)


def _largest_by_row(scores: Integers, blocks: int) -> Flags:
    """Return the best choice with row counts that differ by at most one."""
    rows = scores.shape[0]
    each, extra = divmod(blocks, rows)
    order = np.argsort(-scores, axis=1, kind="stable")
    kept = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(kept, order[:, :each], True, axis=1)
    if extra:
        following = np.take_along_axis(scores, order[:, each : each + 1], axis=1)[:, 0]
        best = np.argsort(-following, kind="stable")[:extra]
        kept[best, order[best, each]] = True
    return kept


def _column_prices(scores: Integers, limits: Limits, kept: Flags) -> tuple[Flags, Integers]:
    """Return (kept, prices): the rows' choice when each column costs its price.

    Rows and columns set their levels in turn, until the columns are in balance too.
    """
    least, most = limits.per_channel_group
    prices = np.zeros(scores.shape[1], dtype=np.int64)
    for _ in range(PRICE_ROUNDS):
        counts = kept.sum(axis=0)
        if counts.min() >= least and counts.max() <= most:
            break
        levels = _level(np.sort(scores - prices, axis=1), limits.per_filter_group[1])
        prices = _level(np.sort(scores - levels[:, None], axis=0).T, most)
        kept = _largest_by_row(scores - prices, limits.blocks)
    return kept, prices


def _level(ascending: Integers, count: int) -> Integers:
    """Return the middle between the ``count``-th largest of each row and the next one."""
    width = ascending.shape[1]
    count = min(max(count, 1), width)
    lowest_in = ascending[:, width - count]
    highest_out = ascending[:, width - count - 1] if count < width else lowest_in
    return (lowest_in + highest_out) // 2
