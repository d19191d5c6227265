"""HRBP in our reading: filters in groups by kernel-wise scores, channels chosen by each group.

Ma et al., CPAL 2024, regroup the kernel-wise mask (out channels x in channels) by clustering
its rows; a group's dense blocks then hold whole kernels, so that dgrad finds them dense too.
Which clustering they use is not published as code. Here filters are assigned to groups exactly,
given each group's channels, and channels are chosen exactly, given the groups, in turns, from
the two-sided grouping and other starts; it is never below the two-sided one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hrbp_core.regrouping.by_norm import by_norm
from hrbp_core.regrouping.clustered import clustered
from hrbp_core.regrouping.hrbp2 import hrbp2
from hrbp_core.regrouping.own_channels import OwnChannels, as_lists, own_channels
from hrbp_core.regrouping.problem import (
    WEIGHT_BITS,
    Grouping,
    Integers,
    OneSided,
    Problem,
    random_order,
)
from hrbp_core.regrouping.shuffled import shuffled
from hrbp_core.regrouping.transport import assign_by_weights

ROUNDS, FIRST_ROUNDS = 20, 4
BAND = (1 / 2, 1 / 4, 1 / 8, 1 / 16)  # of all channels
KICK_BAND = (1 / 16,)
MOST_EXACT = 2**18  # scores; the exact rounds at the end cost about 0.3 s each there
WORK = 3 * 2**18  # scores times kicks
MOST_DRAWS, MOST_KICKS, KICK_STREAM = 2, 12, 2000


def hrbp(problem: Problem) -> Grouping | OneSided:
    """Return the best one-sided grouping found, or the two-sided one when that is as good."""
    two_sided = hrbp2(problem)
    found = one_sided(problem, two_sided)
    return two_sided if found.score <= two_sided.score else as_lists(problem, found)


def one_sided(problem: Problem, two_sided: Grouping) -> OwnChannels:
    """Return the best groups and channels found from ``two_sided`` and other starts."""
    best = own_channels(problem, two_sided.filters, two_sided.kept.sum(axis=1))
    for start in _starts(problem, best):
        found = alternate(problem, start, FIRST_ROUNDS)
        best = found if found.score > best.score else best
    for number in range(min(WORK // problem.scores.size, MOST_KICKS)):
        kicked = anneal(problem, _kick(problem, best, number), KICK_BAND)
        kicked = alternate(problem, kicked, FIRST_ROUNDS)
        best = kicked if kicked.score > best.score else best
    best = alternate(problem, best, ROUNDS)
    last = own_channels(problem, best.filters)
    best = last if last.score > best.score else best
    if problem.scores.size > MOST_EXACT:
        return best
    return alternate(problem, best, FIRST_ROUNDS, exact=True)


def _starts(problem: Problem, first: OwnChannels) -> Iterator[OwnChannels]:
    yield first
    yield own_channels(problem, clustered(problem).filters, exact=False)
    plain = own_channels(problem, by_norm(problem).filters, exact=False)
    yield plain
    yield anneal(problem, plain, BAND)
    for draw in range(MOST_DRAWS):
        yield anneal(
            problem, own_channels(problem, shuffled(problem, draw).filters, exact=False), BAND
        )


def alternate(
    problem: Problem, start: OwnChannels, rounds: int, *, exact: bool = False
) -> OwnChannels:
    """Return groups at least as good, after so many rounds or when they gain nothing.

    Assignments are near the best while that gains, then exact. ``exact`` is of the channels.
    """
    best, near = start, not exact
    for _ in range(rounds):
        weights = best.chosen.astype(np.int64)
        filters = assign_by_weights(problem.exact, weights, problem.seats(0), exact=not near)
        now = own_channels(problem, filters, exact=exact)
        if now.score > best.score:
            best = now
        elif near:
            near = False
        else:
            break
    return best


def anneal(problem: Problem, start: OwnChannels, band: tuple[float, ...]) -> OwnChannels:
    """Return the groups that a narrowing band of partly chosen channels leads to.

    A channel counts by an integer that falls with its rank in its group, over ``band`` of all
    channels to either side of the last one chosen.
    """
    now = start
    for share in band:
        groups = np.zeros((len(now.blocks), len(now.filters)))
        groups[now.filters, np.arange(len(now.filters))] = 1.0
        scores = groups @ problem.exact
        rank = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable")
        width = max(int(share * scores.shape[1]), 1)
        ahead = now.chosen.sum(axis=1)[:, None] + width - rank
        weights = np.clip(ahead, 0, 2 * width) * 2**WEIGHT_BITS // (2 * width)
        filters = assign_by_weights(problem.exact, weights, problem.seats(0), exact=False)
        now = own_channels(problem, filters, exact=False)
    return now


def _kick(problem: Problem, found: OwnChannels, number: int) -> OwnChannels:
    """Return the groups with a tenth of the filters shuffled."""
    order: Integers = random_order(len(found.filters), problem.seed, KICK_STREAM + number)
    order = order[: max(len(order) // 10, 2)]
    moved = found.filters.copy()
    moved[np.sort(order)] = found.filters[order]
    return own_channels(problem, moved, exact=False)
