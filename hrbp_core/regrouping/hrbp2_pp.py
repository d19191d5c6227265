"""Ours with common taps: two partitions, and in every block the best taps.

From the groups of :mod:`~hrbp_core.regrouping.hrbp2`, entries are chosen, then filters are
assigned to groups given the entries, then channels, until nothing is gained.
"""

from __future__ import annotations

import numpy as np

from hrbp_core.regrouping.common_taps import best_entries
from hrbp_core.regrouping.hrbp2 import hrbp2
from hrbp_core.regrouping.problem import Flags, Grouping, Integers, Problem, one_hot
from hrbp_core.regrouping.transport import assign_by_weights

ROUNDS = 20


def hrbp2_pp(problem: Problem) -> Grouping:
    """Return the best grouping found; free taps are never below hrbp2's whole blocks."""
    start = hrbp2(problem.uncovered)
    best, exact = _with_entries(problem, start.filters, start.channels), False
    for _ in range(ROUNDS):
        filters = _assign(problem, 0, best.channels, best.kept, exact=exact)
        now = _with_entries(problem, filters, best.channels)
        channels = _assign(problem, 1, filters, now.kept.transpose(1, 0, 2), exact=exact)
        now = _with_entries(problem, filters, channels)
        if now.score > best.score:
            best = now
        elif exact:
            break
        else:
            exact = True
    return best


def _with_entries(problem: Problem, filters: Integers, channels: Integers) -> Grouping:
    scores = problem.entry_scores(filters, channels)
    kept = best_entries(problem, scores)
    return Grouping(filters, channels, kept, int(scores[kept].sum()))


def _assign(problem: Problem, side: int, others: Integers, kept: Flags, *, exact: bool) -> Integers:
    """Return the best groups of one side, given the other side's and the entries.

    Args:
        side: 0 for filters, 1 for channels.
        kept: bool [groups, groups of the other side, R * S].
    """
    groups, other_groups, taps = kept.shape
    scores = problem.tap_scores if side == 0 else problem.tap_scores.transpose(1, 0, 2)
    by_tap = np.moveaxis(scores, 2, 0).astype(np.float64) @ one_hot(others, other_groups)
    parts = np.moveaxis(by_tap, 0, 2).reshape(len(scores), other_groups * taps)
    weights = kept.reshape(groups, -1).astype(np.int64)
    return assign_by_weights(parts, weights, problem.seats(side), exact=exact)
