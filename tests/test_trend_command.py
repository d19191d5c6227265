"""``trend``: labels, notes, wrong usage, and what the command writes."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from bench import trend_forms
from bench.gating.trend import trend
from bench.store import StoreError
from hrbp_core.shapes import Pass
from tests.history_samples import (
    command,
    commit,
    environment,
    folder,
    history,
    only,
    slower_fprop,
    usual,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def slower(tmp_path_factory) -> list[Path]:
    return slower_fprop(tmp_path_factory.mktemp("slower"))


# --- labels and notes ---------------------------------------------------------------------


def labels(tmp_path: Path, *facts: dict[str, object]) -> list[str]:
    folders = [
        folder(tmp_path / "runs" / f"day{i}", i, usual, facts=environment(i, **each))
        for i, each in enumerate(facts)
    ]
    return [revision.label for revision in only(trend(folders)).revisions]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (({}, {}), [commit(0)[:7], commit(1)[:7]]),
        (({"dirty": True}, {}), [commit(0)[:7] + "+", commit(1)[:7]]),
        (({"commit": "v1.2"}, {"commit": "v1.3"}), ["v1.2", "v1.3"]),
        (({"commit": commit(5)}, {"commit": commit(5)}), ["day0", "day1"]),
        (({"commit": None}, {}), ["day0", "day1"]),
    ],
)
def test_a_label_tells_folders_apart(facts, expected: list[str], tmp_path: Path) -> None:
    assert labels(tmp_path, *facts) == expected


def test_folders_of_one_name_have_longer_labels(tmp_path: Path) -> None:
    facts = environment(0)
    folders = [
        folder(tmp_path / day / "quick", i, usual, facts=facts) for i, day in enumerate("ab")
    ]
    assert [r.label for r in only(trend(folders)).revisions] == ["a/quick", "b/quick"]


def test_what_was_left_out_is_noted(tmp_path: Path) -> None:
    folders = history(tmp_path, 3)
    path = folders[1] / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    folder(folders[2], 8, lambda *_: 2.0)  # the same cells at another commit: the last counts
    alone = folder(tmp_path / "alone", 9, usual, layers=(8,))
    found = trend([*folders, alone])
    assert found.notes == [
        f"{folders[1]}: the torn last line was left out",
        f"{folders[2]}: 18 cells were measured again; the last counts",
        f"{alone}: no cell of block_sparse that another folder has, too",
    ] or found.notes == [
        f"{folders[1]}: the torn last line was left out",
        f"{folders[2]}: 18 cells were measured again; the last counts",
    ]
    assert only(found).passes["fprop"].changes[2] == pytest.approx(math.log(2))


@pytest.mark.parametrize("how", ["twice", "none there", "unreadable"])
def test_wrong_usage_is_one_sentence(how: str, tmp_path: Path) -> None:
    first = folder(tmp_path / "a", 0, usual)
    second = {"twice": tmp_path / "b" / ".." / "a"}.get(how, tmp_path / "b")
    if how != "none there":
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "results.jsonl").write_text("a\nb\n")
    with pytest.raises(StoreError if how != "twice" else ValueError, match="expected"):
        trend([first, second])
    done = command(first, second, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_no_folder_is_wrong_usage() -> None:
    assert command().exit_code == 2
    with pytest.raises(ValueError, match="expected folders of results, got none"):
        trend([])


def test_without_ruptures_the_command_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    folders = history(tmp_path, 5)
    monkeypatch.setitem(sys.modules, "ruptures", None)
    done = command(*folders, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "expected the package ruptures" in done.stderr
    assert "python -m pip install" in done.stderr
    assert not (tmp_path / "out").exists()


# --- the command's output -----------------------------------------------------------------


def test_the_files_say_the_same(slower: list[Path], tmp_path: Path) -> None:
    done = command(*slower, "--out", tmp_path, "--json")
    assert done.exit_code == 1
    data = json.loads(done.stdout)
    assert done.stdout == (tmp_path / "trend.json").read_text()
    assert data["schema"] == data["exit_code"] == 1
    (step,) = data["histories"][0]["passes"]["fprop"]["steps"]
    assert step["since"] == commit(12)[:7]
    assert step["time_ratio"] == pytest.approx(1.08, abs=0.02)
    assert len(step["cells"]) >= 2
    with (tmp_path / "trend.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 20 * (4 + 3 * 4)
    mean = [line for line in lines if line["series"] == "fprop"]
    assert [float(line["value"]) for line in mean] == pytest.approx(
        data["histories"][0]["passes"]["fprop"]["values"]
    )
    assert [bool(line["step"]) for line in mean] == [i == 12 for i in range(20)]
    text = (tmp_path / "trend.md").read_text()
    assert "![" in text
    assert "(trend.png)" in text
    assert f"fprop: {step['text']}" in text
    assert sum(line.startswith("| 0") for line in text.splitlines()) == 20


def test_a_table_for_people(slower: list[Path], tmp_path: Path) -> None:
    done = command(*slower, "--out", tmp_path)
    assert done.exit_code == 1
    marked = [line for line in done.stdout.splitlines() if commit(12)[:7] in line and "│" in line]
    assert "fprop: slower by" in marked[0]
    assert "noise 1." in done.stdout
    assert "nothing below 3% is called a step" in done.stdout
    assert str(tmp_path / "trend.svg") in done.stdout


def test_gaps_are_null_and_empty(tmp_path: Path) -> None:
    def factor(number: int, layer: int, conv_pass: Pass) -> float:
        return 0.0 if number == 1 else 1.0

    found = trend(history(tmp_path, 4, factor))
    data = json.loads(trend_forms.to_json(found))
    assert data["histories"][0]["passes"]["all"]["values"][1] is None
    lines = list(csv.DictReader(io.StringIO(trend_forms.to_csv(found))))
    assert {line["value"] for line in lines if line["position"] == "1"} == {""}
    assert " gap " in trend_forms.to_markdown(found, ["a.png"], ["b"])


def test_names_of_any_kind_stay_in_their_cell(tmp_path: Path) -> None:
    facts = [environment(i, device_name="a|<b>", commit=f"x|<i>{i}") for i in range(2)]
    folders = [folder(tmp_path / str(i), i, usual, facts=each) for i, each in enumerate(facts)]
    text = trend_forms.to_markdown(trend(folders), ["a.png"], ["b"])
    assert "<" not in text.replace("&lt;", "")
    rows = [line for line in text.splitlines() if line.startswith("| x")]
    assert [row.replace("\\|", "").count("|") for row in rows] == [8, 8]


def test_the_command_loads_nothing_heavy_for_its_help() -> None:
    code = (
        "import sys, typer; from typer.testing import CliRunner; from bench import cli_history\n"
        "app = typer.Typer(); cli_history.register(app)\n"
        "for name in ('promote', 'trend'):\n"
        "    done = CliRunner().invoke(app, [name, '--help'])\n"
        "    assert done.exit_code == 0 and 'Example' in done.stdout, done.stdout\n"
        "print([m for m in ('torch', 'pandas', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_hard_facts_are_told(slower: list[Path]) -> None:
    one = only(trend(slower[:2]))
    assert one.machine == environment(0).hard
    assert one.context["suite"] == "test"
    assert dataclasses.asdict(one)["machine"]["device"] == "cpu"
