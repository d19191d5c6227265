"""From stored lines to the library's table, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bench import tune_table
from bench.cli import app
from bench.tune_cases import candidates, kernel_problem
from bench.tune_table import entry_of, key_of, merge
from hrbp_core.kernels import tuned
from hrbp_core.shapes import Pass
from tests.tuning_samples import GPU, ScriptedGpu, lines, quick

TASK = quick()[0]
PROBLEM = kernel_problem(TASK.case)
NAMES = [c.name for c in candidates(Pass.FPROP, PROBLEM, torch.bfloat16, 132, 90)[1]]


def run(out: Path, fast: str, *, day: int = 1, gpu: str = GPU, **more: Any) -> Path:
    """Tune conv4_3x3 so that ``fast`` wins, on a day."""
    ScriptedGpu(times={fast: 50e-6}, name=gpu).tune(out, quick(**more))
    records = [line | {"date": f"2026-12-0{day}T00:00:00+00:00"} for line in lines(out)]
    (out / "tune.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return out


def tiles(table: Path, problem: Any = PROBLEM, gpu: str = GPU) -> str | None:
    """Return the name of the tile that the library would take from the table."""
    tuned.load.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HRBP_TUNED", str(table))
        found = tuned.lookup(Pass.FPROP, problem, torch.bfloat16, gpu, 90)
    return found[0].name if found else None


def test_a_winner_is_found_by_the_library(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    assert not table.exists()
    found = merge([run(tmp_path / "a", NAMES[2])], table)
    assert (found.new, found.changed, found.same, found.total) == (1, 0, 0, 1)
    assert tiles(table) == NAMES[2]
    (entry,) = tuned.read(table)
    assert entry["median_us"] == pytest.approx(50, rel=0.01)
    assert entry["default_us"] == pytest.approx(100, rel=0.01)
    assert (entry["default_tile"], entry["versions"]) == (NAMES[0], {"torch": "2.13"})


def test_two_runs_come_together_and_the_later_one_counts(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    later, earlier = run(tmp_path / "b", NAMES[3], day=2), run(tmp_path / "a", NAMES[2])
    other = run(tmp_path / "c", NAMES[1], gpu="Another GPU")
    for folders in ([earlier, later, other], [other, later, earlier]):
        table.unlink(missing_ok=True)
        found = merge(folders, table)
        assert (found.new, found.total) == (2, 2)
        assert tiles(table) == NAMES[3]
        assert tiles(table, gpu="Another GPU") == NAMES[1]
    text = table.read_text()
    again = merge([later, other], table)
    assert (again.new, again.changed, again.same, again.total) == (0, 0, 2, 2)
    assert table.read_text() == text
    third = merge([run(tmp_path / "d", NAMES[4], day=3)], table)
    assert (third.new, third.changed, third.same, third.total) == (0, 1, 0, 2)


def test_what_others_tuned_stays_and_an_entry_is_a_line(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    merge([run(tmp_path / "a", NAMES[2], gpu="Z")], table)
    before = table.read_text().splitlines()[1]
    merge([run(tmp_path / "b", NAMES[2], gpu="A")], table)
    rows = table.read_text().splitlines()
    assert (rows[0], rows[-1], len(rows)) == ('{"schema": 1, "entries": [', "]}", 4)
    assert rows[2] == before
    assert '"gpu": "A"' in rows[1]


def test_a_base_is_added_to_and_left_as_it_is(tmp_path: Path) -> None:
    base, table = tmp_path / "base.json", tmp_path / "table.json"
    merge([run(tmp_path / "a", NAMES[2], gpu="Z")], base)
    text = base.read_text()
    assert merge([run(tmp_path / "b", NAMES[1])], table, base).total == 2
    assert base.read_text() == text


def test_what_no_candidate_was_right_for_is_left_out(tmp_path: Path) -> None:
    table, out = tmp_path / "table.json", tmp_path / "a"
    ScriptedGpu(verdicts={n: [("wrong", "off")] for n in NAMES}).tune(out)
    found = merge([out], table)
    assert (found.total, found.without) == (0, 1)
    assert json.loads(table.read_text()) == {"schema": 1, "entries": []}


def test_torn_lines_and_other_kernels_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, out = tmp_path / "table.json", run(tmp_path / "a", NAMES[2])
    with (out / "tune.jsonl").open("a") as file:
        file.write('{"schema": 1, "key"')
    assert (merge([out], table).torn, merge([out], table).other_code) == (1, 0)
    monkeypatch.setattr(tune_table, "kernels_digest", lambda: "another")
    assert merge([out], table).other_code == 1


def test_a_line_that_is_no_tuning_is_told(tmp_path: Path) -> None:
    (line,) = lines(run(tmp_path / "a", NAMES[2]))
    assert key_of(entry_of(line)) == key_of(entry_of(line | {"code": "another"}))
    with pytest.raises(ValueError, match=r"the line of conv4_3x3 .*: expected shape as K, C, R, S"):
        entry_of({name: value for name, value in line.items() if name != "shape"})


def test_the_command_merges_into_the_librarys_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "tuned.json"
    table.write_text(tuned.TABLE.read_text())
    monkeypatch.setattr(tuned, "TABLE", table)
    folders = [run(tmp_path / "a", NAMES[2]), run(tmp_path / "b", NAMES[2], gpu="Z")]
    words = [word for folder in folders for word in ("--merge", str(folder))]
    done = CliRunner().invoke(app, ["tune", *words])
    assert done.exit_code == 0, done.output
    assert "2 new, 0 changed, 0 as they were" in done.output
    assert tiles(table) == NAMES[2]
    other = tmp_path / "other.json"
    assert CliRunner().invoke(app, ["tune", *words, "--table", str(other)]).exit_code == 0
    assert tiles(other, gpu="Z") == NAMES[2]
    none = CliRunner().invoke(app, ["tune", "--merge", str(tmp_path / "none")])
    assert (none.exit_code, "as `python -m bench tune --out` writes it" in none.output) == (2, True)
