"""One writer at a time, and what a full disk leaves."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import jsonl
from bench.store import Store, StoreError, read_results
from tests.store_samples import (
    CHILD_ENV,
    ENVIRONMENT,
    NAME,
    fail_writes,
    fill,
    measurement,
    run_child,
)

WRITER = """
import sys
from bench.store import Store
with Store(sys.argv[1]):
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the store in ``tmp_path``."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        env=CHILD_ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_writer_is_refused_by_the_first_ones_pid(
    tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    with pytest.raises(StoreError, match=rf"only writer .* got process {writer.pid} "):
        Store(tmp_path).__enter__()
    writer.communicate("")
    assert not (tmp_path / ".lock.pid").exists()
    with Store(tmp_path) as store:
        store.add_environment(ENVIRONMENT)
        store.append(measurement(0))


def test_a_killed_writer_leaves_no_lock(tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    writer.kill()
    writer.communicate()
    with Store(tmp_path):
        assert (tmp_path / ".lock.pid").read_text() == f"{os.getpid()}\n"


def test_a_second_store_in_one_process_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(StoreError, match=f"got process {os.getpid()} "):
        Store(tmp_path).__enter__()


def test_a_refused_second_writer_does_not_free_the_first_ones_lock(tmp_path: Path) -> None:
    with Store(tmp_path):
        for _ in range(2):
            with pytest.raises(StoreError, match="only writer"), Store(tmp_path):
                pass


def test_reading_needs_no_lock(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with Store(tmp_path):
        assert len(read_results(tmp_path).measurements) == 1


def test_a_broken_store_is_not_left_locked(tmp_path: Path) -> None:
    whole = fill(tmp_path, 2)
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"broken\n" + whole)
    refused = Store(tmp_path)  # kept: a lock must not wait for the garbage collector
    with pytest.raises(StoreError, match="line 1"):
        refused.__enter__()
    assert path.read_bytes() == b"broken\n" + whole
    path.write_bytes(whole)
    with Store(tmp_path) as store:
        assert len(store.done(NAME)) == 2


def test_a_full_disk_keeps_the_lines_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fill(tmp_path, 2)
    with Store(tmp_path) as store:
        fail_writes(monkeypatch)
        with pytest.raises(StoreError, match="No space left") as caught:
            store.append(measurement(2))
        assert "the 2 lines before are kept and stay readable" in str(caught.value)
        assert (tmp_path / "results.jsonl").read_bytes() == before
        assert len(store.done(NAME)) == 2
        monkeypatch.undo()
        store.append(measurement(2))
    assert read_results(tmp_path).measurements == [measurement(i) for i in range(3)]


def test_a_line_that_could_not_be_cut_back_is_moved_by_the_next_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fill(tmp_path, 1)
    with Store(tmp_path) as store:
        fail_writes(monkeypatch, cut_back=False)
        with pytest.raises(StoreError, match="No space left"):
            store.append(measurement(1))
        assert len((tmp_path / "results.jsonl").read_bytes()) > len(before)
        assert read_results(tmp_path).measurements == [measurement(0)]
        monkeypatch.undo()
        store.append(measurement(1))
        assert len(store.torn) == 1
    assert read_results(tmp_path).measurements == [measurement(0), measurement(1)]


def test_a_failed_fsync_takes_the_line_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fill(tmp_path, 1)

    def fsync(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with Store(tmp_path) as store:
        monkeypatch.setattr(jsonl.os, "fsync", fsync)
        with pytest.raises(StoreError, match="quota"):
            store.append(measurement(1))
        monkeypatch.undo()
    assert (tmp_path / "results.jsonl").read_bytes() == before


LIMITED = """
import resource, sys
from pathlib import Path
import tests.store_samples as t
folder = Path(sys.argv[1])
with t.Store(folder) as store:
    size = (folder / "results.jsonl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
    try:
        store.append(t.measurement(2))
    except ValueError as error:
        print(error)
"""


def test_the_systems_own_limit_on_a_file_is_survived(tmp_path: Path) -> None:
    before = fill(tmp_path, 2)
    done = run_child(LIMITED, str(tmp_path))
    assert "the 2 lines before are kept" in done.stdout, done.stderr
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_environments_are_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, 1)
    before = (tmp_path / "environment.json").read_bytes()
    other = dataclasses.replace(ENVIRONMENT, threads=4)

    def replace(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Store(tmp_path) as store:
        monkeypatch.setattr(jsonl.os, "replace", replace)
        with pytest.raises(StoreError, match="No space left"):
            store.add_environment(other)
        assert (tmp_path / "environment.json").read_bytes() == before
        assert not (tmp_path / "environment.json.tmp").exists()
        with pytest.raises(StoreError, match="environment that was added"):
            store.append(measurement(1, environment=other.environment_id))
        monkeypatch.undo()
        store.add_environment(other)
    assert set(json.loads((tmp_path / "environment.json").read_text())) == {
        NAME, other.environment_id,
    }  # fmt: skip
