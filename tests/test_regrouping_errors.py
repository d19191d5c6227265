"""regroup: what it refuses, and how it says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hrbp_core.regrouping import regroup

ONES = torch.ones(8, 8, 3, 3)


def with_value(value: float, count: int) -> torch.Tensor:
    scores = torch.ones(8, 8, 3, 3)
    for place in range(count):
        scores[2, 3 + place, 1, 0] = value
    return scores


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.ones((8, 8, 3, 3)), "expected scores as a tensor, got ndarray"),
        (ONES.to(torch.complex64), "expected scores of a real dtype, got torch.complex64"),
    ],
)
def test_wrong_types(scores, message):
    with pytest.raises(TypeError, match=message):
        regroup(scores, 0.5, block=4)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (ONES[0], r"expected scores \[K, C, R, S\], all >= 1, got \[8, 3, 3\]"),
        (ONES[:0], r"all >= 1, got \[0, 8, 3, 3\]"),
        (with_value(float("nan"), 2), r"got 2 NaN of 576, the first at \(2, 3, 1, 0\)"),
        (with_value(float("inf"), 1), r"got 1 infinite of 576, the first at \(2, 3, 1, 0\)"),
        (with_value(-0.5, 3), r"got 3 negative of 576, the first at \(2, 3, 1, 0\)"),
    ],
)
def test_wrong_scores(scores, message):
    with pytest.raises(ValueError, match=message):
        regroup(scores, 0.5, block=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"density": 0.0}, r"expected density in \(0, 1\], got 0.0"),
        ({"density": 1.01}, r"expected density in \(0, 1\], got 1.01"),
        ({"density": float("nan")}, r"expected density in \(0, 1\], got nan"),
        ({"density": 0.4}, r"expected density >= 0.5, the least .* 2 filter groups .* got 0.4"),
        ({"density": 0.1, "coverage": False}, "rounds to 1 block or more, got 0.1 of 4 blocks"),
        ({"block": (4, 9)}, r"no larger than the layer, got block \(4, 9\)"),
        ({"method": "magic"}, "one of aligned, shuffled, sorted, hrbp2.*, got 'magic'"),
        ({"balance": "rows"}, "one of none, filters, both, got 'rows'"),
        ({"seed": -1}, "expected seed >= 0, got -1"),
    ],
)
def test_wrong_arguments(arguments, message):
    density = arguments.pop("density", 0.5)
    with pytest.raises(ValueError, match=message):
        regroup(ONES, density, **{"block": 4, **arguments})


def test_wrong_seed_type():
    with pytest.raises(TypeError, match="expected seed as an int, got float"):
        regroup(ONES, 0.5, block=4, seed=0.5)  # type: ignore[arg-type]
