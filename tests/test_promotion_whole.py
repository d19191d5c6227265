"""``promote``: a base is there whole or not at all, and a changed one is noticed."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import whole_folder
from bench.gating.promotion import PromotionError, commit_of_base, promote, promoted
from bench.records import Environment, Status
from bench.store import StoreError
from tests.store_samples import CHILD_ENV, ENVIRONMENT, cell, failed, store

CLEAN = dataclasses.replace(ENVIRONMENT, commit="0123456789abcdef0123456789abcdef01234567")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return store(tmp_path / "r", cell(0), cell(1), failed(Status.SKIPPED, 2), environment=CLEAN)


# --- whole or not at all ------------------------------------------------------------------

KILLED = """
import os, signal, sys
from bench import whole_folder
from bench.gating import promotion
at = sys.argv[3]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if at == "copying":
    promotion.sync = die
elif at == "before the rename":
    whole_folder._put = die
else:
    real = os.rename
    def rename(source, target):
        real(source, target)
        die()
    whole_folder.os.rename = rename
promotion.promote(sys.argv[1], sys.argv[2], "v1", replace=True)
"""


@pytest.mark.parametrize("at", ["copying", "before the rename", "between the renames"])
@pytest.mark.parametrize("taken", [False, True])
def test_killed_half_way_there_is_the_old_base_or_none(
    at: str, taken: bool, results: Path, tmp_path: Path
) -> None:
    bases = tmp_path / "bases"
    before = promote(results, bases, "v1") if taken else None
    store(results, cell(9), environment=CLEAN)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(results), str(bases), at],
        env=CHILD_ENV, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    if not taken and at == "between the renames":  # its only rename was the last thing to do
        assert promoted(bases / "v1").cells["ok"] == 3
        return
    gone = at == "between the renames"
    assert (bases / "v1").exists() is (taken and not gone)
    assert all(p.name == "v1" or p.name.startswith(".v1.") for p in bases.iterdir())
    promote(results, bases, "v2")  # the next one clears away, and puts back what was set aside
    assert sorted(p.name for p in bases.iterdir()) == (["v1", "v2"] if taken else ["v2"])
    if taken:
        assert promoted(bases / "v1") == before


def test_what_a_living_process_prepares_is_left_alone(results: Path, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as alive:
        mine = tmp_path / "bases" / f".v9.{alive.pid}.tmp"
        mine.mkdir(parents=True)
        promote(results, tmp_path / "bases", "v1")
        assert mine.is_dir()
        alive.kill()
    promote(results, tmp_path / "bases", "v2")
    assert not mine.exists()


def test_a_failure_leaves_nothing(results: Path, tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StoreError, match="expected to write a base into"):
        promote(results, tmp_path / "bases")
    assert list((tmp_path / "bases").iterdir()) == []


def test_a_rename_that_fails_leaves_the_old_base(results: Path, tmp_path: Path, monkeypatch):
    before = promote(results, tmp_path / "bases", "v1")
    real = os.rename

    def rename(source, target) -> None:
        if str(source).endswith(".tmp"):
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(whole_folder.os, "rename", rename)
    with pytest.raises(StoreError, match="Input/output error"):
        promote(results, tmp_path / "bases", "v1", replace=True)
    monkeypatch.undo()
    assert promoted(tmp_path / "bases" / "v1") == before
    assert [p.name for p in (tmp_path / "bases").iterdir()] == ["v1"]


def test_a_writer_at_work_is_noticed(results: Path, tmp_path: Path, monkeypatch) -> None:
    real = shutil.copyfile

    def copy_late(source, target) -> None:
        if str(source).endswith("results.jsonl"):
            store(results, cell(9), environment=CLEAN)
        real(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy_late)
    with pytest.raises(PromotionError, match="got a writer at work there"):
        promote(results, tmp_path / "bases")
    assert list((tmp_path / "bases").iterdir()) == []


# --- reading back -------------------------------------------------------------------------


def spoil(base: Path, how: str) -> None:
    path = base / "promoted.json"
    data = json.loads(path.read_text())
    if how == "none":
        path.unlink()
    elif how == "no JSON":
        path.write_text("{")
    elif how == "a list":
        path.write_text("[]")
    elif how == "results changed":
        with (base / "results.jsonl").open("a") as file:
            file.write("\n")
    elif how == "environment gone":
        (base / "environment.json").unlink()
    else:
        change = {
            "another schema": {"schema": 2},
            "no commits": {"commits": None},
            "files elsewhere": {"files": {"results.jsonl": "", "../x": ""}},
            "no files": {"files": {}},
        }[how]
        path.write_text(json.dumps(data | change))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("none", "expected a promoted base with"),
        ("no JSON", "expected a promoted base with"),
        ("a list", "expected schema 1 in .*, got 'list'"),
        ("another schema", "expected schema 1 in .*, got 2"),
        ("no commits", "expected commits in"),
        ("files elsewhere", "expected files of"),
        ("no files", "expected files of"),
        ("results changed", r"expected .*results\.jsonl as it was promoted, got other content"),
        ("environment gone", r"expected .*environment\.json as it was promoted, got none"),
    ],
)
def test_a_base_that_is_not_what_it_says(how, sentence, results: Path, tmp_path: Path) -> None:
    promote(results, tmp_path / "bases", "v1")
    spoil(tmp_path / "bases" / "v1", how)
    with pytest.raises(PromotionError, match=sentence) as error:
        promoted(tmp_path / "bases" / "v1")
    assert "\n" not in str(error.value)
    with pytest.raises(PromotionError, match=sentence):
        commit_of_base(tmp_path / "bases", "v1")


def test_every_machine_stands_there_once(results: Path, tmp_path: Path) -> None:
    gpu: Environment = dataclasses.replace(CLEAN, device="cuda", device_name="a GPU")
    store(results, cell(5), environment=gpu)
    store(results, cell(6), environment=dataclasses.replace(CLEAN, python="3.12"))
    machines = promote(results, tmp_path / "bases").machines
    assert [machine["device_name"] for machine in machines] == ["a processor", "a GPU"]
