"""A folder of results: crash-safe, one writer at a time. Floor 1: no torch.

``results.jsonl`` holds one line a cell, ``environment.json`` maps environment ids to facts,
and ``accuracy.jsonl`` holds one line a finished training run (``append_line`` writes it).
A run that is killed resumes at the first cell that is not stored: see :class:`Store`.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from bench.jsonl import (
    Lines,
    StoreError,
    append_line,
    encode,
    ends_whole,
    make_folder,
    mend,
    read_lines,
    replace_file,
    write_lines,
)
from bench.records import Environment, Measurement, RecordError, digest

__all__ = [
    "Lines",
    "Results",
    "Store",
    "StoreError",
    "append_line",
    "read_accuracy",
    "read_lines",
    "read_results",
]

RESULTS = "results.jsonl"
ENVIRONMENTS = "environment.json"
ACCURACY = "accuracy.jsonl"
ACCURACY_KEY = "run_id"
LOCK = ".lock"
LOCK_PID = ".lock.pid"
MEASURE = "to measure: python -m bench run --out"


@dataclass(frozen=True)
class Results:
    """What a folder holds.

    Attributes:
        measurements: in the order written.
        environments: by environment id; one for every measurement.
        torn: text of a torn last line, if any; its cell is not among the measurements.
        folder: where it was read.
    """

    measurements: list[Measurement]
    environments: dict[str, Environment]
    torn: list[str]
    folder: Path

    def latest(self) -> dict[str, Measurement]:
        """Return one measurement a cell id: the last, where a cell has several environments."""
        return {m.cell.cell_id: m for m in self.measurements}


def read_results(folder: Path | str) -> Results:
    """Return what ``folder`` holds, without a lock and without writing.

    Raises:
        StoreError: no folder; no results.jsonl, or an empty one; another schema; a broken line
            before the last; an unknown environment; one cell twice in one environment.
    """
    folder = _existing_folder(folder)
    path = folder / RESULTS
    if not path.exists():
        raise StoreError(f"expected {RESULTS} in {folder}, got none; {MEASURE} {folder}")
    results = _load(folder)
    if not results.measurements:
        got = "only a torn line" if results.torn else "an empty file"
        raise StoreError(f"expected at least one whole line in {path}, got {got}")
    return results


def read_accuracy(folder: Path | str) -> list[dict[str, Any]]:
    """Return the finished training runs in ``folder``, in order; [] when none were stored.

    A torn last line is left out with a warning.

    Raises:
        StoreError: no folder; another schema; a broken line before the last; a run_id that is
            missing or used twice.
    """
    path = _existing_folder(folder) / ACCURACY
    if not path.exists():
        return []
    lines = read_lines(path, key=ACCURACY_KEY)
    if lines.torn:
        warnings.warn(f"{path}: a torn last line was left out", stacklevel=2)
    return lines.records


class Store:
    """The one writer of a results folder; a context manager.

    ::

        with Store(folder) as store:
            name = store.add_environment(environment)
            done = store.done(name)              # resume: these need no second measurement
            store.append(measurement)

    Entering makes the folder when it is missing, takes ``.lock`` and repairs a torn last line:
    its bytes move to ``results.torn``, its text stands in ``torn``, earlier lines stay as
    they are.

    Raises:
        StoreError: another writer holds the folder; what is stored is broken; the disk is full.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.torn: list[str] = []
        self._keys: set[tuple[str, str]] = set()
        self._environments: dict[str, dict[str, Any]] = {}
        self._lock: FileLock | None = None

    def __enter__(self) -> Store:
        self._check_open(False)
        make_folder(self.folder)
        self._lock = self._take_lock()
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def done(self, environment_id: str) -> set[str]:
        """Return the ids of the cells stored for this environment, whatever their status."""
        return {cell for cell, environment in self._keys if environment == environment_id}

    def add_environment(self, environment: Environment) -> str:
        """Store the facts of ``environment`` atomically; return its id. Twice does no harm.

        Raises:
            StoreError: the store is not open; the disk is full.
        """
        self._check_open(True)
        name = environment.environment_id
        if name not in self._environments:
            table = {**self._environments, name: asdict(environment)}
            replace_file(self.folder / ENVIRONMENTS, json.dumps(table, indent=1, allow_nan=False))
            self._environments = table
        return name

    def append(self, measurement: Measurement) -> None:
        """Store one measurement as one fsynced line.

        Raises:
            StoreError: as :meth:`append_many`.
        """
        self.append_many([measurement])

    def append_many(self, measurements: Sequence[Measurement]) -> None:
        """Store measurements, one line each, by one write and one fsync: all of them or none.

        Raises:
            StoreError: the store is not open; a cell is there already in its environment; an
                environment was not added; a fact is no plain JSON; the disk is full.
        """
        self._check_open(True)
        keys: list[tuple[str, str]] = []
        for measurement in measurements:
            key = (measurement.cell.cell_id, measurement.environment)
            if key[1] not in self._environments:
                raise StoreError(f"expected an environment that was added, got {key[1]!r}")
            if key in self._keys or key in keys:
                raise StoreError(
                    f"expected each cell once in an environment, got {key[0]} again in {key[1]}"
                )
            keys.append(key)
        payload = b"".join(encode(m.to_dict()) for m in measurements)
        path = self.folder / RESULTS
        if not ends_whole(path):  # an earlier append failed, and so did taking it back
            self.torn += mend(path)
        write_lines(path, payload, len(self._keys))
        self._keys.update(keys)

    def _take_lock(self) -> FileLock:
        lock = FileLock(self.folder / LOCK, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise StoreError(
                f"expected to be the only writer of {self.folder}, got process "
                f"{self._writer()} writing there: let it end, or choose another folder"
            ) from error
        except OSError as error:
            raise StoreError(f"expected to lock {self.folder}, got {error}") from error
        return lock

    def _writer(self) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / LOCK_PID).read_text().strip() or "(unknown)"
        return "(unknown)"

    def _open(self) -> None:
        replace_file(self.folder / LOCK_PID, f"{os.getpid()}\n")
        self.torn = mend(self.folder / RESULTS)
        results = _load(self.folder)
        self._environments = _environment_facts(self.folder)
        self._keys = {(m.cell.cell_id, m.environment) for m in results.measurements}

    def _close(self) -> None:
        if self._lock is not None:
            with contextlib.suppress(OSError):
                (self.folder / LOCK_PID).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def _check_open(self, expected: bool) -> None:
        if (self._lock is not None) is not expected:
            states = ("an open store", "a closed one")
            wanted, got = states if expected else states[::-1]
            raise StoreError(f"expected {wanted}, got {got}: use `with Store(folder) as store`")


def _existing_folder(folder: Path | str) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing there"
        raise StoreError(f"expected a folder of results at {folder}, got {got}")
    return folder


def _environment_facts(folder: Path) -> dict[str, dict[str, Any]]:
    """Return environment.json as stored; {} when it is absent."""
    path = folder / ENVIRONMENTS
    if not path.exists():
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"expected {path} as one JSON object, got: {error}") from error
    if not isinstance(table, dict) or not all(isinstance(f, dict) for f in table.values()):
        raise StoreError(f"expected {path} to map environment ids to facts, got other JSON")
    for name, facts in table.items():
        if digest(facts) != name:
            raise StoreError(f"{path}: expected facts of id {digest(facts)}, got id {name!r}")
    return table


def _load(folder: Path) -> Results:
    """Return what the folder holds, possibly nothing."""
    path = folder / RESULTS
    # lines before environments: a writer that is at work adds an environment before its lines
    lines = read_lines(path) if path.exists() else Lines([], [])
    try:
        environments = {n: Environment.from_dict(f) for n, f in _environment_facts(folder).items()}
    except RecordError as error:
        raise StoreError(f"{folder / ENVIRONMENTS}: {error}") from error
    measurements: list[Measurement] = []
    seen: dict[tuple[str, str], int] = {}
    for number, record in enumerate(lines.records, 1):
        try:
            measurement = Measurement.from_dict(record)
        except RecordError as error:
            raise StoreError(f"{path} line {number}: {error}") from error
        key = (measurement.cell.cell_id, measurement.environment)
        if key[1] not in environments:
            raise StoreError(
                f"{path} line {number}: expected an environment of {ENVIRONMENTS}, got {key[1]!r}"
            )
        if key in seen:
            raise StoreError(
                f"{path} line {number}: expected each cell once in an environment, "
                f"got {key[0]} of line {seen[key]} again"
            )
        seen[key] = number
        measurements.append(measurement)
    return Results(measurements, environments, lines.torn, folder)
