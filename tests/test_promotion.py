"""``promote``: what a base is, and what is refused as one."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bench import cli_history
from bench.gate import compare
from bench.gating.promotion import PromotionError, commit_of_base, promote, promoted
from bench.records import Status
from bench.store import StoreError
from tests.store_samples import ENVIRONMENT, cell, failed, store

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLEAN = dataclasses.replace(ENVIRONMENT, commit=COMMIT)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return store(tmp_path / "r", cell(0), cell(1), failed(Status.SKIPPED, 2), environment=CLEAN)


def other(tmp_path: Path, *cells, **facts) -> Path:
    environment = dataclasses.replace(CLEAN, **facts)
    return store(tmp_path / "other", *(cells or (cell(0),)), environment=environment)


def command(*words: object):
    app = typer.Typer()
    cli_history.register(app)
    return CliRunner().invoke(app, ["promote", *map(str, words)])


# --- what is made -------------------------------------------------------------------------


def test_a_base_is_a_copy_under_the_short_commit(results: Path, tmp_path: Path) -> None:
    (results / "ceilings.json").write_text("{}\n")
    (results / "report").mkdir()
    made = promote(results, tmp_path / "bases")
    base = tmp_path / "bases" / COMMIT[:10]
    assert sorted(p.name for p in base.iterdir()) == [
        "ceilings.json", "environment.json", "promoted.json", "results.jsonl",
    ]  # fmt: skip
    for name in ("ceilings.json", "environment.json", "results.jsonl"):
        assert (base / name).read_bytes() == (results / name).read_bytes()
    assert promoted(base) == made
    assert compare(base, results).exit_code == 0


def test_promoted_json_says_who_it_is(results: Path, tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    promote(results, tmp_path / "bases", "v1")
    data = json.loads((tmp_path / "bases" / "v1" / "promoted.json").read_text())
    when = datetime.fromisoformat(data.pop("when"))
    assert before <= when <= before + timedelta(minutes=1)
    assert when.utcoffset() == timedelta(0)
    assert len(data.pop("files")) == 2
    assert data == {
        "schema": 1,
        "name": "v1",
        "source": str(results),
        "commits": [COMMIT],
        "dirty": False,
        "cells": {"ok": 2, "skipped": 1},
        "machines": [{**CLEAN.hard, **CLEAN.soft}],
        "forced": [],
    }


def test_a_source_is_kept_as_it_was_given(results: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert promote("r", "bases").source == "r"
    assert (tmp_path / "bases" / COMMIT[:10]).is_dir()


def test_of_a_base_the_commit_is_known(results: Path, tmp_path: Path) -> None:
    promote(results, tmp_path / "bases", "v1")
    assert commit_of_base(tmp_path / "bases", "v1") == COMMIT


# --- what is refused ----------------------------------------------------------------------


def refused(source: Path, tmp_path: Path, sentence: str, *words: str) -> None:
    """The command exits 2 with one sentence, and nothing is there afterwards."""
    done = command(source, "--into", tmp_path / "bases", *words)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "bases").exists() or list((tmp_path / "bases").iterdir()) == []


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    refused(tmp_path / "none", tmp_path, "expected a folder of results at")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "results.jsonl").write_text("a\nb\n")
    refused(tmp_path / "broken", tmp_path, "expected a JSON object", "--force")


def test_no_ok_cell_is_no_base_even_by_force(tmp_path: Path) -> None:
    source = other(tmp_path, failed(Status.OOM, 0), failed(Status.SKIPPED, 1))
    refused(source, tmp_path, "expected an ok cell in", "--force")
    refused(source, tmp_path, "got 1 skipped, 1 oom")


@pytest.mark.parametrize("status", [Status.WRONG, Status.IMPOSSIBLE])
def test_wrong_cells_are_named(status: Status, tmp_path: Path) -> None:
    bad = [failed(status, i) for i in range(1, 6)]
    names = ", ".join(f"conv{i} 4x8 0.25 fprop block_sparse ({status})" for i in (1, 2, 3))
    refused(
        other(tmp_path, cell(0), *bad),
        tmp_path,
        f"expected no wrong or impossible cell, got 5: {names}, ...",
    )


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"dirty": True}, "expected results of a commit, got uncommitted changes beside it"),
        ({"commit": None}, "expected results of a known commit, got results without one"),
        ({"commit": None, "dirty": None}, "expected results of a known commit"),
    ],
)
def test_not_from_a_clean_commit(facts, sentence: str, tmp_path: Path) -> None:
    refused(other(tmp_path, **facts), tmp_path, sentence, "--name", "v1")


def test_results_of_several_commits(results: Path, tmp_path: Path) -> None:
    store(results, cell(3), environment=dataclasses.replace(CLEAN, commit="f" * 40))
    refused(results, tmp_path, f"expected results of one commit, got 2: {COMMIT}, {'f' * 40}")


def test_an_environment_without_cells_does_not_count(results: Path, tmp_path: Path) -> None:
    store(results, environment=dataclasses.replace(CLEAN, commit="f" * 40, dirty=True))
    assert promote(results, tmp_path / "bases").commits == (COMMIT,)


def test_a_torn_line_is_refused(results: Path, tmp_path: Path) -> None:
    path = results / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    refused(results, tmp_path, "expected whole lines in results.jsonl, got a torn last one")


@pytest.mark.parametrize(
    "name", ["a/b", "/a", "..", ".", "", ".hidden", "a\\b", "a\nb", "a\0b", " a"]
)
def test_a_name_is_one_folder(name: str, results: Path, tmp_path: Path) -> None:
    with pytest.raises(PromotionError, match="expected a name without path separators"):
        promote(results, tmp_path / "bases", name)
    assert not (tmp_path / "bases").exists()
    with pytest.raises(PromotionError, match="expected a name without path separators"):
        commit_of_base(tmp_path, name)


def test_a_name_that_is_taken(results: Path, tmp_path: Path) -> None:
    first = promote(results, tmp_path / "bases", "v1")
    store(results, cell(7), environment=CLEAN)
    done = command(results, "--into", tmp_path / "bases", "--name", "v1")
    assert done.exit_code == 2
    assert "expected a free place at" in done.stderr
    assert "--replace" in done.stderr
    assert promoted(tmp_path / "bases" / "v1") == first
    done = command(results, "--into", tmp_path / "bases", "--name", "v1", "--replace")
    assert done.exit_code == 0, done.stderr
    assert promoted(tmp_path / "bases" / "v1").cells == {"ok": 3, "skipped": 1}
    assert [p.name for p in (tmp_path / "bases").iterdir()] == ["v1"]


def test_a_place_that_cannot_be_written(results: Path, tmp_path: Path) -> None:
    (tmp_path / "bases").write_text("a file")
    with pytest.raises(StoreError, match="expected to write a base into"):
        promote(results, tmp_path / "bases")


# --- by force -----------------------------------------------------------------------------


def test_what_was_forced_is_written_down(tmp_path: Path) -> None:
    source = other(tmp_path, cell(0), failed(Status.WRONG, 1), dirty=True)
    words = (source, "--into", tmp_path / "bases", "--force")
    done = command(*words)
    assert done.exit_code == 0, done.stderr
    made = promoted(tmp_path / "bases" / COMMIT[:10])
    assert [fault.split(", got")[0] for fault in made.forced] == [
        "expected no wrong or impossible cell",
        "expected results of a commit",
    ]
    assert made.dirty is True
    assert all(f"forced: {fault}" in done.stdout for fault in made.forced)
    with pytest.raises(PromotionError, match="expected a base of one commit to measure again"):
        commit_of_base(tmp_path / "bases", COMMIT[:10])


def test_nothing_wrong_leaves_nothing_to_force(results: Path, tmp_path: Path) -> None:
    assert promote(results, tmp_path / "bases", force=True).forced == ()


@pytest.mark.parametrize("commits", [(), (COMMIT, "f" * 40)])
def test_by_force_without_one_commit_a_name_is_needed(commits, tmp_path: Path) -> None:
    for number, commit in enumerate(commits or (None,)):
        source = store(
            tmp_path / "r", cell(number), environment=dataclasses.replace(CLEAN, commit=commit)
        )
    with pytest.raises(PromotionError, match=f"expected --name for results of {len(commits)}"):
        promote(source, tmp_path / "bases", force=True)
    made = promote(source, tmp_path / "bases", "v1", force=True)
    assert made.commits == commits
    with pytest.raises(PromotionError, match="expected a base of one commit to measure again"):
        commit_of_base(tmp_path / "bases", "v1")


def test_a_copy_of_the_files_does_not_know_whether_it_was_changed(tmp_path: Path) -> None:
    """HRBP_COMMIT names the commit of a copy without git; its word is taken, and noted."""
    done = command(other(tmp_path, dirty=None), "--into", tmp_path / "bases")
    assert done.exit_code == 0, done.stderr
    assert "not known" in done.stdout
    assert promoted(tmp_path / "bases" / COMMIT[:10]).dirty is None
    assert commit_of_base(tmp_path / "bases", COMMIT[:10]) == COMMIT
