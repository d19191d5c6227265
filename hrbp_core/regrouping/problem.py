"""The question every regrouping method answers, and the form of its answer.

Scores are integers here, small enough that every sum in a method is exact in float64 and
int64 alike. So no thread count, matrix library or machine can decide a tie.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrbp_core.shapes import Pair

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

BALANCES = ("none", "filters", "both")
TOTAL_BITS = 48  # all scores of a layer sum to about 2**48 at most
WEIGHT_BITS = 4  # a method may weigh them by integers up to 2**4: sums stay below 2**53


@dataclass(frozen=True, eq=False)
class Problem:
    """Scores of one layer and what is wanted of its blocks.

    Attributes:
        tap_scores: int64 [K, C, R * S], from :func:`quantise`.
        block: (block_k, block_c).
        blocks: the budget, exactly: so many blocks of all taps, or as many entries.
        coverage: every filter group and every channel group keeps a block.
        balance: one of ``BALANCES``.
        seed: of everything random.
        taps: of each block of a ++ method; None: as many as are best.
    """

    tap_scores: Integers
    block: Pair
    blocks: int
    coverage: bool
    balance: str
    seed: int
    taps: int | None = None

    @cached_property
    def scores(self) -> Integers:
        """int64 [K, C]: kernel-wise, summed over the taps."""
        return self.tap_scores.sum(axis=2)  # type: ignore[no-any-return]

    @property
    def entries(self) -> int:
        """The budget in entries: blocks * R * S."""
        return self.blocks * self.tap_scores.shape[2]

    @property
    def weights(self) -> int:
        """The budget in weights, for methods without blocks; no more than there are."""
        return min(self.entries * self.block[0] * self.block[1], self.tap_scores.size)

    @property
    def grid(self) -> Pair:
        """(filter groups, channel groups)."""
        (k, c), (block_k, block_c) = self.scores.shape, self.block
        return -(-k // block_k), -(-c // block_c)

    @property
    def whole_blocks_cover(self) -> bool:
        """True unless coverage asks for more groups than the budget has blocks of all taps."""
        return not self.coverage or self.blocks >= max(self.grid)

    @property
    def uncovered(self) -> Problem:
        """The problem without coverage where whole blocks cannot cover: a start for ++ methods."""
        return self if self.whole_blocks_cover else replace(self, coverage=False)

    @property
    def limits(self) -> Limits:
        """The least and most blocks of each group."""
        return Limits.of(self.grid, self.blocks, coverage=self.coverage, balance=self.balance)

    @cached_property
    def exact(self) -> Floats:
        """``scores`` as float64, for matrix products; every product is exact."""
        return self.scores.astype(np.float64)

    def seats(self, side: int) -> Integers:
        """Return int64 [groups]: the size of each group of side 0 (filters) or 1 (channels)."""
        return group_sizes(self.scores.shape[side], self.block[side])

    def block_scores(self, filters: Integers, channels: Integers) -> Integers:
        """Return int64 [Gk, Gc]: the score of each block, from a group number an index."""
        gk, gc = self.grid
        sums = one_hot(filters, gk).T @ self.exact @ one_hot(channels, gc)
        return sums.astype(np.int64)

    def entry_scores(self, filters: Integers, channels: Integers) -> Integers:
        """Return int64 [Gk, Gc, R * S]: the score of each entry."""
        gk, gc = self.grid
        rows, columns = one_hot(filters, gk).T, one_hot(channels, gc)
        taps = np.moveaxis(self.tap_scores, 2, 0).astype(np.float64)
        return np.moveaxis(rows @ taps @ columns, 0, 2).astype(np.int64)


@dataclass(frozen=True)
class Limits:
    """How many blocks (or entries) to keep in all, in each filter group and channel group.

    ``per_filter_group`` is (least, most) of every group, as ints or int64 [Gk].
    """

    blocks: int
    per_filter_group: tuple[Any, Any]
    per_channel_group: Pair

    @classmethod
    def of(cls, grid: Pair, blocks: int, *, coverage: bool, balance: str, taps: int = 1) -> Limits:
        """Return the limits of a grid (filter groups, channel groups).

        Args:
            taps: entries that a block may hold; with more than one, entries are counted, and
                balanced groups hold as many as all-tap blocks would.
        """
        gk, gc = grid
        least = 1 if coverage else 0
        rows, columns = (least, gc * taps), (least, gk * taps)
        if balance != "none":
            rows = _balanced(blocks, gk, taps, least)
        if balance == "both":
            columns = _balanced(blocks, gc, taps, least)
        return cls(blocks, rows, columns)

    @property
    def rows_are_open(self) -> bool:
        """True when filter groups may differ by more than one."""
        least, most = self.per_filter_group
        return bool(np.max(np.asarray(most) - least) > 1)


def _balanced(entries: int, groups: int, taps: int, least: int) -> Pair:
    whole = groups * taps  # entries that one block more in every group takes
    return max(entries // whole * taps, least), -(-entries // whole) * taps


@dataclass(frozen=True, eq=False)
class Grouping:
    """The answer of a method with one partition of the channels.

    Attributes:
        filters: int64 [K], the group of each filter.
        channels: int64 [C], the group of each channel.
        kept: bool [Gk, Gc], blocks of all taps; or bool [Gk, Gc, R * S], entries.
        score: what they hold, exactly.
    """

    filters: Integers
    channels: Integers
    kept: Flags
    score: int


@dataclass(frozen=True, eq=False)
class OneSided:
    """The answer of a method in which each filter group cuts the channels its own way.

    Attributes:
        filters: int64 [K], the group of each filter.
        places: int64 [Gk, C], the list of each channel in each filter group.
        kept: bool [Gk, Gc, R * S]: which entries of a group's lists are kept.
        score: what they hold, exactly.
    """

    filters: Integers
    places: Integers
    kept: Flags
    score: int


def one_hot(groups: Integers, count: int) -> Floats:
    """Return float64 [len(groups), count]: 1 at each index's group."""
    table = np.zeros((len(groups), count))
    table[np.arange(len(groups)), groups] = 1.0
    return table


def groups_in_order(order: Integers, block: int) -> Integers:
    """Return the group of each index when ``order`` is cut into runs of ``block``."""
    groups = np.empty(len(order), dtype=np.int64)
    groups[order] = np.arange(len(order)) // block
    return groups


def group_sizes(size: int, block: int) -> Integers:
    """Return int64 [groups]: ``block`` each; the last takes what is left."""
    seats = np.full(-(-size // block), block, dtype=np.int64)
    seats[-1] = size - (len(seats) - 1) * block
    return seats


def quantise(scores: Floats) -> Integers:
    """Return ``scores`` (>= 0, finite) as integers with a total of about 2**48 at most.

    The factor is a power of two, so masks and small integers keep their ratios exactly. It is
    found from the largest score first and from the exact integer total then: a sum of floats
    would depend on its order.
    """
    largest = float(scores.max())
    if largest == 0.0:
        return np.zeros(scores.shape, dtype=np.int64)
    count_bits = scores.size.bit_length()
    coarse_power = TOTAL_BITS - count_bits - int(np.frexp(largest)[1])
    coarse = np.rint(_scaled(scores, coarse_power)).astype(np.int64)
    spare = TOTAL_BITS - int(coarse.sum()).bit_length()
    # the largest alone has TOTAL_BITS - count_bits bits, so this stays within int64
    return np.rint(_scaled(scores, coarse_power + max(spare, 0))).astype(np.int64)


def _scaled(scores: Floats, power: int) -> Floats:
    """Return scores * 2**power. ``np.ldexp`` took 0.13 of 1.0 s of a 512x512x3x3 layer."""
    if abs(power) < 1000:  # 2**power is a float64, and no product of it rounds otherwise
        return scores * 2.0**power
    return np.ldexp(scores, power)


def random_order(size: int, seed: int, stream: int) -> Integers:
    """Return a random permutation, the same with every numpy.

    Raw PCG64 output is fixed for good by numpy's policy; ``Generator.permutation`` is not.
    """
    keys = np.random.PCG64(np.random.SeedSequence((seed, stream))).random_raw(size)
    return np.argsort(keys, kind="stable")
