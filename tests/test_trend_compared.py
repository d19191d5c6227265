"""``trend``: gaps, and what is never compared."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import trend_forms
from bench.gating.trend import trend
from hrbp_core.shapes import Pass
from tests.history_samples import (
    command,
    commit,
    environment,
    folder,
    history,
    noisy,
    only,
    step_at,
    steps,
    usual,
)

# --- gaps ---------------------------------------------------------------------------------


def test_a_failed_cell_is_a_gap_and_moves_no_mean(tmp_path: Path) -> None:
    """The fastest cell fails from the eighth folder on: a plain mean would fall by a third."""

    def factor(number: int, layer: int, conv_pass: Pass) -> float:
        if layer == 2:
            return 0.0 if number >= 7 else 0.3
        return 1.0

    found = trend(history(tmp_path, 12, noisy(factor, 0.004), passes=(Pass.FPROP,)))
    one = only(found)
    assert found.exit_code == 0
    assert steps(one) == {}
    assert np.ptp(np.log(one.passes["fprop"].values)) < 0.03
    assert (one.passes["fprop"].failed, one.passes["fprop"].absent) == (5, 0)
    cell = next(s for s in one.cells if s.name.startswith("conv2") and s.conv_pass == "fprop")
    assert [math.isnan(v) for v in cell.values] == [False] * 7 + [True] * 5
    assert cell.failed == 5
    assert all(v > 0 for v in cell.values[:7])
    assert any("gaps: 5 not ok, 0 without a line" in r for r in trend_forms.remarks(one))


def test_a_step_across_a_gap_says_so(tmp_path: Path) -> None:
    def factor(number: int, layer: int, conv_pass: Pass) -> float:
        return 0.0 if number == 6 else 1.2 if number > 6 else 1.0

    one = only(trend(history(tmp_path, 13, noisy(factor, 0.004), passes=(Pass.FPROP,))))
    (step,) = one.passes["fprop"].steps
    assert (step.last_before, step.position) == (5, 7)
    text = one.since(one.passes["fprop"], step)
    assert f"since {commit(7)[:7]}, after {commit(5)[:7]}" in text
    assert math.isnan(one.passes["fprop"].values[6])


def test_folders_that_share_no_cell_have_no_level_in_common(tmp_path: Path) -> None:
    folders = [folder(tmp_path / str(i), i, usual, layers=(0,)) for i in range(5)]
    folders += [folder(tmp_path / str(i), i, usual, layers=(9,)) for i in (5, 6)]
    one = only(trend(folders))
    assert one.passes["fprop"].places == [0, 1, 2, 3, 4]
    assert one.passes["fprop"].left_out == 1
    assert len(one.revisions) == 7


def test_a_cell_in_one_folder_is_counted(tmp_path: Path) -> None:
    folders = history(tmp_path, 4, layers=(0,))
    folder(folders[2], 2, usual, layers=(7,))
    one = only(trend(folders))
    assert one.single == 4  # three passes, and all of them together
    assert len(one.cells) == 4


# --- what is compared ---------------------------------------------------------------------


def test_two_machines_are_never_mixed(tmp_path: Path) -> None:
    """One is twice as fast; their folders alternate."""
    for i in range(12):
        other = {"device_name": "another"} if i % 2 else {}
        factor = step_at(6) if i % 2 else usual
        folder(
            tmp_path / f"{i:02d}", i, noisy(lambda *a, f=factor: f(*a) / 2, 0.002),
            facts=environment(i, **other), passes=(Pass.FPROP,),
        )  # fmt: skip
    found = trend(sorted(tmp_path.iterdir()))
    names = [one.machine["device_name"] for one in found.histories]
    assert sorted(names) == ["a processor", "another"]
    for one in found.histories:
        assert len(one.revisions) == 6
        assert steps(one).get("fprop", []) == (
            [3] if one.machine["device_name"] == "another" else []
        )
    assert found.exit_code == 1


def test_other_software_is_told_and_compared(tmp_path: Path) -> None:
    folders = [
        folder(tmp_path / str(i), i, usual, facts=environment(i, torch="3" if i > 2 else "2"))
        for i in range(5)
    ]
    one = only(trend(folders))
    assert [revision.software for revision in one.revisions] == ["", "", "", "torch 2 -> 3", ""]
    remark = f"software changes at {commit(3)[:7]}: torch 2 -> 3"
    assert remark in list(trend_forms.remarks(one))


@pytest.mark.parametrize(
    "how", ["one folder", "two machines", "other cells", "failed", "other impl"]
)
def test_nothing_to_compare(how: str, tmp_path: Path) -> None:
    first = folder(tmp_path / "a", 0, usual)
    changes: dict[str, dict[str, Any]] = {
        "two machines": {"facts": environment(1, device_name="another")},
        "other cells": {"layers": (7,)},
    }
    more = changes.get(how, {})
    factor = (lambda *_: 0.0) if how == "failed" else usual
    folders = [first] if how == "one folder" else [first, folder(tmp_path / "b", 1, factor, **more)]
    impl = "masked_dense" if how == "other impl" else "block_sparse"
    found = trend(folders, impl)
    assert found.exit_code == 4
    assert found.histories == ()
    done = command(*folders, "--out", tmp_path / "out", "--impl", impl)
    assert done.exit_code == 4
    assert f"no two folders have an ok cell of {impl} in common" in done.stderr
    assert not (tmp_path / "out").exists()


def test_few_folders_show_changes_and_no_steps(tmp_path: Path) -> None:
    folders = history(tmp_path, 3, step_at(1, 1.5, None))
    found = trend(folders)
    assert steps(only(found)) == {}
    assert found.exit_code == 0
    assert only(found).passes["fprop"].changes[1:] == pytest.approx([math.log(1.5), 0])
    done = command(*folders, "--out", tmp_path / "out")
    assert "(+50.0 %)" in done.stdout
    assert "NO STEPS CALLED: 3 folders show changes alone, 4 are needed" in done.stdout
