"""Append-only JSONL files that survive a kill and a full disk. Floor 0: no torch.

A line is one JSON object with a ``schema``, written by one system call and fsynced. A writer
that dies in the middle leaves a torn last line: readers report it, and the next writer moves
its bytes to ``<name>.torn``. A broken line anywhere else is an error: nothing here breaks one.

JSON has no word for a number that is not finite: it is stored as null.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench.records import SCHEMA

LOCK_WAIT_S = 30.0  # another process's append takes milliseconds, even with its fsync
EXCERPT = 60  # characters of a broken line that an error quotes


class StoreError(ValueError):
    """A store that cannot be read or written; the text says what was expected."""


@dataclass(frozen=True)
class Lines:
    """What a JSONL file holds: its records in order, and the text of a torn last line, if any."""

    records: list[dict[str, Any]]
    torn: list[str]


def read_lines(path: Path | str, key: str | None = None) -> Lines:
    """Return the records of a JSONL file, without a lock and without writing.

    Args:
        path: the file; every line is an object with a ``schema``.
        key: a field that every record has and no two share.

    Raises:
        StoreError: no such file, another schema, a broken line before the last, a key that is
            missing or used twice.
    """
    path = Path(path)
    records, torn, _ = _parse(path)
    seen: set[Any] = set()
    for number, record in enumerate(records, 1):
        _check(record, key, seen, f"{path} line {number}")
    return Lines(records, [_text(torn)] if torn else [])


def append_line(path: Path | str, record: dict[str, Any], key: str | None = None) -> list[str]:
    """Append ``record`` to a JSONL file as one fsynced line; make file and folder when missing.

    Safe beside other processes that append by this function.

    Args:
        path: the file.
        record: plain JSON types, with ``schema``.
        key: a field that ``record`` has and no record in the file shares.

    Returns:
        The text of a torn last line that was moved away first, if any.

    Raises:
        StoreError: as :func:`read_lines`; the record is no plain JSON; the disk is full.
    """
    path = Path(path)
    payload = encode(record)
    make_folder(path.parent)
    lock = FileLock(path.parent / f".{path.name}.lock", timeout=LOCK_WAIT_S)
    try:
        lock.acquire()
    except OSError as error:  # filelock's Timeout is one
        raise StoreError(f"expected to lock {path}, got {error}") from error
    try:
        torn = mend(path)
        records = _parse(path)[0] if path.exists() else []
        seen: set[Any] = set()
        for number, each in enumerate([*records, record], 1):
            _check(each, key, seen, f"{path} line {number}")
        write_lines(path, payload, len(records))
    finally:
        lock.release()
    return torn


def encode(record: dict[str, Any]) -> bytes:
    """Return the line that stores ``record``; numbers that are not finite become null.

    Raises:
        StoreError: something in it is no plain JSON.
    """
    try:
        return json.dumps(_finite(record), allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise StoreError(f"expected plain JSON types in a record, got: {error}") from error


def mend(path: Path) -> list[str]:
    """Make the file end with a whole line; the caller holds its lock.

    The bytes of a torn last line are appended to ``<name>.torn`` before they are cut off.

    Returns:
        The text of the torn line, if any.

    Raises:
        StoreError: a broken line before the last; the disk is full.
    """
    if not path.exists():
        return []
    _, torn, whole = _parse(path)
    try:
        if torn:
            _append(path.with_suffix(".torn"), torn + b"\n")
        if whole < path.stat().st_size:
            os.truncate(path, whole)
        elif not ends_whole(path):
            _append(path, b"\n")  # cut between a line's last byte and its end: nothing is lost
    except OSError as error:
        raise StoreError(f"expected to repair the torn last line of {path}, got {error}") from error
    return [_text(torn)] if torn else []


def ends_whole(path: Path) -> bool:
    """Return whether the file is absent, empty or ends with the end of a line."""
    if not path.exists():
        return True
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        return file.read() in (b"", b"\n")


def write_lines(path: Path, payload: bytes, kept: int) -> None:
    """Append whole lines by one write and one fsync: all of them or none.

    Args:
        path: the file; it ends with a whole line.
        payload: the lines.
        kept: how many lines are there already, for the error's text.

    Raises:
        StoreError: the disk is full, or any other failure to write.
    """
    try:
        _append(path, payload)
    except OSError as error:
        raise StoreError(
            f"expected room to append to {path}, got {error.strerror}: the {kept} lines before "
            f"are kept and stay readable, the new one is not; make room and run again"
        ) from error


def replace_file(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` so that a reader sees the old content or the new, whole.

    Raises:
        StoreError: the disk is full, or any other failure to write.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(
            f"expected room to write {path}, got {error.strerror}: what was stored before is "
            f"kept and stays readable"
        ) from error


def make_folder(folder: Path) -> None:
    """Make ``folder`` and its parents where they are missing.

    Raises:
        StoreError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"expected a folder at {folder}, got {error.strerror}") from error


def _append(path: Path, payload: bytes) -> None:
    """Append and fsync; on failure cut the file back to what it was."""
    fresh = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        try:
            rest = payload
            while rest:  # once, unless the disk fills up within the line
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    if fresh:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a new name in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parse(path: Path) -> tuple[list[dict[str, Any]], bytes, int]:
    """Return (records, torn last line or b"", bytes before it)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"expected a readable file at {path}, got {error.strerror}") from error
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    records: list[dict[str, Any]] = []
    whole = 0
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line.decode("utf-8"))
        except ValueError as error:
            # an object cut short never parses, so a last line that parses is complete
            if number == len(lines):
                return records, line, whole
            raise StoreError(
                f"{path} line {number}: expected a JSON object, got {_text(line)[:EXCERPT]!r}"
            ) from error
        if not isinstance(record, dict):
            got = type(record).__name__
            raise StoreError(f"{path} line {number}: expected a JSON object, got a {got}")
        records.append(record)
        whole += len(line) + 1
    return records, b"", len(data)


def _check(record: dict[str, Any], key: str | None, seen: set[Any], where: str) -> None:
    """Refuse another schema, a missing key and one already in ``seen``; add it there."""
    if record.get("schema") != SCHEMA:
        raise StoreError(f"{where}: expected schema {SCHEMA}, got {record.get('schema')!r}")
    if key is None:
        return
    value = record.get(key)
    if not isinstance(value, str | int):
        raise StoreError(f"{where}: expected {key} as a string or an int, got {value!r}")
    if value in seen:
        raise StoreError(f"{where}: expected each {key} once, got {value!r} again")
    seen.add(value)


def _finite(value: Any) -> Any:
    """Return ``value`` with None for every float that is not finite."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")
