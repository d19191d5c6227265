"""``trend``: planted steps are found where they were planted, and like is compared with like."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import table, trend_forms
from bench.gating.trend import trend
from bench.store import read_results
from hrbp_core.shapes import Pass
from tests.history_samples import (
    commit,
    folder,
    history,
    noisy,
    only,
    slower_fprop,
    step_at,
    steps,
    usual,
)


@pytest.fixture(scope="module")
def slower(tmp_path_factory) -> list[Path]:
    return slower_fprop(tmp_path_factory.mktemp("slower"))


# --- steps --------------------------------------------------------------------------------


def test_a_planted_step_is_found_in_its_pass_at_its_folder(slower: list[Path]) -> None:
    found = trend(slower)
    one = only(found)
    assert one.passes["fprop"].found.noise == pytest.approx(0.015, rel=0.4)
    assert steps(one)["fprop"] == [12]
    assert not {"dgrad", "wgrad"} & steps(one).keys()
    (step,) = one.passes["fprop"].steps
    assert math.exp(step.size) == pytest.approx(1.08, abs=0.02)
    assert step.low <= math.log(1.08) <= step.high
    assert step.standing
    assert found.exit_code == 1
    assert f"since {commit(12)[:7]}" in trend_forms.sentence(found)


def test_its_cells_are_named(tmp_path: Path) -> None:
    """Two of five layers are slower, by different amounts: the largest first."""
    late = {1: 1.2, 3: 1.4}

    def factor(number: int, layer: int, conv_pass: Pass) -> float:
        return late.get(layer, 1.0) if number >= 6 and conv_pass is Pass.WGRAD else 1.0

    folders = history(tmp_path, 12, noisy(factor, 0.005), layers=range(5), passes=(Pass.WGRAD,))
    (step,) = only(trend(folders)).passes["wgrad"].steps
    assert [label.split()[0] for label, _ in step.cells] == ["conv3", "conv1"]
    assert [math.exp(size) for _, size in step.cells] == pytest.approx([1.4, 1.2], rel=0.03)
    assert step.position == 6


@pytest.mark.parametrize("seed", range(3))
def test_noise_makes_no_step(seed: int, tmp_path: Path) -> None:
    found = trend(history(tmp_path, 14, noisy(usual, 0.015, seed)))
    assert steps(only(found)) == {}
    assert found.exit_code == 0
    assert trend_forms.sentence(found) == "NOT SLOWER: no step of a pass to slower."


def test_a_step_that_is_undone_is_no_verdict(tmp_path: Path) -> None:
    def factor(number: int, layer: int, conv_pass: Pass) -> float:
        return 1.1 if 7 <= number < 14 else 1.0

    found = trend(history(tmp_path, 21, noisy(factor, 0.005), passes=(Pass.FPROP,)))
    assert steps(only(found)) == {"fprop": [7, 14]}
    assert found.standing == []
    assert found.exit_code == 0
    assert "each undone since" in trend_forms.sentence(found)


def test_a_step_that_is_undone_in_part_stands(tmp_path: Path) -> None:
    def factor(number: int, layer: int, conv_pass: Pass) -> float:
        return 1.0 if number < 7 else 1.15 if number < 14 else 1.09

    found = trend(history(tmp_path, 21, noisy(factor, 0.003), passes=(Pass.FPROP,)))
    assert steps(only(found))["fprop"] == [7, 14]
    assert [step.position for _, s, step in found.standing if s.name == "fprop"] == [7]
    assert found.exit_code == 1


def test_what_stands_is_the_step_to_slower(tmp_path: Path) -> None:
    """Faster first, then slower than ever: the first is no reason to complain."""

    def factor(number: int, layer: int, conv_pass: Pass) -> float:
        return 1.0 if number < 6 else 0.9 if number < 12 else 1.2

    found = trend(history(tmp_path, 18, noisy(factor, 0.003), passes=(Pass.DGRAD,)))
    assert steps(only(found)) == {"dgrad": [6, 12]}
    assert [step.position for _, _, step in found.standing] == [12]


def test_faster_is_no_verdict(tmp_path: Path) -> None:
    found = trend(history(tmp_path, 12, noisy(step_at(6, 1 / 1.2, None), 0.005)))
    (step,) = only(found).passes["all"].steps
    assert step.text.startswith("faster by ")
    assert math.exp(-step.size) == pytest.approx(1.2, rel=0.02)
    assert found.exit_code == 0


def test_the_last_folder_alone_is_no_step_and_two_are(tmp_path: Path) -> None:
    folders = history(tmp_path, 14, noisy(step_at(12, 1.3), 0.005), passes=(Pass.FPROP,))
    assert trend(folders[:13]).exit_code == 0
    assert steps(only(trend(folders)))["fprop"] == [12]


def test_a_cell_may_step_alone(tmp_path: Path) -> None:
    """A thirtieth of 30 % is no step of the pass; the cell's own is told, and is no verdict."""

    def factor(number: int, layer: int, conv_pass: Pass) -> float:
        return 1.3 if (number >= 5 and layer == 4 and conv_pass is Pass.DGRAD) else 1.0

    folders = history(tmp_path, 10, noisy(factor, 0.004), layers=range(12), passes=(Pass.DGRAD,))
    one = only(trend(folders))
    assert steps(one) == {}
    lone = [(series.name, step.position) for series, step in one.lone]
    assert lone == [("conv4 4x8 0.25 dgrad block_sparse", 5)]
    assert trend(folders).exit_code == 0
    assert any("step of single cells" in remark for remark in trend_forms.remarks(one))


# --- what a value is ----------------------------------------------------------------------


def test_the_mean_is_that_of_the_table(slower: list[Path]) -> None:
    one = only(trend(slower))
    rows = table.rows(read_results(slower[3]))
    ours = rows[rows["impl"] == "block_sparse"]
    fprop = ours[ours["pass"] == "fprop"]["speedup"].astype(float)
    assert one.passes["fprop"].values[3] == pytest.approx(np.exp(np.log(fprop).mean()))
    both = table.totals(rows)
    whole = both[both["impl"] == "block_sparse"]["speedup"].astype(float)
    assert one.passes["all"].values[3] == pytest.approx(np.exp(np.log(whole).mean()))
    for series in one.passes.values():
        assert series.kind == "speedup"
        assert all(lo <= v <= hi for lo, v, hi in zip(series.lows, series.values, series.highs))  # noqa: B905


def drifting(base: Path, paired: bool) -> list[Path]:
    """The machine is half as fast from the eighth folder on; the code is the same."""
    calm = noisy(usual, 0.004)
    more: dict[str, Any] = {"passes": (Pass.FPROP,), "paired": paired}
    drifts = [2.0 if i > 7 else 1.0 for i in range(16)]
    return [folder(base / str(i), i, calm, drift=d, **more) for i, d in enumerate(drifts)]


def test_a_slower_machine_falls_out_where_dense_shares_the_rounds(tmp_path: Path) -> None:
    found = trend(drifting(tmp_path, paired=True))
    assert steps(only(found)) == {}
    assert only(found).passes["fprop"].kind == "speedup"


def test_and_shows_where_it_does_not(tmp_path: Path) -> None:
    one = only(trend(drifting(tmp_path, paired=False)))
    assert one.passes["fprop"].kind == "time"
    assert steps(one)["fprop"] == [8]
    assert one.passes["fprop"].values[0] == pytest.approx((1e-3 * 2e-3 * 3e-3) ** (1 / 3), rel=0.02)


def test_dense_has_times_alone(slower: list[Path]) -> None:
    one = only(trend(slower[:5], "dense"))
    assert {series.kind for series in (*one.cells, *one.passes.values())} == {"time"}
    assert one.passes["wgrad"].values == pytest.approx([2e-3 * 6 ** (1 / 3)] * 5)


def test_a_cell_without_a_pair_once_is_timed_and_stays_out_of_the_mean(tmp_path: Path) -> None:
    folders = history(tmp_path, 5, layers=(0, 1))
    for i, path in enumerate(folders):
        folder(path, i, usual, layers=(2,), paired=i != 3)
    one = only(trend(folders))
    assert one.passes["fprop"].kind == "speedup"
    assert (one.passes["fprop"].cells, one.passes["fprop"].left_out) == (2, 1)
    kinds = {series.name.split()[0]: series.kind for series in one.cells}
    assert kinds == {"conv0": "speedup", "conv1": "speedup", "conv2": "time"}
