"""Writing a store: nothing stored is lost, whatever ends the run."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from bench import jsonl
from bench.records import Status
from bench.store import Store, StoreError, read_results
from tests.store_samples import (
    ENVIRONMENT,
    NAME,
    fill,
    measurement,
    run_child,
)


def test_what_is_stored_is_read_back_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    stored = [
        measurement(2, errors={"max_abs": 1e-6}, prep_s=0.25, detail={"variant": "rows"}),
        measurement(0, status=Status.OOM, samples_s=(), reason="needs 90 GiB"),
        measurement(1),
    ]
    with Store(folder) as store:
        assert store.add_environment(ENVIRONMENT) == NAME
        for each in stored:
            store.append(each)
        assert store.torn == []
    results = read_results(folder)
    assert results.measurements == stored
    assert results.environments == {NAME: ENVIRONMENT}
    assert results.torn == []
    assert results.folder == folder
    lines = (folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["cell_id"] for line in lines] == [m.cell.cell_id for m in stored]


def test_each_append_is_one_write_and_one_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_write, real_fsync = os.write, os.fsync
    with Store(tmp_path) as store:
        store.add_environment(ENVIRONMENT)
        store.append(measurement(0))  # the file's name is fsynced once, with its first line

        def write(descriptor: int, data: bytes) -> int:
            calls.append("write")
            return real_write(descriptor, data)

        def fsync(descriptor: int) -> None:
            calls.append("fsync")
            real_fsync(descriptor)

        monkeypatch.setattr(jsonl.os, "write", write)
        monkeypatch.setattr(jsonl.os, "fsync", fsync)
        store.append(measurement(1))
        assert calls == ["write", "fsync"]
        calls.clear()
        store.append_many([measurement(i) for i in range(2, 6)])
        assert calls == ["write", "fsync"]
        monkeypatch.undo()
    assert len(read_results(tmp_path).measurements) == 6


def test_a_second_run_resumes_at_the_first_missing_cell(tmp_path: Path) -> None:
    before = fill(tmp_path, 2)
    with Store(tmp_path) as store:
        assert store.done(NAME) == {measurement(0).cell.cell_id, measurement(1).cell.cell_id}
        assert store.done("another") == set()
        for i in range(4):
            if measurement(i).cell.cell_id not in store.done(NAME):
                store.append(measurement(i))
        assert store.done(NAME) == {measurement(i).cell.cell_id for i in range(4)}
    assert (tmp_path / "results.jsonl").read_bytes().startswith(before)
    assert read_results(tmp_path).measurements == [measurement(i) for i in range(4)]


def test_a_cell_is_refused_twice_in_one_environment(tmp_path: Path) -> None:
    before = fill(tmp_path, 1)
    with Store(tmp_path) as store:
        with pytest.raises(StoreError, match="expected each cell once in an environment"):
            store.append(measurement(0))
        with pytest.raises(StoreError, match="expected each cell once in an environment"):
            store.append_many([measurement(1), measurement(1)])
        assert store.done(NAME) == {measurement(0).cell.cell_id}
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_a_cell_may_be_measured_again_in_another_environment(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    other = dataclasses.replace(ENVIRONMENT, torch="2.14.0")
    again = measurement(0, environment=other.environment_id, samples_s=(9e-3,))
    with Store(tmp_path) as store:
        store.add_environment(other)
        store.append(again)
    results = read_results(tmp_path)
    assert len(results.measurements) == 2
    assert results.latest() == {again.cell.cell_id: again}
    assert results.environments == {NAME: ENVIRONMENT, other.environment_id: other}


def test_a_cell_of_an_unknown_environment_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path) as store, pytest.raises(StoreError, match="environment that was added"):
        store.append(measurement(0))
    assert not (tmp_path / "results.jsonl").exists()


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    before = fill(tmp_path, 1)
    with Store(tmp_path) as store:
        with pytest.raises(StoreError, match="expected plain JSON types"):
            store.append_many([measurement(1), measurement(2, detail={"shape": {1, 2}})])
        store.append(measurement(3))
    assert (tmp_path / "results.jsonl").read_bytes().startswith(before)
    assert read_results(tmp_path).measurements == [measurement(0), measurement(3)]


def test_figures_that_are_not_finite_become_null(tmp_path: Path) -> None:
    wrong = measurement(
        0, status=Status.WRONG, samples_s=(), reason="not finite",
        errors={"max_abs": float("inf"), "rel_rms": float("nan"), "atol": 1e-5},
        detail={"seen": [1.0, float("-inf")]},
    )  # fmt: skip
    with Store(tmp_path) as store:
        store.add_environment(ENVIRONMENT)
        store.append(wrong)
    line = (tmp_path / "results.jsonl").read_text()
    assert "NaN" not in line
    assert "Infinity" not in line
    (read,) = read_results(tmp_path).measurements
    assert read.errors == {"max_abs": None, "rel_rms": None, "atol": 1e-5}
    assert read.detail == {"seen": [1.0, None]}


def test_a_closed_store_refuses_to_write(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(StoreError, match="expected an open store"):
        store.append(measurement(0))
    with store, pytest.raises(StoreError, match="expected a closed one"):
        store.__enter__()
    with pytest.raises(StoreError, match="expected an open store"):
        store.add_environment(ENVIRONMENT)


@pytest.mark.parametrize("keep", ["one byte", "half", "all but the closing brace"])
def test_a_torn_last_line_is_reported_moved_and_measured_again(tmp_path: Path, keep: str) -> None:
    whole = fill(tmp_path, 2)
    line = fill(tmp_path / "other", 3)[len(whole) :]
    cut = {"one byte": 1, "half": len(line) // 2, "all but the closing brace": -2}[keep]
    torn = line[:cut]
    path = tmp_path / "results.jsonl"
    path.write_bytes(whole + torn)

    results = read_results(tmp_path)
    assert results.measurements == [measurement(0), measurement(1)]
    assert results.torn == [torn.decode()]
    assert path.read_bytes() == whole + torn  # reading writes nothing
    assert not (tmp_path / "results.torn").exists()

    with Store(tmp_path) as store:
        assert store.torn == [torn.decode()]
        assert path.read_bytes() == whole
        assert len(store.done(NAME)) == 2
        store.append(measurement(2))
    assert (tmp_path / "results.torn").read_bytes() == torn + b"\n"
    assert path.read_bytes() == whole + line
    assert read_results(tmp_path).torn == []


def test_torn_lines_of_several_kills_are_all_kept(tmp_path: Path) -> None:
    whole = fill(tmp_path, 1)
    for piece in (b'{"first', b'{"second', b"\x00\x00\xff"):
        (tmp_path / "results.jsonl").write_bytes(whole + piece)
        with Store(tmp_path) as store:
            assert len(store.torn) == 1
    assert (tmp_path / "results.torn").read_bytes() == b'{"first\n{"second\n\x00\x00\xff\n'
    assert (tmp_path / "results.jsonl").read_bytes() == whole


def test_a_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    whole = fill(tmp_path, 2)
    (tmp_path / "results.jsonl").write_bytes(whole[:-1])
    assert len(read_results(tmp_path).measurements) == 2
    with Store(tmp_path) as store:
        assert store.torn == []
        store.append(measurement(2))
    assert read_results(tmp_path).measurements == [measurement(i) for i in range(3)]


def test_a_blank_last_line_is_cut_off(tmp_path: Path) -> None:
    whole = fill(tmp_path, 1)
    (tmp_path / "results.jsonl").write_bytes(whole + b"\n")
    assert len(read_results(tmp_path).measurements) == 1
    with Store(tmp_path) as store:
        store.append(measurement(1))
    assert read_results(tmp_path).measurements == [measurement(0), measurement(1)]


KILLED = """
import os, signal, sys
from pathlib import Path
import tests.store_samples as t
real = os.write
def write(descriptor, data):
    if t.measurement(2).cell.cell_id.encode() not in bytes(data):
        return real(descriptor, data)
    real(descriptor, data[: len(data) // 3])
    os.kill(os.getpid(), signal.SIGKILL)
os.write = write
with t.Store(Path(sys.argv[1])) as store:
    store.add_environment(t.ENVIRONMENT)
    for i in range(4):
        store.append(t.measurement(i))
"""


def test_a_run_killed_in_the_middle_of_a_line_is_resumed(tmp_path: Path) -> None:
    done = run_child(KILLED, str(tmp_path))
    assert done.returncode == -9, done.stderr
    assert not (tmp_path / "results.jsonl").read_bytes().endswith(b"\n")
    results = read_results(tmp_path)
    assert results.measurements == [measurement(0), measurement(1)]
    assert len(results.torn) == 1
    with Store(tmp_path) as store:  # the dead writer's lock went with it
        assert store.torn == results.torn
        store.append_many(
            [m for m in map(measurement, range(4)) if m.cell.cell_id not in store.done(NAME)]
        )
    assert read_results(tmp_path).measurements == [measurement(i) for i in range(4)]
    assert (tmp_path / "results.torn").read_text() == results.torn[0] + "\n"


def test_the_store_and_the_gate_need_no_torch() -> None:
    code = "import sys, bench.store, bench.gate; print('torch' in sys.modules)"
    done = run_child(code)
    assert done.stdout == "False\n", done.stderr
