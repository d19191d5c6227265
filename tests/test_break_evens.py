"""Break-even sparsities that a sweep's densities tell: bench.summary.break_evens, by hand."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from bench.summary import SWEPT_COLUMNS, break_evens
from bench.table import TOTAL_COLUMNS, TOTAL_KEYS

Points = dict[float, tuple[float, float, float]]  # density -> speed-up, low, high


def sweep(points: Points, impl: str = "block_sparse", **keys: Any) -> list[dict[str, Any]]:
    """Return totals of one layer and block."""
    known = dict.fromkeys(TOTAL_KEYS, "x") | {"impl": impl, "recipe_seed": 0} | keys
    return [
        known | {"density": density, "speedup": s, "speedup_low": low, "speedup_high": high}
        for density, (s, low, high) in points.items()
    ]


def told(*lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = [row for line in lines for row in line]
    found = break_evens(pd.DataFrame(rows, columns=TOTAL_COLUMNS))
    assert list(found.columns) == SWEPT_COLUMNS
    return [{str(k): v for k, v in row.items()} for row in found.to_dict("records")]


def test_it_lies_where_the_logarithm_of_the_speedup_is_naught() -> None:
    # 1/1.25 and 1.25: half way; 1/2 and 2**3: a quarter of the way
    (half,) = told(sweep({0.5: (0.8, 0.7, 0.9), 0.25: (1.25, 1.2, 1.3)}))
    assert (half["answer"], half["sparsity"]) == ("found", pytest.approx(0.625))
    assert (half["low"], half["high"], half["least"], half["most"]) == (0.5, 0.75, 0.5, 0.75)
    (quarter,) = told(sweep({0.25: (8.0, 7.9, 8.1), 0.75: (0.5, 0.4, 0.6)}))
    assert quarter["sparsity"] == pytest.approx(0.25 + 0.5 / 4)
    assert (quarter["points"], quarter["monotone"]) == (2, True)


def test_an_interval_over_one_leaves_the_ends_open() -> None:
    (found,) = told(sweep({0.5: (0.95, 0.9, 1.05), 0.25: (1.1, 0.99, 1.2), 0.125: (2, 1.9, 2.1)}))
    assert (found["low"], found["high"]) == (0.0, 0.875)
    assert 0.5 < found["sparsity"] < 0.75


@pytest.mark.parametrize(
    ("points", "answer"),
    [
        ({0.5: (1.2, 1.1, 1.3), 0.25: (2.0, 1.9, 2.1)}, "always"),
        ({0.5: (0.5, 0.4, 0.6), 0.25: (0.9, 0.8, 0.95)}, "never"),
        ({0.5: (1.2, 1.1, 1.3), 0.25: (1.0, 0.9, 1.1)}, "never"),
    ],
)
def test_always_and_never_have_no_sparsity(points: Points, answer: str) -> None:
    (found,) = told(sweep(points))
    assert found["answer"] == answer
    assert math.isnan(found["sparsity"])


def test_points_that_contradict_each_other_are_said_to() -> None:
    (found,) = told(sweep({0.5: (1.5, 1.4, 1.6), 0.25: (0.5, 0.4, 0.6), 0.125: (2, 1.9, 2.1)}))
    assert not found["monotone"]
    assert 0.75 < found["sparsity"] < 0.875
    assert (found["low"], found["high"]) == (0.5, 0.75)


def test_layers_and_blocks_stay_apart_and_one_density_tells_nothing() -> None:
    slow = {0.5: (0.8, 0.7, 0.9), 0.25: (1.25, 1.2, 1.3)}
    fast = {0.5: (1.2, 1.1, 1.3), 0.25: (2.0, 1.9, 2.1)}
    found = told(
        sweep(slow, layer="a", block="16x16"),
        sweep(fast, layer="a", block="32x32"),
        sweep({0.5: (0.5, 0.4, 0.6)}, layer="b"),
        sweep(slow, impl="dense"),
        sweep({0.5: (math.nan,) * 3, 0.25: (2.0, 1.9, 2.1)}, layer="c"),
    )
    answers = [(row["layer"], row["block"], row["answer"]) for row in found]
    assert answers == [("a", "16x16", "found"), ("a", "32x32", "always")]
