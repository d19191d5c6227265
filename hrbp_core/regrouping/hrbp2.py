"""Ours: one partition of filters and one of channels, found together.

From a start, filters are assigned to groups (exactly, given the kept blocks and the channel
groups), blocks are chosen (exactly), then channels are assigned, and so on until nothing is
gained. Hard choices freeze a bad start early, so random starts anneal first: blocks near the
threshold count by an integer weight that depends on their rank, over a band that narrows, and
assignments need only be near the best. On clustered 256x256 scores (blocks of 16, density 1/8)
annealed starts retain 0.49 of the score, others 0.46 to 0.49. The best of all is polished by
kicks (a tenth shuffled, annealed again in a narrow band), which add about 1 % of that, and by
swaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hrbp_core.regrouping.aligned import aligned
from hrbp_core.regrouping.by_norm import by_norm
from hrbp_core.regrouping.clustered import clustered
from hrbp_core.regrouping.problem import (
    WEIGHT_BITS,
    Grouping,
    Integers,
    Problem,
    one_hot,
    random_order,
)
from hrbp_core.regrouping.selection import best_blocks, thresholds
from hrbp_core.regrouping.shuffled import shuffled
from hrbp_core.regrouping.swaps import swap_pairs
from hrbp_core.regrouping.transport import assign_by_weights

ROUNDS, FIRST_ROUNDS = 20, 3  # the first tell how good a start is
KICK_BAND = (1 / 16, 1 / 32)
BAND = (1 / 2, 1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 16, 1 / 16, 1 / 32)  # of all blocks
MOST_DRAWS, FEWEST_DRAWS = 6, 2  # random starts
MOST_KICKS, KICK_STREAM = 12, 1000  # random streams of their own
LARGE = 2**20  # scores above which aligned is no start of its own: it costs 1 of 11 s at 2**21
WORK = 3 * 2**18  # scores times random starts; also scores times kicks


def hrbp2(problem: Problem) -> Grouping:
    """Return the best grouping found; never below aligned, sorted or shuffled."""
    candidates = _candidates(problem)
    best, bound = next(candidates), _upper_bound(problem)
    while best.score < bound:
        candidate = next(candidates, None)
        if candidate is None:
            return _polish(problem, best)
        if candidate.score > best.score:
            best = candidate
    return best


def _candidates(problem: Problem) -> Iterator[Grouping]:
    """Yield groupings, the plain ones first: of equal ones the first is taken."""
    plain = [aligned(problem), by_norm(problem), shuffled(problem)]
    yield from plain
    grouped = clustered(problem)
    yield grouped
    draws = min(max(WORK // problem.scores.size, FEWEST_DRAWS), MOST_DRAWS)
    starts = [plain[1], *(shuffled(problem, draw) for draw in range(draws))]
    firsts = (grouped, plain[1], plain[0])[: 3 if problem.scores.size <= LARGE else 2]
    found = [alternate(problem, start, FIRST_ROUNDS) for start in firsts]
    found += [anneal(problem, start) for start in starts]
    yield from found
    for start in sorted(found, key=lambda grouping: -grouping.score)[: draws // 2]:
        yield alternate(problem, start)


def _upper_bound(problem: Problem) -> int:
    """Return the score of as many single kernels as the blocks can hold."""
    count = min(problem.blocks * problem.block[0] * problem.block[1], problem.scores.size)
    return int(np.sort(problem.scores, axis=None)[problem.scores.size - count :].sum())


def alternate(problem: Problem, start: Grouping, rounds: int = ROUNDS) -> Grouping:
    """Return a grouping at least as good, after so many rounds or when they gain nothing.

    Assignments are near the best while that gains, then exact.
    """
    best, exact = start, False
    for _ in range(rounds):
        filters = _assign(problem, 0, best.channels, best.kept.astype(np.int64), exact=exact)
        now = best_blocks(problem, filters, best.channels)
        channels = _assign(problem, 1, filters, now.kept.T.astype(np.int64), exact=exact)
        now = best_blocks(problem, filters, channels)
        if now.score > best.score:
            best = now
        elif exact:
            break
        else:
            exact = True
    return best


def anneal(problem: Problem, start: Grouping, band: Sequence[float] = BAND) -> Grouping:
    """Return the grouping that a narrowing band of partly kept blocks leads to."""
    filters, channels = start.filters, start.channels
    for share in band:
        weights = band_weights(problem, problem.block_scores(filters, channels), share)
        filters = _assign(problem, 0, channels, weights, exact=False)
        weights = band_weights(problem, problem.block_scores(filters, channels), share)
        channels = _assign(problem, 1, filters, weights.T, exact=False)
    return best_blocks(problem, filters, channels)


def band_weights(problem: Problem, scores: Integers, share: float) -> Integers:
    """Return int64 [Gk, Gc] from 0 to 2**WEIGHT_BITS: how surely each block is kept.

    It falls linearly with the block's rank, over ``share`` of all blocks to either side of the
    budget.

    Args:
        scores: int64 [Gk, Gc], of the blocks.
    """
    ahead = scores - thresholds(scores, problem.limits)
    rank = np.empty(scores.size, dtype=np.int64)
    rank[np.argsort(-ahead, axis=None, kind="stable")] = np.arange(scores.size)
    band = max(int(share * scores.size), 1)
    weights = np.clip(problem.blocks + band - rank, 0, 2 * band) * 2**WEIGHT_BITS // (2 * band)
    return weights.reshape(scores.shape)


def _assign(
    problem: Problem, side: int, others: Integers, weights: Integers, *, exact: bool
) -> Integers:
    """Return the best groups of one side when block (g, h) counts ``weights[g, h]``.

    Args:
        side: 0 for filters, 1 for channels.
        others: int64, the group of each index of the other side.
        weights: int64 [groups, groups of the other side].
    """
    scores = problem.exact if side == 0 else problem.exact.T
    parts = scores @ one_hot(others, problem.grid[1 - side])
    return assign_by_weights(parts, weights, problem.seats(side), exact=exact)


def _polish(problem: Problem, best: Grouping) -> Grouping:
    """Return ``best`` after kicks, then swaps and alternations while they gain."""
    for number in range(min(WORK // problem.scores.size, MOST_KICKS)):
        kicked = anneal(problem, _kick(problem, best, number), KICK_BAND)
        kicked = alternate(problem, kicked, FIRST_ROUNDS)
        if kicked.score > best.score:
            best = kicked
    for _ in range(ROUNDS):
        swapped = swap_pairs(problem, best)
        if swapped.score <= best.score:
            return best
        best = alternate(problem, swapped)
    return best


def _kick(problem: Problem, grouping: Grouping, number: int) -> Grouping:
    """Return the grouping with a tenth of its filters and channels shuffled."""
    sides = []
    for side, groups in enumerate((grouping.filters, grouping.channels)):
        order = random_order(len(groups), problem.seed, KICK_STREAM + 2 * number + side)
        order = order[: max(len(groups) // 10, 2)]
        moved = groups.copy()
        moved[np.sort(order)] = groups[order]
        sides.append(moved)
    return best_blocks(problem, *sides)
