"""Several layers whose channels are tied: one partition wherever two see the same channels.

The layers of a network form a chain or a net: the filters of one are the channels of the next,
and an addition ties many. A partition is then chosen for all layers that see it, by the same
moves as in :mod:`~hrbp_core.regrouping.hrbp2`: given the kept blocks of all layers around it, a
partition is one assignment, whose gains are summed over those layers; given the partitions, each
layer's blocks are chosen exactly. A layer's scores count by its share of them (their total is
one and the same integer), so that no layer outvotes another by the scale of its scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hrbp_core.regrouping.clustered import greedy_clusters
from hrbp_core.regrouping.hrbp2 import band_weights
from hrbp_core.regrouping.net import Net, State
from hrbp_core.regrouping.problem import Integers, groups_in_order, one_hot, random_order
from hrbp_core.regrouping.selection import choose_blocks
from hrbp_core.regrouping.transport import assign_by_weights

ROUNDS = 12
BAND = (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)  # of all blocks of a layer
DRAWS = 1  # random starts


def aligned_net(net: Net) -> State:
    """Return blocks where they lie."""
    return net.state(net.in_place)


def shuffled_net(net: Net, draw: int = 0) -> State:
    """Return random partitions, another one for each ``draw``."""
    seed = net.members[0].problem.seed
    streams = len(net.parts)
    parts = [
        groups_in_order(random_order(part.size, seed, draw * streams + number), part.block)
        for number, part in enumerate(net.parts)
    ]
    return net.state(parts)


def sorted_net(net: Net) -> State:
    """Return indices in descending order of their total score over all layers."""
    return net.state([_by_total(net, number) for number in range(len(net.parts))])


def _by_total(net: Net, number: int) -> Integers:
    part = net.parts[number]
    total = np.zeros(part.size, dtype=np.int64)
    for view in net.views(number):
        scores = net.members[view.member].problem.scores
        total += scores.sum(axis=1 - view.side)[view.indices]
    return groups_in_order(np.argsort(-total, kind="stable"), part.block)


def clustered_net(net: Net) -> State:
    """Return greedy clusters of indices that are strong in the same places."""
    return net.state([_clusters(net, number) for number in range(len(net.parts))])


def _clusters(net: Net, number: int) -> Integers:
    tables = []
    for view in net.views(number):
        problem = net.members[view.member].problem
        count = min(problem.blocks * problem.block[0] * problem.block[1], problem.scores.size)
        place = problem.scores.size - count
        level = max(int(np.partition(problem.scores, place, axis=None)[place]), 1)
        strong = problem.scores >= level
        tables.append((strong if view.side == 0 else strong.T)[view.indices])
    return greedy_clusters(np.concatenate(tables, axis=1), net.parts[number].block)


def hrbp2_net(net: Net) -> State:
    """Return the best state found; never below aligned, sorted or shuffled ones in all."""
    plain = [aligned_net(net), sorted_net(net), shuffled_net(net)]
    starts = [plain[1], *(shuffled_net(net, draw + 1) for draw in range(DRAWS))]
    found = [*plain, clustered_net(net), *(anneal(net, start) for start in starts)]
    best = max(found, key=lambda state: state.score)  # of equal ones the first
    return alternate(net, best)


def anneal(net: Net, start: State, band: Sequence[float] = BAND) -> State:
    """Return the state that a narrowing band of partly kept blocks leads to."""
    parts, scores = list(start.parts), list(start.scores)
    for share in band:
        for number in range(len(parts)):
            weights = {
                n: band_weights(net.members[n].problem, scores[n], share)
                for n in net.followers[number]
            }
            parts, changed = _assign(net, number, parts, scores, weights, exact=False)
            for n, table in changed.items():
                scores[n] = table
    return net.choose(parts, scores)


def alternate(net: Net, start: State, rounds: int = ROUNDS) -> State:
    """Return a state at least as good, after so many rounds or when a round gains nothing.

    Assignments are near the best while that gains, then exact.
    """
    parts, scores, kept = list(start.parts), list(start.scores), list(start.kept)
    exact = False
    for _ in range(rounds):
        gained = False
        for number in range(len(parts)):
            weights = {n: kept[n].astype(np.int64) for n in net.followers[number]}
            moved, changed = _assign(net, number, parts, scores, weights, exact=exact)
            now = {n: choose_blocks(t, net.members[n].problem.limits) for n, t in changed.items()}
            ahead = sum(int(changed[n][k].sum() - scores[n][kept[n]].sum()) for n, k in now.items())
            if ahead > 0:
                parts, gained = moved, True
                for n in now:
                    scores[n], kept[n] = changed[n], now[n]
        if exact and not gained:
            break
        exact = exact or not gained
    return State(parts, scores, kept)


def _assign(
    net: Net,
    number: int,
    parts: list[Integers],
    scores: list[Integers],
    weights: dict[int, Integers],
    *,
    exact: bool,
) -> tuple[list[Integers], dict[int, Integers]]:
    """Return (partitions with the best one in place ``number``, its followers' block scores).

    Args:
        scores: of every member, int64 [Gk, Gc], under ``parts``.
        weights: of each follower, int64 [Gk, Gc]: what each of its blocks counts.
    """
    views, part = net.views(number), net.parts[number]
    gains = [net.gains(view, parts) for view in views]
    counts = [(weights[v.member] if v.side == 0 else weights[v.member].T)[v.groups] for v in views]
    groups = assign_by_weights(
        np.concatenate(gains, axis=1), np.concatenate(counts, axis=1), part.seats, exact=exact
    )
    moved = [groups if place == number else old for place, old in enumerate(parts)]
    rows = one_hot(groups, len(part.seats)).T
    changed: dict[int, Integers] = {}
    for view, gain in zip(views, gains, strict=True):
        # the gains hold the sums already: a whole product took two thirds of all the time
        if sum(v.member == view.member for v in views) > 1:  # both of its sides moved
            changed[view.member] = net.block_scores(view.member, moved)
            continue
        table = (rows @ gain).astype(np.int64)
        fresh = scores[view.member].copy()
        fresh[view.groups if view.side == 0 else (slice(None), view.groups)] = (
            table if view.side == 0 else table.T
        )
        changed[view.member] = fresh
    return moved, changed
