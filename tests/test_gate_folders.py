"""bench.gate: other machines, other software, and folders that cannot be read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from bench.gate import compare
from bench.records import Status
from bench.verdict import VerdictKind
from tests.store_samples import ENVIRONMENT, cell, failed, scaled, store

Kind = VerdictKind


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("device", "cuda"),
        ("device_name", "another"),
        ("capability", "9.0"),
        ("sm_count", 132),
        ("memory_gib", 80),
        ("mig", "1g.10gb"),
        ("ecc", "on"),
        ("power_limit_w", 700.0),
        ("clock_mode", "locked"),
        ("schema", 2),
    ],
)
def test_another_machine_makes_every_cell_incomparable(
    tmp_path: Path, fact: str, value: Any
) -> None:
    other = dataclasses.replace(ENVIRONMENT, **{fact: value})
    base = store(tmp_path / "base", cell(0), cell(1), cell(2), failed(Status.SKIPPED, 3))
    head = store(
        tmp_path / "head", cell(0), failed(Status.WRONG, 1), failed(Status.SKIPPED, 3),
        environment=other,
    )  # fmt: skip
    result = compare(base, head)
    assert [v.kind for v in result.verdicts] == [Kind.INCOMPARABLE] * 4
    assert result.exit_code == 4
    old = getattr(ENVIRONMENT, fact)
    assert all(
        v.reason == f"another machine: {fact} {old!r} in base, {value!r} in head"
        for v in result.verdicts
    )
    assert any(n.startswith("1 cells wrong or impossible in head") for n in result.notes)


def test_other_software_is_a_note(tmp_path: Path) -> None:
    other = dataclasses.replace(ENVIRONMENT, torch="2.14.0", threads=4, commit="def")
    base = store(tmp_path / "base", cell(0), cell(1))
    result = compare(base, store(tmp_path / "head", cell(0), cell(1), environment=other))
    assert result.exit_code == 0
    assert result.notes == [
        "software differs: torch '2.13.0' in base, '2.14.0' in head, threads 2 in base, 4 in head"
    ]


def test_machines_are_compared_cell_by_cell(tmp_path: Path) -> None:
    """A folder may hold a CPU and a GPU; a cell that is gone from one is missing."""
    gpu = dataclasses.replace(ENVIRONMENT, device="cuda", device_name="a GPU")
    base = store(tmp_path / "base", cell(0), cell(1))
    store(base, cell(2), cell(3), environment=gpu)
    head = store(tmp_path / "head", cell(2), environment=gpu)
    store(head, cell(0), cell(3))
    kinds = [v.kind for v in compare(base, head).verdicts]
    assert kinds == [Kind.PASS, Kind.MISSING, Kind.PASS, Kind.INCOMPARABLE]


def test_of_a_cell_in_two_environments_the_last_counts(tmp_path: Path) -> None:
    base = store(tmp_path / "base", cell())
    head = store(tmp_path / "head", cell(0, scaled(2)))
    store(head, cell(), environment=dataclasses.replace(ENVIRONMENT, commit="def"))
    result = compare(base, head)
    assert result.exit_code == 0
    assert result.notes == ["head: 1 cells in more than one environment; the last counts"]


# --- folders ------------------------------------------------------------------------------


def broken(folder: Path, how: str) -> Path:
    if how == "missing":
        return folder
    folder.mkdir()
    if how != "without results":
        content = {"empty": "", "unreadable": "{}\n{}\n", "not JSON": "a\nb\n"}[how]
        (folder / "results.jsonl").write_text(content)
    return folder


@pytest.mark.parametrize("how", ["missing", "without results", "empty", "unreadable", "not JSON"])
def test_folders_that_cannot_be_read(tmp_path: Path, how: str) -> None:
    good, bad = store(tmp_path / "good", cell()), broken(tmp_path / "bad", how)
    for base, head, code, sides in (
        (bad, good, 4, ["base"]),
        (good, bad, 2, ["head"]),
        (bad, bad, 2, ["base", "head"]),
    ):
        result = compare(base, head)
        assert result.exit_code == code
        assert [e.split(":")[0] for e in result.errors] == sides
        assert all("expected" in e and "\n" not in e for e in result.errors)
        assert result.verdicts == []
        assert result.sentence.startswith("NOT COMPARED")


def test_a_torn_line_is_a_missing_cell_with_a_note(tmp_path: Path) -> None:
    base = store(tmp_path / "base", cell(0), cell(1))
    head = store(tmp_path / "head", cell(0), cell(1))
    path = head / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    result = compare(base, head)
    assert [v.kind for v in result.verdicts] == [Kind.PASS, Kind.MISSING]
    assert result.exit_code == 5
    assert result.notes == ["head: the torn last line was left out"]
    assert compare(head, base).exit_code == 0
