"""The question every regrouping method answers, and the form of its answer.

Scores are integers here, small enough that every sum in a method is exact in float64 and
int64 alike. So no thread count, matrix library or machine can decide a tie.
"""

from __future__ import annotations

from dataclasses import dataclass
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
        scores: int64 [K, C], kernel-wise (summed over the taps), from :func:`quantise`.
        block: (block_k, block_c).
        blocks: how many blocks to keep, exactly.
        coverage: every filter group and every channel group keeps a block.
        balance: one of ``BALANCES``.
        seed: of everything random.
    """

    scores: Integers
    block: Pair
    blocks: int
    coverage: bool
    balance: str
    seed: int

    @property
    def grid(self) -> Pair:
        """(filter groups, channel groups)."""
        (k, c), (block_k, block_c) = self.scores.shape, self.block
        return -(-k // block_k), -(-c // block_c)

    @property
    def limits(self) -> Limits:
        """The least and most blocks of each group."""
        return Limits.of(self.grid, self.blocks, coverage=self.coverage, balance=self.balance)

    @cached_property
    def exact(self) -> Floats:
        """``scores`` as float64, for matrix products; every product is exact."""
        return self.scores.astype(np.float64)

    def block_scores(self, filters: Integers, channels: Integers) -> Integers:
        """Return int64 [Gk, Gc]: the score of each block, from a group number an index."""
        gk, gc = self.grid
        sums = one_hot(filters, gk).T @ self.exact @ one_hot(channels, gc)
        return sums.astype(np.int64)


@dataclass(frozen=True)
class Limits:
    """How many blocks (or entries) to keep in all, in each filter group and channel group.

    ``per_filter_group`` is (least, most) of every group, as ints or int64 [Gk].
    """

    blocks: int
    per_filter_group: tuple[Any, Any]
    per_channel_group: Pair

    @classmethod
    def of(
        cls, grid: Pair, blocks: int, *, coverage: bool, balance: str, taps: int = 1
    ) -> Limits:
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
    fewest, most = entries // taps // groups, -(-(-(-entries // taps)) // groups)
    return max(fewest * taps, least), most * taps


@dataclass(frozen=True, eq=False)
class Grouping:
    """A method's answer.

    Attributes:
        filters: int64 [K], the group of each filter.
        channels: int64 [C], the group of each channel.
        kept: bool [Gk, Gc].
        score: what the kept blocks hold, exactly.
    """

    filters: Integers
    channels: Integers
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
    coarse = np.rint(np.ldexp(scores, coarse_power)).astype(np.int64)
    spare = TOTAL_BITS - int(coarse.sum()).bit_length()
    # the largest alone has TOTAL_BITS - count_bits bits, so this stays within int64
    return np.rint(np.ldexp(scores, coarse_power + max(spare, 0))).astype(np.int64)


def random_order(size: int, seed: int, stream: int) -> Integers:
    """Return a random permutation, the same with every numpy.

    Raw PCG64 output is fixed for good by numpy's policy; ``Generator.permutation`` is not.
    """
    keys = np.random.PCG64(np.random.SeedSequence((seed, stream))).random_raw(size)
    return np.argsort(keys, kind="stable")
