"""allocate: uniform, ERK and global densities, exact totals, least densities, costs."""

from __future__ import annotations

import copy
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.accuracy.resnets import resnet50
from hrbp_core import allocate
from hrbp_core.regrouping import regroup
from hrbp_core.shapes import block_grid, least_density

ALL = {"keep_dense": ()}


def ones(*shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """Scores of layers a, b, c, ..."""
    return {chr(ord("a") + i): torch.ones(shape) for i, shape in enumerate(shapes)}


# K + C + R + S: 10 of 16 weights, 18 of 64. The factor is budget / 28 until a is whole.
def test_erk_by_hand():
    layers = ones((4, 4, 1, 1), (8, 8, 1, 1))
    assert dict(allocate.erk(layers, 28 / 80, **ALL)) == {"a": 10 / 16, "b": 18 / 64}
    assert dict(allocate.erk(layers, 14 / 80, **ALL)) == {"a": 5 / 16, "b": 9 / 64}
    full = allocate.erk(layers, 0.8, **ALL)
    assert dict(full) == {"a": 1.0, "b": 48 / 64}
    assert full.whole == ("a",)
    # kernels count too: 11 of 54 and 12 of 81 weights
    kernels = allocate.erk(ones((2, 3, 3, 3), (3, 3, 3, 3)), 23 / 135, **ALL)
    assert dict(kernels) == {"a": 11 / 54, "b": 12 / 81}


def erk_by_rounds(shapes: list[tuple[int, ...]], density: float) -> list[float]:
    """Evci et al.'s way: solve, make the largest layer beyond 1 dense, solve the rest again."""
    sizes = [math.prod(s) for s in shapes]
    scale = [sum(s) / n for s, n in zip(shapes, sizes, strict=True)]
    dense: set[int] = set()
    while True:
        rest = [i for i in range(len(shapes)) if i not in dense]
        budget = density * sum(sizes) - sum(sizes[i] for i in dense)
        factor = budget / sum(sizes[i] * scale[i] for i in rest) if rest else 0
        if not rest or max(factor * scale[i] for i in rest) <= 1:
            return [1.0 if i in dense else factor * scale[i] for i in range(len(shapes))]
        dense.add(max(rest, key=lambda i: scale[i]))


shapes = st.lists(
    st.tuples(st.integers(4, 70), st.integers(4, 70), st.integers(1, 3), st.integers(1, 3)),
    min_size=1,
    max_size=6,
)
densities = st.floats(0.1, 1)


@given(shapes, densities)
def test_erk_agrees_with_the_published_rounds(shapes, density):
    found = allocate.erk(ones(*shapes), density, **ALL)
    for shape, mine, theirs in zip(
        shapes, found.values(), erk_by_rounds(shapes, density), strict=True
    ):
        assert abs(mine - theirs) * math.prod(shape) < 1.5  # rounding, of the budget too


# Evci et al., table 2, ResNet-50 at 80 %: 0.42 and 0.23 of the operations.
@pytest.mark.parametrize(("rule", "published"), [("erk", 0.42), ("uniform", 0.23)])
def test_operations_of_resnet50(rule, published):
    with torch.device("meta"):
        model, image = resnet50(), torch.empty(1, 3, 224, 224)
    found = allocate.RULES[rule](model, 0.2)
    assert found.left_dense == {"conv1": "the first convolution"}
    assert found.kept_weights == round(0.2 * found.weights)
    costs = allocate.costs(model, found, image)
    assert costs.flops == pytest.approx(2 * 4.09e9, rel=0.001)
    assert costs.flops_ratio == pytest.approx(published, abs=0.01)


def test_uniform_by_hand():
    found = allocate.uniform(ones((10, 10, 1, 1), (20, 10, 3, 3)), 0.3, **ALL)
    assert dict(found) == {"a": 0.3, "b": 0.3}
    assert (found.weights, found.kept_weights, found.density) == (1900, 570, 0.3)
    # 11 weights: 8.03 of a and 2.97 of b; 7 weights: 3.5 of each, the first takes one more
    for a, b, density, counts in ((27, 10, 0.3, (8, 3)), (10, 10, 0.35, (4, 3))):
        found = allocate.uniform(ones((a, 1, 1, 1), (b, 1, 1, 1)), density, **ALL)
        assert dict(found) == {"a": counts[0] / a, "b": counts[1] / b}


# In blocks of 32 a (64 channels) has 4 blocks and keeps at least 2 of them, half of its weights;
# what is left of a quarter of all are exactly 15 of the 64 blocks of b.
def test_layers_are_lifted_to_their_least_density():
    layers = ones((64, 64, 3, 3), (256, 256, 3, 3))
    found = allocate.uniform(layers, 0.25, block=32, **ALL)
    assert dict(found) == {"a": 0.5, "b": 15 / 64}
    assert found.lifted == ("a",)
    assert found.block == (32, 32)
    assert found.kept_weights == round(0.25 * found.weights)
    # below 4/64 of b too: with one tap a block its 8 groups need one block's weights alone
    assert dict(allocate.uniform(layers, 0.05, block=32, taps=1, **ALL)) == {
        "a": 0.25,
        "b": 2 / 64,
    }
    # a layer of fewer taps than asked for keeps those it has
    mixed = ones((64, 64, 1, 1), (256, 256, 3, 3))
    assert dict(allocate.uniform(mixed, 0.06, block=32, taps=3, **ALL)) == {"a": 0.5, "b": 4 / 64}


def test_global_by_hand():
    layers = {
        "a": torch.tensor([9.0, 1, 1, 1]).reshape(2, 2, 1, 1),
        "b": torch.tensor([8.0, 7, 1, 1, 1, 1]).reshape(3, 2, 1, 1),
    }
    assert dict(allocate.global_(layers, 0.3, **ALL)) == {"a": 1 / 4, "b": 2 / 6}
    # of equal scores the first layer's come first
    assert dict(allocate.global_(layers, 0.5, **ALL)) == {"a": 3 / 4, "b": 2 / 6}
    layers["a"] *= 0.01
    lifted = allocate.global_(layers, 0.3, **ALL)
    assert dict(lifted) == {"a": 1 / 4, "b": 2 / 6}
    assert lifted.lifted == ("a",)
    layers["b"] *= 0
    assert dict(allocate.global_(layers, 0.2, **ALL)) == {"a": 1 / 4, "b": 1 / 6}
    masks = {"a": torch.ones(2, 2, 1, 1, dtype=torch.bool), "b": torch.zeros(2, 2, 1, 1).bool()}
    assert dict(allocate.global_(masks, 0.625, **ALL)) == {"a": 1, "b": 0.25}


# 20 of 48 weights; in blocks of 1 every layer keeps 4. The others share the best 16, not 20.
def test_what_lifts_a_layer_is_taken_where_scores_are_lowest():
    layers = {
        "low": torch.zeros(4, 4, 1, 1),
        "high": torch.tensor([9.0] * 12 + [1.0] * 4).reshape(4, 4, 1, 1),
        "even": torch.full((4, 4, 1, 1), 5.0),
    }
    found = allocate.global_(layers, 20 / 48, block=1, **ALL)
    assert dict(found) == {"low": 4 / 16, "high": 12 / 16, "even": 4 / 16}
    assert found.lifted == ("low",)


@given(shapes, densities, st.integers(0, 10**6))
def test_global_is_what_a_stable_sort_gives(shapes, density, seed):
    rng = np.random.default_rng(seed)  # few values: ties everywhere
    drawn = [rng.integers(0, 4, shape) for shape in shapes]
    layers = {str(i): torch.from_numpy(each) for i, each in enumerate(drawn)}
    found = allocate.global_(layers, density, **ALL)
    every = np.concatenate([each.ravel() for each in drawn])
    owner = np.repeat(np.arange(len(drawn)), [each.size for each in drawn])
    best = owner[np.argsort(-every, kind="stable")[: round(density * len(every))]]
    counts = np.bincount(best, minlength=len(drawn))
    if (counts > 0).all():
        assert found.lifted == ()
        assert list(found.values()) == [
            c / each.size for c, each in zip(counts, drawn, strict=True)
        ]
    else:
        assert found.lifted


def assert_exact(found: allocate.Allocation, shapes: list[tuple[int, ...]], taps: int | str | None):
    """Whole blocks within bounds, and a total that no single block brings nearer."""
    kept, rooms, block = Fraction(0), [], found.block
    for shape, density in zip(shapes, found.values(), strict=True):
        blocks = math.prod(block_grid(shape, block)) if block else math.prod(shape)
        own_taps = min(taps, shape[2] * shape[3]) if isinstance(taps, int) else taps
        least = least_density(shape, block, taps=own_taps) if block else 1 / blocks
        assert least <= density <= 1
        count = round(density * blocks)
        assert density == count / blocks
        unit = Fraction(math.prod(shape), blocks)
        kept += count * unit
        rooms.append((unit, density < 1, least < density < 1))
    missing = round(found.requested * found.weights) - kept
    assert found.kept_weights == round(kept)
    if block is None:
        assert missing == 0
    for unit, can_take, can_give in rooms:
        if can_take if missing > 0 else can_give:
            assert abs(missing) <= unit / 2


@given(
    shapes,
    st.floats(0.01, 1),
    st.sampled_from([None, 1, 3, (4, 2), 4]),
    st.sampled_from([None, 2, "auto"]),
    st.sampled_from(sorted(allocate.RULES)),
    st.integers(0, 10**6),
)
def test_totals_are_exact(shapes, density, block, taps, rule, seed):
    rng = np.random.default_rng(seed)
    taps = taps if block else None
    scale = rng.lognormal(0, 1, len(shapes))
    drawn = {str(i): torch.from_numpy(scale[i] * rng.random(s)) for i, s in enumerate(shapes)}
    call = allocate.RULES[rule]
    try:
        found = call(drawn, density, block=block, taps=taps, **ALL)
    except ValueError as error:
        # too low for blocks: the density that the message names will do
        least = float(str(error).split(">= ")[1].split(",")[0])
        assert density < least
        found = call(drawn, least, block=block, taps=taps, **ALL)
    assert_exact(found, shapes, taps)


def test_layers_that_a_rule_makes_whole_stay_so():
    layers = ones((64, 64, 1, 1), (512, 512, 3, 3))  # blocks of 1024 and of 9216 weights
    found = allocate.erk(layers, 0.23, block=32, **ALL)
    assert found["a"] == 1.0
    surplus = found.kept_weights - round(0.23 * found.weights)
    assert 1024 < surplus <= 9216 / 2  # one block less of a would be nearer


def test_regroup_takes_every_density():
    shapes = [(40, 24, 3, 3), (16, 64, 1, 1), (33, 20, 3, 3)]
    layers = {str(i): torch.rand(shape) for i, shape in enumerate(shapes)}
    for density in (0.4, 0.5, 0.73):
        found = allocate.erk(layers, density, block=8, **ALL)
        for name, scores in layers.items():
            pattern = regroup(scores, found[name], block=8, method="aligned")
            blocks = math.prod(block_grid(tuple(scores.shape), 8))
            assert int(pattern.blocks_per_filter_group.sum()) / blocks == found[name]


def test_an_allocation_is_a_mapping_that_stays_as_it_is():
    layers = ones((8, 8, 1, 1), (4, 4, 3, 3))
    found = allocate.uniform(layers, 0.5, block=4, keep_dense=["b"])
    assert (len(found), list(found), found["a"]) == (1, ["a"], 0.5)
    assert found == {"a": 0.5} == dict(found)
    assert repr(found) == (
        "Allocation(1 layers, density 0.5 in blocks of 4x4: 0 lifted, 0 whole; 1 left dense)"
    )
    with pytest.raises(TypeError):
        found.densities["a"] = 1.0
    with pytest.raises(AttributeError):
        found.block = None
    for twin in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert vars(twin) == vars(found)


class Small(nn.Module):
    """[N, 3, 8, 8] -> logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16, stride=2, padding=1)
        self.wide = nn.Conv2d(16, 32, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.wide(self.depthwise(self.stem(x))).mean((2, 3)))


def test_what_is_left_dense():
    model = Small()
    usual = allocate.erk(model, 0.5, block=8)
    assert list(usual) == ["wide"]
    assert usual.left_dense == {
        "stem": "the first convolution",
        "depthwise": "depthwise (groups=16, expected 1)",
    }
    assert usual.weights == 512
    assert list(allocate.erk(model, 0.5, keep_dense=())) == ["stem", "wide"]
    named = allocate.erk(model, 0.5, keep_dense=("wide",))
    assert list(named) == ["stem"]
    assert named.left_dense["wide"] == "named in keep_dense"
    small = allocate.erk(model, 0.5, block=8, keep_dense=())
    assert small.left_dense["stem"].startswith("smaller than a block (a block no larger than")
    layers = {"stem": torch.ones(16, 3, 3, 3), "wide": torch.ones(32, 16, 1, 1)}
    assert allocate.erk(layers, 0.5).left_dense == {"stem": "the first of the scores"}
    assert allocate.erk(layers, 0.5, block=8, **ALL).left_dense == {
        "stem": small.left_dense["stem"]
    }


def test_costs_by_hand():
    model = Small()
    weights = [16 * 27, 16 * 9, 32 * 16, 320]
    places = [64, 16, 16, 1]
    dense = allocate.costs(model, {}, torch.zeros(2, 3, 8, 8))
    flops = [2 * 2 * w * p for w, p in zip(weights, places, strict=True)]
    assert dense == allocate.Costs(sum(weights), sum(weights), sum(flops), sum(flops))
    assert dense.density == dense.flops_ratio == 1.0
    some = allocate.costs(model, {"wide": 0.25, "fc": 0.5}, torch.zeros(2, 3, 8, 8))
    assert some.kept_weights == sum(weights) - 384 - 160
    assert some.kept_flops == sum(flops) - 3 * flops[2] // 4 - flops[3] // 2
    assert some.density == some.kept_weights / sum(weights)
    without = allocate.costs(model, {"wide": 0.25})
    assert (without.flops, without.kept_flops, without.flops_ratio) == (None, None, None)
