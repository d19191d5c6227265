"""HRBP++: each filter group cuts the channels its own way, and each block keeps its best taps.

From one-sided HRBP and from the two-sided ++ grouping, in turns: entries given the lists,
filters given the entries, and each group's channels given its entries. Coverage of single
channels is restored by swaps. Never below either start; with balance "both" it is the better
one, for lists of a group's own would not balance the channels.
"""

from __future__ import annotations

import numpy as np

from hrbp_core.regrouping.common_taps import best_entries, entry_limits
from hrbp_core.regrouping.hrbp import one_sided
from hrbp_core.regrouping.hrbp2 import hrbp2
from hrbp_core.regrouping.hrbp2_pp import hrbp2_pp
from hrbp_core.regrouping.own_channels import as_lists
from hrbp_core.regrouping.problem import (
    Grouping,
    Integers,
    Limits,
    OneSided,
    Problem,
    group_sizes,
    one_hot,
)
from hrbp_core.regrouping.transport import assign_by_weights

ROUNDS = 6


def hrbp_pp(problem: Problem) -> Grouping | OneSided:
    """Return the best grouping found."""
    two_sided = hrbp2_pp(problem)
    start = problem.uncovered
    whole = as_lists(problem, one_sided(start, hrbp2(start)))
    # whole blocks are an answer where taps are free and they cover, else a start
    best: Grouping | OneSided = two_sided
    free = problem.taps is None and problem.whole_blocks_cover
    if free and whole.score > two_sided.score:
        best = whole
    if problem.balance == "both":
        return best
    places = np.broadcast_to(two_sided.channels, whole.places.shape)
    split = OneSided(two_sided.filters, places, two_sided.kept, two_sided.score)
    for lists in (whole, split):
        found = _alternate(problem, lists)
        if found is not None and found.score > best.score:
            best = found
    return best


def _alternate(problem: Problem, start: OneSided) -> OneSided | None:
    """Return the best of some rounds; None when none covers every channel."""
    best, now = None, start
    for _ in range(ROUNDS):
        now = _with_entries(problem, now.filters, now.places)
        now = _own_lists(problem, now)
        if problem.coverage:
            covered = _cover(problem, now)
            if covered is None:
                return best
            now = covered
        if best is not None and now.score <= best.score:
            break
        best = now
        now = OneSided(_filters(problem, now), now.places, now.kept, now.score)
    return best


def _group_scores(problem: Problem, filters: Integers) -> Integers:
    """Return int64 [Gk, C, R * S]."""
    groups = one_hot(filters, problem.grid[0]).T
    flat = groups @ problem.tap_scores.reshape(len(filters), -1).astype(np.float64)
    return flat.astype(np.int64).reshape(len(groups), *problem.tap_scores.shape[1:])


def _list_scores(problem: Problem, scores: Integers, places: Integers) -> Integers:
    """Return int64 [Gk, Gc, R * S]: the score of each entry of each group's own lists."""
    lists = np.zeros((len(scores), problem.grid[1], scores.shape[2]), dtype=np.int64)
    np.add.at(lists, (np.arange(len(scores))[:, None], places), scores)
    return lists


def _with_entries(problem: Problem, filters: Integers, places: Integers) -> OneSided:
    scores = _list_scores(problem, _group_scores(problem, filters), places)
    limits = entry_limits(problem)
    # lists of different groups have nothing in common: only rows are covered here
    open_columns = Limits(limits.blocks, limits.per_filter_group, (0, scores[:, 0].size))
    kept = best_entries(problem, scores, open_columns)
    return OneSided(filters, places, kept, int(scores[kept].sum()))


def _own_lists(problem: Problem, found: OneSided) -> OneSided:
    """Return the lists anew: each group's channels where its entries gain most."""
    scores = _group_scores(problem, found.filters)
    seats = group_sizes(scores.shape[1], problem.block[1])
    places = found.places.copy()
    for group, kept in enumerate(found.kept):
        parts = scores[group].astype(np.float64)
        moved = assign_by_weights(parts, kept.astype(np.int64), seats, exact=False)
        values = scores[group] @ kept.T  # [C, Gc]
        every = np.arange(len(moved))
        if values[every, moved].sum() > values[every, places[group]].sum():
            places[group] = moved
    kept = found.kept
    lists = _list_scores(problem, scores, places)
    return OneSided(found.filters, places, kept, int(lists[kept].sum()))


def _filters(problem: Problem, found: OneSided) -> Integers:
    """Return the filters' best groups, given each group's lists and entries."""
    groups = np.arange(len(found.kept))[:, None]
    weights = found.kept[groups, found.places].reshape(len(found.kept), -1)
    parts = problem.tap_scores.reshape(len(found.filters), -1).astype(np.float64)
    return assign_by_weights(parts, weights.astype(np.int64), problem.seats(0), exact=False)


def _cover(problem: Problem, found: OneSided) -> OneSided | None:
    """Return the lists with every channel in a kept one; None where no swap is left.

    An uncovered channel changes places with one that another group keeps too, where that costs
    least.
    """
    scores, places = _group_scores(problem, found.filters), found.places.copy()
    groups = np.arange(len(scores))[:, None]
    lists = np.asarray(found.kept.any(axis=2))
    held = lists[groups, places]
    for channel in np.flatnonzero(~held.any(axis=0)):
        spare = held & (held.sum(axis=0) > 1)
        if not spare.any():
            return None
        taps = found.kept[groups, places]  # [Gk, C, R * S]: those of each channel's list
        gain = (taps * (scores[:, [channel]] - scores)).sum(axis=2)
        own = found.kept[groups[:, 0], places[:, channel]][:, None]
        gain += (own * (scores - scores[:, [channel]])).sum(axis=2)
        group, other = np.unravel_index(
            np.where(spare, gain, np.iinfo(np.int64).min).argmax(), gain.shape
        )
        pair = [channel, other]
        places[group, pair] = places[group, pair[::-1]]
        held = lists[groups, places]
    score = int(_list_scores(problem, scores, places)[found.kept].sum())
    return OneSided(found.filters, places, found.kept, score)
