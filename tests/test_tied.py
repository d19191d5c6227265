"""regroup_tied: partitions that layers share, exact budgets, and what sharing keeps."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrbp_core import BlockPattern, regroup, retained
from hrbp_core.regrouping.joint import aligned_net, alternate, hrbp2_net, shuffled_net, sorted_net
from hrbp_core.regrouping.net import Member, Net, Part
from hrbp_core.regrouping.request import pose
from hrbp_core.regrouping.tied import Ties, regroup_tied
from hrbp_core.shapes import least_density

TIED = ("shuffled", "sorted", "hrbp2", "hrbp2_pp")


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def chain(*widths: int, taps: int = 3) -> tuple[dict, dict]:
    """Return scores and ties of convolutions one behind the other; space n has widths[n]."""
    scores, ties = {}, {}
    for n, (c, k) in enumerate(pairwise(widths)):
        scores[f"conv{n}"] = draws(k, c, taps, taps, seed=n)
        ties[f"conv{n}"] = Ties(n + 1, ((n, c),))
    return scores, ties


def groups(table: torch.Tensor) -> set[tuple[int, ...]]:
    return {tuple(sorted(i for i in row if i >= 0)) for row in table.tolist()}


@pytest.mark.parametrize("method", TIED)
@pytest.mark.parametrize("widths", [(16, 24, 16, 32), (13, 22, 7, 9)])
def test_a_chain_shares_each_space(method: str, widths: tuple) -> None:
    scores, ties = chain(*widths)
    densities = dict.fromkeys(scores, 0.6)
    patterns = regroup_tied(scores, densities, ties, method=method, block=4)
    assert list(patterns) == list(scores)
    for before, after in pairwise(patterns.values()):
        assert torch.equal(before.filters, after.channels)  # the same numbers, too
    for name, pattern in patterns.items():
        gk, gc = pattern.filters.shape[0], pattern.channels.shape[0]
        assert len(pattern.entries) == round(0.6 * gk * gc) * 9
        assert not len(pattern.dead_filters)
        assert not len(pattern.dead_channels)
        assert pattern.shape == tuple(scores[name].shape)


def test_what_an_addition_ties_is_one_partition() -> None:
    scores = {name: draws(16, 16, 3, 3, seed=n) for n, name in enumerate("abc")}
    ties = {"a": Ties(1, ((0, 16),)), "b": Ties(0, ((1, 16),)), "c": Ties(0, ((0, 16),))}
    found = regroup_tied(scores, dict.fromkeys(scores, 0.5), ties, block=4)
    tables = [found["a"].channels, found["b"].filters, found["c"].filters, found["c"].channels]
    assert all(torch.equal(table, tables[0]) for table in tables)


def test_concatenated_spaces_lie_side_by_side() -> None:
    scores = {"one": draws(8, 8, 1, 1), "two": draws(12, 8, 1, 1), "both": draws(8, 20, 3, 3)}
    ties = {
        "one": Ties(1, ((0, 8),)),
        "two": Ties(2, ((0, 8),)),
        "both": Ties(3, ((2, 12), (1, 8))),
    }
    found = regroup_tied(scores, dict.fromkeys(scores, 0.5), ties, block=4)
    expected = groups(found["two"].filters) | {
        tuple(i + 12 for i in group) for group in groups(found["one"].filters)
    }
    assert groups(found["both"].channels) == expected
    assert groups(found["one"].channels) == groups(found["two"].channels)


def test_a_space_that_is_not_whole_in_blocks_is_not_shared_behind_a_concatenation() -> None:
    scores = {"one": draws(10, 8, 1, 1), "two": draws(8, 8, 1, 1), "both": draws(8, 18, 1, 1)}
    ties = {
        "one": Ties(1, ((0, 8),)),
        "two": Ties(2, ((0, 8),)),
        "both": Ties(3, ((1, 10), (2, 8))),
    }
    found = regroup_tied(scores, dict.fromkeys(scores, 0.5), ties, block=4)
    assert found["both"] == regroup(scores["both"], 0.5, block=4)  # alone
    assert groups(found["one"].channels) == groups(found["two"].channels)


def test_groups_of_a_layer_alone_keep_to_the_borders_of_its_spaces() -> None:
    scores = {"both": draws(8, 20, 3, 3)}
    ties = {"both": Ties(3, ((2, 12), (1, 8)))}
    found = regroup_tied(scores, {"both": 0.5}, ties, block=4, method="shuffled")
    assert all(max(group) < 12 or min(group) >= 12 for group in groups(found["both"].channels))


def test_the_same_space_twice_in_a_concatenation() -> None:
    scores = {"one": draws(8, 8, 1, 1), "both": draws(8, 16, 3, 3, seed=1)}
    ties = {"one": Ties(1, ((0, 8),)), "both": Ties(2, ((1, 8), (1, 8)))}
    found = regroup_tied(scores, dict.fromkeys(scores, 0.5), ties, block=4)
    own = groups(found["one"].filters)
    assert groups(found["both"].channels) == own | {tuple(i + 8 for i in g) for g in own}


@pytest.mark.parametrize("method", ["aligned", "hrbp", "dsb_kernel", "grouped"])
def test_other_methods_are_regrouped_one_by_one(method: str) -> None:
    scores, ties = chain(16, 16, 16)
    found = regroup_tied(scores, dict.fromkeys(scores, 0.25), ties, method=method, block=4)
    for name in scores:
        assert found[name] == regroup(scores[name], 0.25, method=method, block=4)


@pytest.mark.parametrize("method", TIED)
def test_a_layer_alone_is_regrouped_as_ever(method: str) -> None:
    scores = {"tied": draws(16, 12, 3, 3), "free": draws(16, 12, 3, 3, seed=1)}
    found = regroup_tied(
        scores, dict.fromkeys(scores, 0.5), {"tied": Ties(1, ((0, 12),))}, method=method, block=4
    )
    for name in scores:
        assert found[name] == regroup(scores[name], 0.5, method=method, block=4)


def test_unequal_blocks_share_no_table() -> None:
    scores, ties = chain(16, 16, 16)
    found = regroup_tied(scores, dict.fromkeys(scores, 0.5), ties, block=(4, 2))
    assert found["conv0"].filters.shape == (4, 4)
    assert found["conv1"].channels.shape == (8, 2)


def hidden_blocks(widths: tuple[int, ...], block: int) -> tuple[dict, dict]:
    """Return a chain whose spaces were shuffled out of perfect blocks: diagonal ones."""
    scores, ties = chain(*widths, taps=1)
    orders = [np.random.default_rng(n).permutation(width) for n, width in enumerate(widths)]
    for n, name in enumerate(scores):
        k, c = scores[name].shape[:2]
        kept = (np.arange(k) // block)[:, None] == (np.arange(c) // block)[None]
        kept = kept[orders[n + 1]][:, orders[n]]
        scores[name] = torch.from_numpy(kept).float()[:, :, None, None]
    return scores, ties


def test_hidden_blocks_of_a_whole_chain_are_found() -> None:
    scores, ties = hidden_blocks((32, 32, 32, 32), 8)
    found = regroup_tied(scores, dict.fromkeys(scores, 0.25), ties, block=8)
    assert [retained(scores[name], found[name]) for name in scores] == [1.0] * 3


def net(seed: int, sizes: tuple[int, ...], block: int, density: float, balance: str) -> Net:
    parts = [Part(size, block) for size in sizes]
    members = []
    for n in range(len(sizes)):
        k, c = sizes[n], sizes[(n + 1) % len(sizes)]
        lifted = max(density, least_density((k, c), block))
        problem = pose(
            draws(k, c, 2, 1, seed=seed + n) ** 3, lifted, block,
            seed=seed, coverage=True, balance=balance,
        )  # fmt: skip
        members.append(Member(problem, n, ((n + 1) % len(sizes),)))
    return Net(parts, members)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 1000),
    st.lists(st.integers(5, 26), min_size=2, max_size=4),
    st.sampled_from([2, 3, 5]),
    st.sampled_from([0.3, 0.6]),
    st.sampled_from(["none", "filters", "both"]),
)
def test_the_search_is_never_below_its_plain_starts(seed, sizes, block, density, balance) -> None:
    tied = net(seed, tuple(sizes), block, density, balance)
    best = hrbp2_net(tied)
    for plain in (aligned_net, sorted_net, shuffled_net):
        assert best.score >= plain(tied).score
    for number, member in enumerate(tied.members):
        groups_of = best.parts[member.filters], tied.channels(member, best.parts)
        assert np.array_equal(best.scores[number], member.problem.block_scores(*groups_of))
        assert best.kept[number].sum() == member.problem.blocks
        for side, counts in enumerate((best.kept[number].sum(1), best.kept[number].sum(0))):
            assert counts.min() >= 1
            balanced = balance == "both" or (balance == "filters" and side == 0)
            assert not balanced or counts.max() - counts.min() <= 1
    for part, chosen in zip(tied.parts, best.parts, strict=True):
        assert np.array_equal(np.bincount(chosen), part.seats)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["none", "both"]), st.booleans())
def test_rounds_never_lose_and_keep_the_books(seed: int, balance: str, itself: bool) -> None:
    tied = net(seed, (12, 12, 12), 3, 0.4, balance)
    if itself:  # the first reads its own filters, the second twice the same space
        first, second, third = tied.members
        problem = pose(
            draws(12, 24, 1, 1, seed=seed), 0.4, 3, seed=0, coverage=True, balance=balance
        )
        second = replace(second, channels=(0, 0), problem=problem)
        tied = Net(tied.parts, [replace(first, channels=(0,)), second, third])
    for start in (shuffled_net(tied, 1), hrbp2_net(tied)):
        best = alternate(tied, start)
        assert best.score >= start.score
        for number in range(3):
            assert np.array_equal(best.scores[number], tied.block_scores(number, best.parts))


def test_each_layer_counts_by_its_share() -> None:
    tied = net(1, (12, 20, 7), 3, 0.5, "none")
    totals = [int(member.problem.scores.sum()) for member in tied.members]
    assert max(totals) - min(totals) <= 500  # a half of a unit each, of 2**46
    assert min(totals) > 2**45


def test_scales_of_layers_do_not_matter_and_the_answer_repeats() -> None:
    scores, ties = chain(16, 16, 16, 16)
    densities = dict.fromkeys(scores, 0.25)
    found = regroup_tied(scores, densities, ties, block=4, seed=3)
    scaled = {name: score * 2.0 ** (7 * n) for n, (name, score) in enumerate(scores.items())}
    again = regroup_tied(scaled, densities, ties, block=4, seed=3)
    assert found == again


def test_a_layer_without_score_breaks_nothing() -> None:
    scores, ties = chain(8, 8, 8)
    scores["conv0"] = torch.zeros(8, 8, 3, 3)
    found = regroup_tied(scores, dict.fromkeys(scores, 0.5), ties, block=4)
    assert all(isinstance(pattern, BlockPattern) for pattern in found.values())


def test_errors_name_the_layer() -> None:
    scores, ties = chain(16, 16, 16)
    with pytest.raises(ValueError, match=r"conv1: expected density >= 0\.25"):
        regroup_tied(scores, {"conv0": 0.5, "conv1": 0.1}, ties, block=4)
    with pytest.raises(ValueError, match="conv0: expected method as one of"):
        regroup_tied(scores, dict.fromkeys(scores, 0.5), ties, block=4, method="best")
