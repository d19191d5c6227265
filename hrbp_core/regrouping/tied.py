"""``regroup_tied``: the layers of a network at once, one partition wherever channels are shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hrbp_core.pattern import BlockPattern
from hrbp_core.regrouping import PLUS_PLUS, block_pattern
from hrbp_core.regrouping.answer import group_table, pattern_in_tables
from hrbp_core.regrouping.common_taps import best_entries
from hrbp_core.regrouping.joint import hrbp2_net, shuffled_net, sorted_net
from hrbp_core.regrouping.net import Member, Net, Part, State
from hrbp_core.regrouping.problem import Flags, Integers, Problem
from hrbp_core.regrouping.request import pose
from hrbp_core.shapes import pair

_TIED: dict[str, Callable[[Net], State]] = {
    "shuffled": shuffled_net,
    "sorted": sorted_net,
    "hrbp2": hrbp2_net,
    "hrbp2_pp": hrbp2_net,
}
Table = tuple[np.ndarray, Integers]  # group table, the old number of each new group


@dataclass(frozen=True)
class Ties:
    """Which channel spaces a layer stands between.

    Attributes:
        filters: the space that its filters make.
        channels: (space, its channels) of what it reads; several where tensors are concatenated.
    """

    filters: int
    channels: tuple[tuple[int, int], ...]


def regroup_tied(
    scores: Mapping[str, Tensor],
    densities: Mapping[str, float],
    ties: Mapping[str, Ties],
    *,
    method: str = "hrbp2",
    block: int | Sequence[int] = (32, 32),
    seed: int = 0,
    coverage: bool = True,
    balance: str = "none",
    taps: int | str | None = None,
) -> dict[str, BlockPattern]:
    """Return one pattern a layer; layers that share a space share its partition.

    So an order of the space makes all of them canonical at once. The groups of a space are
    numbered by descending block count of the layers whose filters make it.
    Methods whose filter groups choose their own channels have no partition to share, and
    ``aligned`` shares as it is: their layers are regrouped one by one, as are layers without
    ties and those that share with no other. Layers of unequal block_k and block_c share between
    those sides alone that have one size.

    Args:
        scores: layer -> [K, C, R, S], as for ``regroup``.
        densities: layer -> density; of every name in ``scores``.
        ties: layer -> its spaces; layers without are regrouped alone.
        method: one of ``BLOCK_METHODS``. ``hrbp2_pp`` takes the partitions of ``hrbp2`` and
            chooses the taps of each block then.

    Raises:
        TypeError, ValueError: as ``regroup``; the message names the layer.
    """
    options = {"seed": seed, "coverage": coverage, "balance": balance, "taps": taps}
    tied = {name: ties[name] for name in scores if name in ties} if method in _TIED else {}
    problems: dict[str, Problem] = {}
    for name in tied:
        with named(name):
            problems[name] = pose(
                scores[name], densities[name], block, plus_plus=method in PLUS_PLUS, **options  # type: ignore[arg-type]
            )  # fmt: skip
    found: dict[str, BlockPattern] = {}
    keys = {name: _keys(name, tied[name], scores[name], block) for name in tied}
    for names in _components(keys):
        filters, channels = keys[names[0]]
        bound = filters in channels or len(channels) > 1  # to its own filters, or to borders
        if len(names) > 1 or bound:
            found |= _together(scores, problems, {name: keys[name] for name in names}, method)
    for name in scores:
        if name not in found:
            with named(name):
                found[name] = block_pattern(
                    scores[name], densities[name], method=method, block=block, **options
                )
    return {name: found[name] for name in scores}


class named:
    """Put a layer's name before what is said about it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TypeError | ValueError):
            raise type(error)(f"{self.name}: {error}") from error


Key = tuple[int | str, int, int]  # space (or a layer of its own), channels, block
Keys = tuple[Key, tuple[Key, ...]]  # of the filters, of the channels side by side


def _keys(name: str, ties: Ties, scores: Tensor, block: int | Sequence[int]) -> Keys:
    """Return what the layer's two sides are partitioned by."""
    block_k, block_c = pair(block, "block", least=1)
    channels: tuple[Key, ...] = tuple((space, size, block_c) for space, size in ties.channels)
    if any(size % block_c for _, size in ties.channels[:-1]):  # a group would lie across two
        channels = ((name, scores.shape[1], block_c),)
    return (ties.filters, scores.shape[0], block_k), channels


def _components(keys: Mapping[str, Keys]) -> list[list[str]]:
    """Return the layers in sets that share a partition, each in the layers' order."""
    group: dict[str, set[str]] = {}
    owner: dict[Key, str] = {}
    for name, (filters, channels) in keys.items():
        group[name] = {name}
        for key in (filters, *channels):
            first = owner.setdefault(key, name)
            if group[first] is not group[name]:
                joined = group[first] | group[name]
                for each in joined:
                    group[each] = joined
    sets = {id(members): members for members in group.values()}
    return [[name for name in keys if name in members] for members in sets.values()]


def _together(
    scores: Mapping[str, Tensor],
    problems: Mapping[str, Problem],
    keys: Mapping[str, Keys],
    method: str,
) -> dict[str, BlockPattern]:
    """Return the patterns of layers that share partitions."""
    numbers: dict[Key, int] = {}
    for filters, channels in keys.values():
        for key in (filters, *channels):
            numbers.setdefault(key, len(numbers))
    members = [
        Member(problems[n].uncovered, numbers[k], tuple(numbers[c] for c in cs))
        for n, (k, cs) in keys.items()
    ]
    net = Net([Part(size, block) for _, size, block in numbers], members)
    state = _TIED[method](net)
    kept = state.kept
    if method in PLUS_PLUS:
        kept = [_entries(net, state, n, problems[name]) for n, name in enumerate(keys)]
    tables = [_table(net, state, number, kept) for number in range(len(net.parts))]
    patterns = {}
    for number, (name, member) in enumerate(zip(keys, net.members, strict=True)):
        patterns[name] = pattern_in_tables(
            scores[name], problems[name].block, kept[number],
            tables[member.filters], _side_by_side(net, member, tables),
        )  # fmt: skip
    return patterns


def _entries(net: Net, state: State, number: int, problem: Problem) -> Flags:
    """Return the best entries of a member in the groups that were found."""
    member = net.members[number]
    channels = net.channels(member, state.parts)
    return best_entries(problem, problem.entry_scores(state.parts[member.filters], channels))


def _table(net: Net, state: State, number: int, kept: list[Flags]) -> Table:
    """Return a partition's group table, numbered by the blocks of the filters that make it."""
    part = net.parts[number]
    counts = np.zeros((2, len(part.seats)), dtype=np.int64)
    for view in net.views(number):
        table = kept[view.member]
        blocks = table.reshape(*table.shape[:2], -1).sum(axis=2)
        counts[view.side] += blocks.sum(axis=1 - view.side)[view.groups]
    return group_table(state.parts[number], counts[0] if counts[0].any() else counts[1], part.block)


def _side_by_side(net: Net, member: Member, tables: list[Table]) -> Table:
    """Return the group table of a member's channels."""
    rows, ranks = [], []
    for number, (group, channel) in zip(member.channels, net.starts(member), strict=True):
        table, rank = tables[number]
        rows.append(np.where(table < 0, table, table + np.int32(channel)))
        ranks.append(rank + group)
    return np.concatenate(rows), np.concatenate(ranks)
