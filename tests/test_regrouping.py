"""regroup: budget, coverage, balance, sizes, retained score, the same answer everywhere."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hrbp_core
from hrbp_core.pattern import BlockPattern
from hrbp_core.regrouping import BALANCES, METHODS, regroup, retained
from hrbp_core.shapes import block_grid, least_density
from tests.score_families import family, hidden_blocks

TWO_SIDED = ("aligned", "shuffled", "sorted", "hrbp2")

# (family, seed, block, density, what a private prototype of hrbp2 retained for each balance,
# what this one does). Seeds of the first two give the prototype's draws to three digits (as its
# unstructured and sorted figures tell). No seed gives its clustered draw: seed 15 has the same
# unstructured figures (0.822, 0.664) and other clusters, hence the wider tolerance.
PROTOTYPE = [
    ("independent", 93, 32, 0.25, (0.315, 0.309, 0.315), (0.321, 0.319, 0.320)),
    ("rank_one", 1, 32, 0.25, (0.581, 0.486, 0.373), (0.581, 0.487, 0.385)),
    ("rank_one", 1, 16, 0.125, (0.393, 0.315, 0.228), (0.394, 0.318, 0.231)),
    ("clustered", 15, 32, 0.25, (0.620, 0.566, 0.502), (0.637, 0.563, 0.486)),
    ("clustered", 15, 16, 0.125, (0.445, 0.393, 0.334), (0.469, 0.398, 0.344)),
]


def blocks_of(pattern: BlockPattern) -> int:
    assert pattern.all_taps
    return int(pattern.blocks_per_filter_group.sum())


def assert_balanced(pattern: BlockPattern, balance: str) -> None:
    for counts, wanted in (
        (pattern.blocks_per_filter_group, balance != "none"),
        (pattern.blocks_per_channel_group, balance == "both"),
    ):
        if wanted:
            assert int(counts.max() - counts.min()) <= 1


def test_regroup_is_a_public_name():
    assert hrbp_core.regroup is regroup
    assert set(TWO_SIDED) < set(METHODS)


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize("method", TWO_SIDED)
def test_budget_coverage_and_balance(method, balance):
    scores = family("clustered", 64, 96, seed=3).expand(-1, -1, 3, 3)
    for density in (least_density((64, 96), 16), 0.3, 0.77, 1.0):
        pattern = regroup(scores, density, method=method, block=16, balance=balance)
        assert blocks_of(pattern) == round(density * 24)
        assert pattern.partitioned
        assert int(pattern.blocks_per_filter_group.min()) >= 1
        assert int(pattern.blocks_per_channel_group.min()) >= 1
        assert_balanced(pattern, balance)


@given(
    size=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    block=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    share=st.floats(0, 1),
    method=st.sampled_from(TWO_SIDED),
    balance=st.sampled_from(BALANCES),
    coverage=st.booleans(),
    levels=st.sampled_from([1, 2, 1000]),
)
def test_any_size(size, block, share, method, balance, coverage, levels):
    (k, c), block = size, (min(block[0], size[0]), min(block[1], size[1]))
    gk, gc = block_grid(size, block)
    least = least_density(size, block) if coverage else 1 / (gk * gc)
    density = min(least + share * (1 - least), 1.0)
    generator = torch.Generator().manual_seed(k * 100 + c)
    scores = torch.randint(levels, (k, c, 2, 1), generator=generator)
    pattern = regroup(
        scores, density, method=method, block=block, coverage=coverage, balance=balance
    )
    assert pattern.partitioned
    assert blocks_of(pattern) == round(density * gk * gc)
    assert_balanced(pattern, balance)
    if coverage:
        assert int(pattern.blocks_per_filter_group.min()) >= 1
        assert int(pattern.blocks_per_channel_group.min()) >= 1


def test_groups_are_numbered_by_block_count_and_ascend():
    pattern = regroup(family("clustered", 40, 56, seed=1), 0.4, block=16)
    counts = (pattern.blocks_per_filter_group, pattern.blocks_per_channel_group)
    assert len(set(counts[1][:-1].tolist())) > 1  # or the order below would show nothing
    for table, blocks in zip((pattern.filters, pattern.channels), counts, strict=True):
        keys = list(zip((-blocks[:-1]).tolist(), table[:-1, 0].tolist(), strict=True))
        assert keys == sorted(keys)
        assert (table[-1] < 0).sum() == 8
        for row in table:
            members = row[row >= 0].tolist()
            assert members == sorted(members)


def test_aligned_is_canonical_and_solved_by_hand():
    scores = torch.tensor([[9, 1, 0, 0], [1, 1, 0, 3], [0, 0, 2, 2], [0, 8, 2, 2]])
    pattern = regroup(scores[:, :, None, None], 0.5, method="aligned", block=2)
    assert pattern.is_canonical
    # 12 + 8 beats 8 + 3: the better cover
    assert pattern.entries[:, :2].tolist() == [[0, 0], [1, 1]]
    free = regroup(scores[:, :, None, None], 0.25, method="aligned", block=2, coverage=False)
    assert free.entries[:, :2].tolist() == [[0, 0]]


def test_sorted_puts_like_norms_together():
    norms = torch.tensor([1.0, 8.0, 2.0, 9.0])
    scores = (norms[:, None] * norms.flip(0))[:, :, None, None]
    pattern = regroup(scores, 0.5, method="sorted", block=2)
    assert pattern.filters.tolist() == [[0, 2], [1, 3]]
    assert pattern.channels.tolist() == [[0, 2], [1, 3]]


def test_shuffled_depends_on_its_seed_alone():
    first, second = family("rank_one", 64, 64, seed=0), family("clustered", 64, 64, seed=9)
    a = regroup(first, 0.5, method="shuffled", block=16, seed=5)
    b = regroup(second, 0.5, method="shuffled", block=16, seed=5)
    c = regroup(first, 0.5, method="shuffled", block=16, seed=6)
    # as sets: groups are numbered by block count, which the scores decide
    for side in ("filters", "channels"):
        groups = [sorted(getattr(p, side).tolist()) for p in (a, b, c)]
        assert groups[0] == groups[1] != groups[2]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("block", "blocks"), [(32, 6), (16, 20), (8, 64)])
def test_hrbp2_finds_hidden_blocks(seed, block, blocks):
    mask = hidden_blocks(128, 128, block, blocks, seed=seed)
    pattern = regroup(mask.bool(), blocks / (128 // block) ** 2, block=block)
    assert retained(mask, pattern) == 1.0


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize("size", [(64, 96), (50, 70)])
def test_hrbp2_is_never_below_the_plain_methods(size, balance):
    for name in ("independent", "rank_one", "clustered"):
        scores = family(name, *size, seed=4)
        found = {
            m: retained(scores, regroup(scores, 0.4, method=m, block=16, balance=balance))
            for m in TWO_SIDED
        }
        assert found["hrbp2"] >= max(found.values()) - 1e-9


@pytest.mark.parametrize(("name", "seed", "block", "density", "prototype", "reached"), PROTOTYPE)
def test_hrbp2_reaches_the_prototype(name, seed, block, density, prototype, reached):
    scores = family(name, 256, 256, seed=seed)
    tolerance = 0.02 if name == "clustered" else 0.001
    for balance, before, now in zip(BALANCES, prototype, reached, strict=True):
        pattern = regroup(scores, density, block=block, balance=balance)
        assert retained(scores, pattern) >= before - tolerance, balance
        assert retained(scores, pattern) >= now - 0.002, balance


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
@pytest.mark.parametrize("balance", BALANCES)
def test_constant_scores_change_no_order(value, balance):
    pattern = regroup(torch.full((64, 64, 1, 1), value), 0.5, block=16, balance=balance)
    assert pattern.is_canonical
    assert pattern == regroup(
        torch.full((64, 64, 1, 1), value), 0.5, block=16, balance=balance, method="aligned"
    )
    if balance == "none":  # the first eight blocks, two of them moved to cover the last rows
        kept = [[0, 2], [0, 3], [1, 0], [1, 1], [1, 2], [1, 3], [2, 0], [3, 1]]
        assert pattern.entries[:, :2].tolist() == kept


def test_nothing_moves_when_every_grouping_is_as_good():
    assert regroup(family("clustered", 64, 64, seed=1), 1.0, block=16).is_canonical


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.bool]
)
def test_dtypes_and_power_of_two_factors_change_nothing(dtype):
    mask = torch.rand(32, 32, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.3
    expected = regroup(mask, 0.5, block=8)
    assert regroup(mask.to(dtype), 0.5, block=8) == expected
    if dtype.is_floating_point:
        assert regroup(mask.to(dtype).requires_grad_() * 2.0**-10, 0.5, block=8) == expected


@pytest.mark.parametrize("factor", [1e-320, 1e-30, 1e300])
def test_extreme_scores(factor):
    scores = hidden_blocks(32, 32, 8, 5, seed=0) * factor
    pattern = regroup(scores, 5 / 16, block=8)
    assert pattern.mask()[scores > 0].all()


def test_memory_layout_does_not_matter():
    scores = family("clustered", 48, 48, seed=2).expand(-1, -1, 3, 3).contiguous()
    other = scores.to(memory_format=torch.channels_last)
    assert regroup(scores, 0.4, block=16) == regroup(other, 0.4, block=16)


SCRIPT = """
from hrbp_core import regroup
from tests.score_families import family
scores = family("clustered", 120, 136, seed=8)
for balance in ("none", "filters", "both"):
    print(regroup(scores, 0.4, block=16, balance=balance, seed=3).content_hash)
"""


def test_another_process_and_thread_count_agree():
    scores = family("clustered", 120, 136, seed=8)
    here = [
        regroup(scores, 0.4, block=16, balance=balance, seed=3).content_hash for balance in BALANCES
    ]
    threads = "3" if os.environ.get("OMP_NUM_THREADS") == "1" else "1"
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == here
