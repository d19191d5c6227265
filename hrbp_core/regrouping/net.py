"""Layers, and the partitions of channels that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from hrbp_core.regrouping.problem import (
    TOTAL_BITS,
    Flags,
    Floats,
    Integers,
    Problem,
    group_sizes,
    one_hot,
)
from hrbp_core.regrouping.selection import choose_blocks


@dataclass(frozen=True, eq=False)
class Part:
    """One partition: ``size`` indices in groups of ``block``."""

    size: int
    block: int

    @property
    def seats(self) -> Integers:
        """int64 [groups]: the size of each."""
        return group_sizes(self.size, self.block)


@dataclass(frozen=True, eq=False)
class Member:
    """One layer: its problem, and which partitions its filters and channels follow.

    Attributes:
        filters: number of a partition.
        channels: numbers of partitions side by side (concatenated tensors); all but the last
            are whole in blocks, so that no group lies across two.
    """

    problem: Problem
    filters: int
    channels: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class State:
    """Partitions, and what each member has and keeps under them.

    Attributes:
        parts: for each partition the group of each index.
        scores: for each member int64 [Gk, Gc], the score of each block.
        kept: for each member bool [Gk, Gc].
    """

    parts: list[Integers]
    scores: list[Integers]
    kept: list[Flags]

    @cached_property
    def score(self) -> int:
        """The sum of the members' kept scores, exactly."""
        return sum(int(s[k].sum()) for s, k in zip(self.scores, self.kept, strict=True))


class View(NamedTuple):
    """One side of a member, or a stretch of it, that follows a partition.

    Attributes:
        side: 0 for filters, 1 for channels.
        indices, groups: the stretch of that side's indices and groups.
    """

    member: int
    side: int
    indices: slice
    groups: slice


class Net:
    """The members, the partitions, and who follows which.

    Args:
        parts: the partitions to choose.
        members: every partition is followed by one at least.
    """

    def __init__(self, parts: Sequence[Part], members: Sequence[Member]) -> None:
        self.parts = list(parts)
        self.members = [replace(m, problem=_shared(m.problem, len(members))) for m in members]
        self.followers: list[list[int]] = [[] for _ in parts]
        for number, member in enumerate(self.members):
            for part in {member.filters, *member.channels}:
                self.followers[part].append(number)

    @cached_property
    def in_place(self) -> list[Integers]:
        """Groups where the indices lie."""
        return [np.arange(part.size) // part.block for part in self.parts]

    def state(self, parts: list[Integers]) -> State:
        """Return the best blocks of every member under these partitions."""
        scores = [self.block_scores(number, parts) for number in range(len(self.members))]
        return self.choose(parts, scores)

    def choose(self, parts: list[Integers], scores: list[Integers]) -> State:
        """Return the best blocks of every member, given their scores."""
        limits = [member.problem.limits for member in self.members]
        kept = [choose_blocks(*pair) for pair in zip(scores, limits, strict=True)]
        return State(parts, scores, kept)

    def block_scores(self, number: int, parts: list[Integers]) -> Integers:
        """Return int64 [Gk, Gc]: the block scores of one member."""
        member = self.members[number]
        return member.problem.block_scores(parts[member.filters], self.channels(member, parts))

    def channels(self, member: Member, parts: list[Integers]) -> Integers:
        """Return the group of each channel of a member."""
        if len(member.channels) == 1:
            return parts[member.channels[0]]
        starts = self.starts(member)
        sides = [parts[p] + start for p, (start, _) in zip(member.channels, starts, strict=True)]
        return np.concatenate(sides)

    def starts(self, member: Member) -> list[tuple[int, int]]:
        """Return (first group, first channel) of each of a member's channel partitions."""
        found, group, channel = [], 0, 0
        for number in member.channels:
            found.append((group, channel))
            group += len(self.parts[number].seats)
            channel += self.parts[number].size
        return found

    def views(self, part: int) -> list[View]:
        """Return everything that follows ``part``."""
        found = []
        for number in self.followers[part]:
            member = self.members[number]
            if member.filters == part:
                found.append(View(number, 0, slice(None), slice(None)))
            for which, (group, channel) in zip(member.channels, self.starts(member), strict=True):
                if which == part:
                    size, groups = self.parts[part].size, len(self.parts[part].seats)
                    stretch = slice(channel, channel + size), slice(group, group + groups)
                    found.append(View(number, 1, *stretch))
        return found

    def gains(self, view: View, parts: list[Integers]) -> Floats:
        """Return exact integers [indices, groups of the other side]: what each index adds."""
        member = self.members[view.member]
        if view.side == 0:
            others, scores = self.channels(member, parts), member.problem.exact
        else:
            others, scores = parts[member.filters], member.problem.exact.T
        return scores[view.indices] @ one_hot(others, member.problem.grid[1 - view.side])


def _shared(problem: Problem, members: int) -> Problem:
    """Return the problem with scores whose total is that of every other member, to rounding.

    Sums over all members then stay exact: 2**(48 + 4) at most.
    """
    bits = TOTAL_BITS - members.bit_length()
    scores = problem.scores
    total = int(scores.sum())
    if total:
        scores = np.rint(scores * (2.0**bits / total)).astype(np.int64)
    return replace(problem, tap_scores=scores[:, :, None])
