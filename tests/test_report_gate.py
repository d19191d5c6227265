"""The gate's page: made from gate.json alone, every cell and number as the gate said it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.gate_result import GATE, GateResult, exit_code, to_json
from bench.jsonl import StoreError
from bench.verdict import Verdict, VerdictKind
from reports import build_report, style
from tests import synthetic_results as synthetic

ABOUT = {
    "base": {"commit": "b" * 40, "revision": "main"},
    "head": {"commit": "c" * 40, "dirty": True},
    "environment": {"device_name": "a processor"},
    "trials": 12,
    "seconds": 150.0,
    "rule": {},
    "suite": "quick",
}


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "PNG_DPI", 50)


def verdict(number: int, kind: VerdictKind, ratio: float | None, **more: Any) -> Verdict:
    times = () if ratio is None else (ratio, ratio - 0.01, ratio + 0.012)
    label = f"quick/conv{number}_3x3 fprop float32 cpu hrbp2@0.25 32x32 block_sparse hot"
    return Verdict(f"{number:016d}", label, kind, f"reason {number}", *times, **more)


def write(folder: Path, verdicts: list[Verdict], about: dict[str, Any] = ABOUT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    result = GateResult(verdicts, ["a note"], exit_code(verdicts), [], about)
    (folder / GATE).write_text(to_json(result))
    return folder


def several() -> list[Verdict]:
    return [
        verdict(1, VerdictKind.PASS, 0.998, margin=0.031, trials=6),
        verdict(2, VerdictKind.FAIL, 1.104, margin=0.03, trials=3),
        verdict(3, VerdictKind.INCONCLUSIVE, 1.04, margin=0.12, trials=36),
        verdict(4, VerdictKind.WRONG, None),
    ]


def markdown(folder: Path) -> str:
    return (build_report(folder).pdf.parent / "report.md").read_text()


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_cell_stands_with_its_numbers_what_did_not_pass_first(tmp_path: Path) -> None:
    text = markdown(write(tmp_path, several()))
    table = [row for row in rows(text) if len(row) == 6 and row[0].isupper()]
    assert [row[0] for row in table] == ["FAIL", "INCONCLUSIVE", "WRONG", "PASS"]
    assert table[0][2:5] == ["1.104 (1.094 to 1.116)", "3.0 %", "3"]
    assert table[2][2:5] == ["—", "—", "—"]
    assert [row[5] for row in table] == ["reason 2", "reason 3", "reason 4", "reason 1"]


def test_it_says_what_was_measured_where_and_with_what(tmp_path: Path) -> None:
    text = markdown(write(tmp_path, several()))
    for words in ("b" * 10, "c" * 10 + " with changes", "12 trials in 2.5 minutes", "a processor",
                  "bench gate --base-rev main", "a note", "WRONG OR MISSING"):  # fmt: skip
        assert words in text.replace("\\", ""), words


def test_the_picture_tells_how_many_are_slower(tmp_path: Path) -> None:
    files = build_report(write(tmp_path, several()))
    assert [f.name for f in files.figures] == ["gate.png"]
    assert "1 of 3 cells slower" in (files.markdown.read_text())
    assert "none of 1 cell is slower" in markdown(write(tmp_path, several()[:1]))


def test_a_gate_without_times_has_no_picture(tmp_path: Path) -> None:
    files = build_report(write(tmp_path, several()[3:]))
    assert files.figures == []
    assert "WRONG" in files.markdown.read_text()


@pytest.mark.parametrize("count", [1, 100])
def test_any_number_of_cells(tmp_path: Path, count: int) -> None:
    cells = [verdict(i, VerdictKind.PASS, 1 + i / 1e4, margin=0.03, trials=6) for i in range(count)]
    text = markdown(write(tmp_path, cells))
    assert ("The 48 slowest of 100 are shown" in text) is (count == 100)
    assert ("20 further cells passed" in text) is (count == 100)


def test_stored_folders_have_the_same_page(tmp_path: Path) -> None:
    cells = [verdict(1, VerdictKind.PASS, 1.0)]
    text = markdown(write(tmp_path, cells, {}))
    assert "Two stored folders, one process each" in text


def test_beside_a_sweep_it_is_one_section_of_the_report(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path, synthetic.sweep(), [])
    text = markdown(write(folder, several()))
    assert text.index("Findings") < text.index("## Gate") < text.index("Machine and method")


def test_names_with_markup_are_escaped(tmp_path: Path) -> None:
    bad = verdict(1, VerdictKind.FAIL, 1.2, margin=0.03, trials=3)
    bad = Verdict(**{**bad.__dict__, "label": "<b>x</b>|y é", "reason": "a | b <i>"})
    files = build_report(write(tmp_path, [bad]))
    assert "<b>x</b>" not in files.html.read_text()
    assert "<i>" not in files.markdown.read_text()


def test_the_same_gate_gives_the_same_bytes(tmp_path: Path) -> None:
    both = [build_report(write(tmp_path / name, several())) for name in "ab"]
    for name in ("pdf", "html", "markdown"):
        first, second = (getattr(files, name).read_bytes() for files in both)
        assert first == second, name


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}'])
def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / GATE).write_text(text)
    with pytest.raises(StoreError, match=r"expected .*gate\.json"):
        build_report(tmp_path)


def test_a_self_test_alone_has_a_page(tmp_path: Path) -> None:
    share = [0.004, 0.0, 0.02]
    rates = {"runs": 1000, "alarms": share, "inconclusive": share, "found": share,
             "visible": 0.043, "seconds": [240.0, 300.0]}  # fmt: skip
    data = {
        "schema": 1, "quiet": rates | {"found": None},
        "planted": {"0.1": rates | {"found": [0.97, 0.9, 1.0]}},
        "effect": 0.1, "real": [{}] * 5, "found": True, "pool_cells": 20, "pool_trials": 12,
        "environment": {"device_name": "a processor"},
    }  # fmt: skip
    (tmp_path / "self_test.json").write_text(json.dumps(data))
    text = markdown(tmp_path)
    assert "0.4 % (0.0 to 2.0 %)" in text
    assert "97.0 % (90.0 to 100.0 %)" in text
    assert "drawn from 12 real trials" in text
