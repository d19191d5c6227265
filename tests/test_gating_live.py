"""bench.gating.live: from a question to verdicts, notes and an exit code; no process is started."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.gate_result import to_json
from bench.gating.child import Died
from bench.gating.live import gate_revisions, keeper, write
from bench.gating.readings import Reading
from bench.gating.rule import rule_for
from bench.gating.sides import NoRevision
from bench.jsonl import make_folder
from bench.suites import Sweep
from bench.verdict import VerdictKind
from tests.gating_scene import BASE, HEAD, Scene, question, staged, timed

Kind = VerdictKind


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return staged(tmp_path, monkeypatch)


def lines_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "gate_trials.jsonl").read_text().splitlines()]


# --- verdicts -----------------------------------------------------------------------------


def test_equal_code_passes_after_the_screen(scene: Scene, tmp_path: Path) -> None:
    asked = question(tmp_path)
    result = gate_revisions(asked)
    assert (result.exit_code, result.errors) == (0, [])
    assert [v.cell_id for v in result.verdicts] == list(asked.cells)
    assert [v.kind for v in result.verdicts] == [Kind.PASS] * 2
    assert result.about == {
        "base": {"commit": BASE, "revision": "main"},
        "head": {"commit": HEAD, "dirty": False},
        "environment": {"of": "head"},
        "trials": 6,
        "seconds": pytest.approx(60.0),
        "rule": asdict(rule_for("cpu")),
        "suite": "resnet50",
    }
    assert scene.names == [list(asked.cells)] * 6
    assert scene.asked == [("base", ("block_sparse",)), ("head", ("block_sparse",))]


def test_a_slow_cell_fails_alone_and_its_numbers_are_told(scene: Scene, tmp_path: Path) -> None:
    scene.says = lambda place, trial: timed(math.log(1.2) * (place == 0) + 0.001 * (-1) ** trial)
    result = gate_revisions(question(tmp_path))
    slow, quiet = result.verdicts
    assert (result.exit_code, slow.kind, quiet.kind) == (1, Kind.FAIL, Kind.PASS)
    assert slow.ratio == pytest.approx(1.2, rel=0.01)
    assert slow.low is not None
    assert slow.high is not None
    assert 1.15 < slow.low <= slow.ratio <= slow.high < 1.25  # type: ignore[operator]
    assert slow.base_s == pytest.approx(1e-3)
    assert slow.head_s == pytest.approx(1.2e-3, rel=0.01)
    assert "fprop" in slow.label
    assert slow.reason.endswith("by Wilcoxon's signed ranks")
    assert (slow.p or 1) < 0.05
    assert (slow.p_wilcoxon or 1) < 0.2
    assert all(0.03 <= (v.margin or 0) < 0.05 for v in result.verdicts)


@pytest.mark.parametrize(
    ("reading", "code", "kind"),
    [
        (Reading(head=("wrong", "off")), 5, Kind.WRONG),
        (Reading(head=("crashed", "gone")), 5, Kind.MISSING),
        (Reading(head=("skipped", "not here")), 5, Kind.MISSING),
        (Reading(base=("crashed", "AttributeError: x")), 4, Kind.INCOMPARABLE),
        (Reading(base=("oom", "x"), head=("oom", "x")), 0, Kind.PASS),
        (timed(3.0) , 1, Kind.FAIL),
    ],
)  # fmt: skip
def test_what_becomes_of_one_cell_is_its_verdict(scene, tmp_path, reading, code, kind) -> None:
    scene.says = lambda place, trial: timed(0.001) if place else reading
    result = gate_revisions(question(tmp_path))
    assert result.exit_code == code
    assert [v.kind for v in result.verdicts] == [kind, Kind.PASS]


def test_noise_is_inconclusive_when_time_is_over(scene: Scene, tmp_path: Path) -> None:
    scene.says = lambda place, trial: timed(0.4 * (-1) ** trial, 0.4)
    result = gate_revisions(question(tmp_path, budget_s=200))
    assert result.exit_code == 3
    assert scene.clock.now <= 100 + 200
    assert len(scene.names) == 20


# --- notes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("commits", "dirty", "notes"),
    [
        ((BASE, HEAD), False, ["base bbbbbbbbbb (main), head aaaaaaaaaa"]),
        (
            (BASE, BASE), False,
            ["base bbbbbbbbbb (main), head bbbbbbbbbb",
             "base and head are the same commit: what differs is noise"],
        ),
        (
            (BASE, BASE), True,
            ["base bbbbbbbbbb (main), head bbbbbbbbbb with uncommitted changes",
             "head's uncommitted changes were measured"],
        ),
    ],
)  # fmt: skip
def test_notes_say_what_was_measured(scene, tmp_path, commits, dirty, notes) -> None:
    scene.commits, scene.dirty = commits, dirty
    result = gate_revisions(question(tmp_path))
    assert result.notes == notes
    assert result.about["head"] == {"commit": commits[1], "dirty": dirty}


# --- sides that cannot be measured --------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "code", "starts"),
    [
        (["base"], 4, ["base bbbbbbbbbb does not build, or lacks what the suite calls: why base"]),
        (["head"], 2, ["head aaaaaaaaaa does not build: why head"]),
        (["base", "head"], 2, ["base bbbbbbbbbb does not build", "head aaaaaaaaaa does not"]),
    ],
)
def test_a_side_that_does_not_load(scene, tmp_path, broken, code, starts) -> None:
    scene.broken = {name: Died(name, None, f"why {name}", True) for name in broken}
    result = gate_revisions(question(tmp_path))
    assert (result.exit_code, result.verdicts, scene.names) == (code, [], [])
    assert len(result.errors) == len(starts)
    assert all(e.startswith(s) for e, s in zip(result.errors, starts, strict=True))
    assert result.sentence.startswith("NOT COMPARED: ")


@pytest.mark.parametrize(("side", "code"), [("base", 4), ("head", 2)])
def test_a_side_that_dies_with_no_cell_to_blame(scene, tmp_path, side, code) -> None:
    scene.dies = Died(side, None, "killed by SIGKILL")
    result = gate_revisions(question(tmp_path))
    assert (result.exit_code, result.verdicts) == (code, [])
    assert result.errors == [f"{side} cannot be measured: killed by SIGKILL"]


def test_no_such_revision_is_no_base(scene: Scene, tmp_path: Path) -> None:
    scene.revision = NoRevision("expected a revision that git knows, got 'x'")
    result = gate_revisions(question(tmp_path))
    assert (result.exit_code, result.verdicts) == (4, [])
    assert result.errors == ["base: expected a revision that git knows, got 'x'"]


# --- the folder ---------------------------------------------------------------------------


def test_an_earlier_gates_files_are_replaced_and_others_stay(scene, tmp_path) -> None:
    asked = question(tmp_path)
    (asked.out / "report").mkdir(parents=True)
    for name in ("gate.json", "gate_trials.jsonl", "report/report.md", "results.jsonl", "notes"):
        (asked.out / name).write_text("earlier\n")
    result = gate_revisions(asked)
    left = sorted(p.name for p in asked.out.iterdir() if not p.name.endswith(".lock"))
    assert left == ["gate_trials.jsonl", "notes", "results.jsonl"]
    lines = lines_of(asked.out)
    assert [line["process_id"] for line in lines[:4]] == ["1-base", "1-head", "1-again", "2-base"]
    assert len(lines) == 18
    assert {line["schema"] for line in lines} == {1}
    write(to_json(result), asked.out)
    stored = json.loads((asked.out / "gate.json").read_text())
    assert (stored["exit_code"], len(stored["verdicts"])) == (0, 2)
    assert stored["about"]["trials"] == 6


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"see": 0.5}, "expected a smallest visible slow-down from 3% to 10%"),
        ({"see": 0.01}, "expected a smallest visible slow-down"),
        ({"impls": ("magic",)}, "expected an implementation of"),
        ({"mode": "sustained"}, "expected a mode of"),
        ({"sweep": Sweep("nope", "cpu")}, "expected a suite of"),
        (
            {"sweep": Sweep("resnet50", "cpu", densities=(0.01,), blocks=(64,))},
            "expected a pattern that a layer can have; ",
        ),
    ],
)
def test_nonsense_is_refused_before_anything_is_lost(scene, tmp_path, changes, text) -> None:
    asked = question(tmp_path, **changes)
    write("{}", asked.out)
    with pytest.raises(ValueError, match=text):
        gate_revisions(asked)
    assert (asked.out / "gate.json").read_text() == "{}"


def test_a_record_of_each_process_has_a_name_of_its_own(tmp_path: Path) -> None:
    keep = keeper(tmp_path / "out")
    make_folder(tmp_path / "out")
    for trial in (1, 2):
        for role in ("base", "head", "again"):
            keep({"trial": trial, "role": role})
    assert len({line["process_id"] for line in lines_of(tmp_path / "out")}) == 6


def test_the_number_of_cells_is_what_was_asked(tmp_path: Path) -> None:
    both = question(tmp_path, impls=("block_sparse", "dense")).cells
    assert [f"{c.impl} {c.case.conv_pass}" for c in both.values()] == [
        f"{impl} {name}" for name in ("fprop", "dgrad") for impl in ("block_sparse", "dense")
    ]
    assert {c.mode for c in both.values()} == {"hot"}
