"""allocate: what it refuses, and how it says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hrbp_core import allocate

LAYERS = {"conv1": torch.ones(8, 8, 3, 3), "conv2": torch.ones(8, 16, 3, 3)}
RULES = pytest.mark.parametrize("rule", allocate.RULES.values(), ids=list(allocate.RULES))


def with_value(value: float, count: int) -> dict[str, torch.Tensor]:
    scores = torch.ones(8, 8, 3, 3)
    scores[2, 3, 1, :count] = value
    return {"conv1": LAYERS["conv1"], "conv2": scores}


@RULES
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"density": 0.0}, r"expected density in \(0, 1\], got 0.0"),
        ({"density": 1.01}, r"expected density in \(0, 1\], got 1.01"),
        ({"density": float("nan")}, r"expected density in \(0, 1\], got nan"),
        # 1 of 64 * 9 and of 128 * 9 weights; 2 of 4 blocks and 4 of 8
        (
            {"density": 0.0008},
            r"expected density >= 0.001158, the least that 2 layers .* got 0.0008",
        ),
        ({"density": 0.49, "block": 4}, "expected density >= 0.5, the least that 2 layers"),
        ({"density": 1e-9}, "expected density >= 0.001158"),
        ({"taps": 3}, "expected a block with taps, got taps=3 without"),
        ({"taps": 0, "block": 4}, r"expected taps as 'auto' or in \[1, 9\], got 0"),
        ({"block": 0}, "expected block as one or two ints >= 1, got 0"),
        ({"keep_dense": ("conv3", "conv1")}, "keep_dense of conv2 or conv1, got 'conv3'"),
        ({"keep_dense": ("QQ",)}, "keep_dense of conv1 or conv2, got 'QQ'"),
        (
            {"keep_dense": LAYERS},
            "a layer to allocate, got conv1: named in keep_dense; conv2: named in keep_dense",
        ),
        ({"block": 16}, r"got conv1: smaller than a block \(a block no larger than .* 8 filters"),
    ],
)
def test_wrong_arguments(rule, arguments, message):
    with pytest.raises(ValueError, match=message):
        rule(LAYERS, **{"density": 0.5, "keep_dense": (), **arguments})


@RULES
@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        ([1, 2], TypeError, "expected .*scores by layer name, got list"),
        ({"a": np.ones((2, 2, 1, 1))}, TypeError, "real numbers, got ndarray for 'a'"),
        ({"a": torch.ones(2, 2, 1, 1) * 1j}, TypeError, "got torch.complex64 for 'a'"),
        ({"a": torch.ones(4, 4)}, ValueError, r"\[K, C, R, S\], all >= 1, got \[4, 4\] for 'a'"),
        ({"a": torch.ones(0, 4, 1, 1)}, ValueError, r"got \[0, 4, 1, 1\] for 'a'"),
        ({}, ValueError, "expected a layer to allocate, got no convolution"),
        ({"a": torch.ones(4, 4, 1, 1)}, ValueError, "allocate, got a: the first of the scores"),
    ],
)
def test_wrong_sources(rule, scores, error, message):
    with pytest.raises(error, match=message):
        rule(scores, 0.5)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (with_value(float("nan"), 2), r"got 2 others of 576 for 'conv2', .* \(2, 3, 1, 0\): nan"),
        (with_value(float("inf"), 1), r"got 1 others of 576 for 'conv2', .* \(2, 3, 1, 0\): inf"),
        (with_value(-0.5, 3), r"got 3 others of 576 for 'conv2', .* \(2, 3, 1, 0\): -0.5"),
    ],
)
def test_wrong_scores(scores, message):
    with pytest.raises(ValueError, match=message):
        allocate.global_(scores, 0.5)
    assert allocate.erk(scores, 0.5)["conv2"] == 0.5  # reads shapes alone


def test_models():
    with pytest.raises(TypeError, match=r"scores by layer name, got a model \(Conv2d\)"):
        allocate.global_(nn.Conv2d(4, 4, 1), 0.5)
    for rule in (allocate.uniform, allocate.erk):
        with pytest.raises(ValueError, match="allocate, got no convolution"):
            rule(nn.Linear(4, 4), 0.5)
        with pytest.raises(ValueError, match="got 0: the first convolution; 1: the classifier"):
            rule(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)), 0.5)
        with pytest.raises(TypeError, match="keep_dense as a collection of names, got 'conv1'"):
            rule(LAYERS, 0.5, keep_dense="conv1")
        model = nn.Sequential(nn.LazyConv2d(4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 4))
        assert list(rule(model, 0.5, keep_dense=())) == ["1"]


def test_costs():
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match="expected densities of 0, got '1'"):
        allocate.costs(model, {"1": 0.5})
    with pytest.raises(ValueError, match=r"densities in \[0, 1\], got 1.5 for '0'"):
        allocate.costs(model, {"0": 1.5})
    with pytest.raises(ValueError, match="convolutions or linear layers, got none"):
        allocate.costs(nn.ReLU(), {})
