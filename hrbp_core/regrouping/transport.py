"""Filters (or channels) to groups of fixed sizes, at the greatest total gain.

A transportation problem with few groups. Prices on the groups bring most indices home;
shortest paths between groups move the rest, exactly. ``scipy.optimize.linear_sum_assignment``
on one column a seat gives the same total, but in 4.5 s at 2048 indices; this takes about 0.1 s.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from hrbp_core.regrouping.problem import Flags, Floats, Integers

EXACT_ROUNDS = 80  # a shortest path costs about three rounds of prices
NEAR_ROUNDS = 12
FAR = np.int64(2**60)


def assign(gains: Integers, seats: Integers, *, exact: bool = True) -> Integers:
    """Return int64 [n]: the group of each index, every group filled to its seats.

    Ties fall to lower group and lower index.

    Args:
        gains: int64 [n, groups].
        seats: int64 [groups], summing to n.
        exact: reach the greatest total gain; otherwise come near it, several times faster.
    """
    groups = gains.shape[1]
    if groups == 1:
        return np.zeros(len(gains), dtype=np.int64)
    chosen, prices = _priced_choice(gains, seats, EXACT_ROUNDS if exact else NEAR_ROUNDS)
    if not exact:
        return _fill(gains - prices, seats, chosen)
    counts = np.bincount(chosen, minlength=groups)
    losses = np.full((groups, groups), FAR)
    movers = np.zeros((groups, groups), dtype=np.int64)
    _update(gains, chosen, losses, movers, list(range(groups)))
    while (counts > seats).any():
        path = _shortest_path(losses, counts > seats, counts < seats)
        moved = [movers[a, b] for a, b in pairwise(path)]
        chosen[moved] = path[1:]
        counts[path[0]] -= 1
        counts[path[-1]] += 1
        _update(gains, chosen, losses, movers, path)
    return chosen


def assign_by_weights(
    parts: Floats, weights: Integers, seats: Integers, *, exact: bool
) -> Integers:
    """Return int64 [n]: the group of each index when group g gains ``parts @ weights[g]``.

    Groups of equal weights are one large group to the assignment, and share its members by
    descending total score: told apart by nothing, they would cost it most of its time.

    Args:
        parts: exact integers [n, m].
        weights: int64 [groups, m].
        seats: int64 [groups], summing to n.
    """
    kinds, kind = np.unique(weights, axis=0, return_inverse=True)
    kind = kind.reshape(-1)  # numpy 2.0 returned it as a column
    gains = (parts @ kinds.T.astype(np.float64)).astype(np.int64)
    chosen = assign(gains, np.bincount(kind, weights=seats).astype(np.int64), exact=exact)
    groups = np.empty(len(chosen), dtype=np.int64)
    members = np.lexsort((-parts.sum(axis=1), chosen))
    by_kind = np.argsort(kind, kind="stable")
    groups[members] = np.repeat(by_kind, seats[by_kind])
    return groups


def _fill(offers: Integers, seats: Integers, chosen: Integers) -> Integers:
    """Return ``chosen`` with those that lose least moved, one by one, to the best free seats."""
    free = seats - np.bincount(chosen, minlength=len(seats))
    while (free < 0).any():
        group = int(free.argmin())
        members, open_groups = np.flatnonzero(chosen == group), np.flatnonzero(free > 0)
        reach = offers[members[:, None], open_groups]
        best = reach.argmax(axis=1)
        loss = offers[members, group] - reach[np.arange(len(members)), best]
        leaving = np.argsort(loss, kind="stable")[: -free[group]]
        for place in leaving:
            target = open_groups[best[place]]
            if free[target] > 0:  # else it waits for the next round
                chosen[members[place]] = target
                free[target] -= 1
                free[group] += 1
    return chosen


def _priced_choice(gains: Integers, seats: Integers, rounds: int) -> tuple[Integers, Integers]:
    """Return (each index's best group, prices): prices bring demand near the seats."""
    count, groups = gains.shape
    by_group = np.ascontiguousarray(gains.T)  # rows sort several times faster than columns
    places, rows = np.arange(count), np.arange(groups)
    last, first = count - seats, np.maximum(count - seats - 1, 0)
    wanted = np.unique([last, first])
    prices = np.zeros(groups, dtype=np.int64)
    fewest, found = count + 1, (np.zeros(count, dtype=np.int64), prices)
    for _ in range(rounds):
        margin = by_group - prices[:, None]
        choice = margin.argmax(axis=0)
        surplus = np.bincount(choice, minlength=groups) - seats
        over = int(np.maximum(surplus, 0).sum())
        if over < fewest:
            fewest, found = over, (choice, prices)
        if over == 0:
            break
        margin -= margin[choice, places]
        margin[choice, places] = -FAR
        margin[choice, places] = -margin.max(axis=0)
        margin.partition(wanted, axis=1)  # a third of a sort's time at 64 groups of 16 and more
        prices = prices + (margin[rows, last] + margin[rows, first]) // 4  # all move: half way
    return found


def _update(
    gains: Integers, chosen: Integers, losses: Integers, movers: Integers, changed: list[int]
) -> None:
    """Refresh, for the changed groups, who leaves to each other group at the least loss."""
    for group in changed:
        members = (chosen == group).nonzero()[0]
        if not len(members):
            losses[group] = FAR
            continue
        part = gains[members]
        loss = part[:, group, None] - part
        best = loss.argmin(axis=0)
        losses[group] = loss.min(axis=0)
        movers[group] = members[best]
        losses[group, group] = FAR


def _shortest_path(losses: Integers, sources: Flags, sinks: Flags) -> list[int]:
    """Return the groups on the path of the least loss from a source to a sink."""
    groups = len(losses)
    far = np.where(sources, 0, FAR)
    parent = np.full(groups, -1)
    places = np.arange(groups)
    while True:
        reach = far[:, None] + losses
        best = reach.argmin(axis=0)
        reach = reach[best, places]
        shorter = reach < far
        if not shorter.any():
            break
        parent[shorter] = best[shorter]
        far = np.minimum(far, reach)
    place = int(np.where(sinks, far, FAR).argmin())
    path = [place]
    while parent[place] >= 0:
        place = int(parent[place])
        path.append(place)
    return path[::-1]
