"""Files of one record a line beside the store: training runs and steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.store import StoreError, append_line, read_accuracy, read_lines
from tests.store_samples import (
    CHILD_ENV,
    fail_writes,
    run,
)


def test_lines_are_appended_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "accuracy.jsonl"
    for i in range(3):
        assert append_line(path, run(i), key="run_id") == []
    assert read_lines(path, key="run_id").records == [run(i) for i in range(3)]
    assert read_accuracy(path.parent) == [run(i) for i in range(3)]


def test_a_run_is_refused_twice(tmp_path: Path) -> None:
    path = tmp_path / "accuracy.jsonl"
    append_line(path, run(0), key="run_id")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="expected each run_id once, got 'run0' again"):
        append_line(path, run(0), key="run_id")
    assert path.read_bytes() == before
    path.write_bytes(before * 2)
    with pytest.raises(StoreError, match="line 2: expected each run_id once"):
        read_accuracy(tmp_path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (run(0, schema=2), "expected schema 1, got 2"),
        ({"schema": 1}, "expected run_id as a string or an int, got None"),
        (run(0, model=object()), "expected plain JSON types"),
    ],
)
def test_a_record_that_cannot_be_read_back_is_not_written(
    tmp_path: Path, record: dict[str, Any], message: str
) -> None:
    with pytest.raises(StoreError, match=message):
        append_line(tmp_path / "accuracy.jsonl", record, key="run_id")
    assert not (tmp_path / "accuracy.jsonl").exists()


def test_a_torn_line_of_another_file_is_moved_too(tmp_path: Path) -> None:
    path = tmp_path / "accuracy.jsonl"
    append_line(path, run(0), key="run_id")
    path.write_bytes(path.read_bytes() + b'{"schema": 1, "run')
    assert read_lines(path).torn == ['{"schema": 1, "run']
    with pytest.warns(UserWarning, match="a torn last line was left out"):
        assert read_accuracy(tmp_path) == [run(0)]
    assert append_line(path, run(1), key="run_id") == ['{"schema": 1, "run']
    assert read_accuracy(tmp_path) == [run(0), run(1)]
    assert (tmp_path / "accuracy.torn").read_text() == '{"schema": 1, "run\n'


def test_a_full_disk_keeps_the_runs_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "accuracy.jsonl"
    append_line(path, run(0))
    fail_writes(monkeypatch)
    with pytest.raises(StoreError, match="the 1 lines before are kept"):
        append_line(path, run(1))
    monkeypatch.undo()
    assert read_accuracy(tmp_path) == [run(0)]


def test_a_run_that_diverged_is_stored_with_null(tmp_path: Path) -> None:
    append_line(tmp_path / "accuracy.jsonl", run(0, curve=[1.0, float("nan")]))
    assert read_accuracy(tmp_path) == [run(0, curve=[1.0, None])]


def test_accuracy_of_another_schema_is_named_with_its_line(tmp_path: Path) -> None:
    lines = [json.dumps(run(0)), json.dumps(run(1, schema=3))]
    (tmp_path / "accuracy.jsonl").write_text("\n".join([*lines, ""]))
    with pytest.raises(StoreError, match="line 2: expected schema 1, got 3"):
        read_accuracy(tmp_path)


def test_absent_accuracy_is_no_error_but_an_absent_folder_is(tmp_path: Path) -> None:
    assert read_accuracy(tmp_path) == []
    with pytest.raises(StoreError, match="expected a folder"):
        read_accuracy(tmp_path / "nowhere")


APPENDER = """
import sys
import tests.store_samples as t
from bench.store import append_line
for i in range(20):
    append_line(sys.argv[1], t.run(int(sys.argv[2]) * 100 + i), key="run_id")
"""


def test_processes_may_append_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "accuracy.jsonl"
    children = [
        subprocess.Popen([sys.executable, "-c", APPENDER, str(path), str(i)], env=CHILD_ENV)
        for i in range(2)
    ]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    names = {record["run_id"] for record in read_accuracy(tmp_path)}
    assert names == {f"run{i}" for i in [*range(20), *range(100, 120)]}
