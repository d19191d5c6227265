"""A folder that appears whole or not at all, whatever happens meanwhile. Floor 1: no torch."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class TakenError(ValueError):
    """The place is taken; the text says by what."""


@contextmanager
def whole_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that moves there when the block ends well.

    The block syncs the files that it writes. What a killed process left beside is cleared away
    first; what it had set aside for a new one is put back.

    Args:
        target: the place. replace: take the place of what is there, which goes when the new
            folder stands.

    Raises:
        TakenError: something is there, and ``replace`` is off. OSError: no room, no permission.
    """
    parent = target.parent
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    if os.path.lexists(target) and not replace:
        raise TakenError(f"expected a free place at {target}, got one that is taken")
    temporary = _beside(target, "tmp")
    temporary.mkdir()
    try:
        yield temporary
        _put(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync(path: Path) -> None:
    """Make a file's bytes, or a folder's names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.{kind}")


def _put(temporary: Path, target: Path) -> None:
    """Move the folder to its place; what is there is set aside first, and removed last."""
    old = _beside(target, "old")
    taken = os.path.lexists(target)
    if taken:
        os.rename(target, old)
    try:
        os.rename(temporary, target)
    except BaseException:
        if taken:
            os.rename(old, target)
        raise
    sync(target.parent)
    if taken:
        shutil.rmtree(old)


def _sweep(parent: Path) -> None:
    for left in parent.glob(".*"):
        match = re.fullmatch(r"\.(.+)\.(\d+)\.(tmp|old)", left.name)
        if match is None or _runs(int(match[2])):
            continue
        if match[3] == "old" and not os.path.lexists(parent / match[1]):
            os.rename(left, parent / match[1])
        else:
            shutil.rmtree(left)


def _runs(pid: int) -> bool:
    """Return whether another process of this number runs."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
