"""The two states of ``hrbp_core`` that are measured, each beside head's ``bench``.

Head is the working tree as it is, uncommitted changes included; base is a commit. Both are
copied to a temporary folder, so that nobody's edits change what is being measured. Base comes
out of ``git archive``: a worktree would have to be taken out of the repository again, and one
that was killed leaves its entry behind.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PREFIX = "hrbp-gate-"
LIBRARY, SUITE = "hrbp_core", "bench"
LIMIT_S = 60
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")


class NoRevision(ValueError):
    """A revision that does not exist, or has no ``hrbp_core``."""


@dataclass(frozen=True)
class Side:
    """One state of the library.

    Attributes:
        name: "base" or "head". commit: 40 hex digits. dirty: with uncommitted changes.
        root: a folder with ``hrbp_core`` of this side and ``bench`` of head.
    """

    name: str
    commit: str
    dirty: bool
    root: Path

    @property
    def text(self) -> str:
        """The commit, shortened, as people say it."""
        return self.commit[:10] + (" with uncommitted changes" if self.dirty else "")


def here() -> Path:
    """Return the folder that holds this ``bench`` and its ``hrbp_core``."""
    return Path(__file__).resolve().parents[2]


def checkout() -> Path:
    """Return the top of the git checkout that this module lies in.

    Raises:
        ValueError: it is no git checkout.
    """
    try:
        return Path(_git(here(), "rev-parse", "--show-toplevel"))
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"expected a git checkout at {here()}, got {error}") from error


def commit_of(root: Path, revision: str) -> str:
    """Return the commit that a revision names.

    Raises:
        NoRevision: there is none.
    """
    try:
        return _git(root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except subprocess.SubprocessError as error:
        raise NoRevision(
            f"expected a revision that git knows, got {revision!r}; a shallow clone may lack it: "
            f"`git fetch --unshallow`, or `fetch-depth: 0` in a workflow"
        ) from error


@contextmanager
def laid_out(root: Path, revision: str) -> Iterator[tuple[Side, Side]]:
    """Yield (base, head) on disk; both folders are gone afterwards, whatever happens.

    Args:
        root: the checkout. revision: base's.

    Raises:
        NoRevision: no such revision, or one without the library.
    """
    _sweep()
    base_commit = commit_of(root, revision)
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        base, head = Path(folder) / "base", Path(folder) / "head"
        dirty = bool(_git(root, "status", "--porcelain", "--", LIBRARY, SUITE))
        for name in (LIBRARY, SUITE):
            _copy_tree(root, name, head)
        _copy_tree(root, SUITE, base)
        _extract(root, base_commit, base)
        yield (
            Side("base", base_commit, False, base),
            Side("head", _git(root, "rev-parse", "HEAD"), dirty, head),
        )


@contextmanager
def head_alone(root: Path) -> Iterator[Side]:
    """Yield head on disk, gone afterwards. A copy of the files will do: git is not needed."""
    _sweep()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        head = Path(folder) / "head"
        commit, dirty = _revision()  # HRBP_COMMIT, or git's
        for name in (LIBRARY, SUITE):
            try:
                _copy_tree(root, name, head)
            except (OSError, subprocess.SubprocessError):
                shutil.copytree(root / name, head / name, ignore=IGNORED)
        yield Side("head", commit or "unknown", bool(dirty), head)


def _revision() -> tuple[str | None, bool | None]:
    said = os.environ.get("HRBP_COMMIT")
    if said:
        return said, None
    try:
        dirty = bool(_git(here(), "status", "--porcelain", "--", LIBRARY, SUITE))
        return _git(here(), "rev-parse", "HEAD"), dirty
    except (OSError, subprocess.SubprocessError):
        return None, None


def _copy_tree(root: Path, name: str, target: Path) -> None:
    """Copy what git tracks or would track of a folder, as it is on disk."""
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", name)
    for path in dict.fromkeys(listed.split("\0")):
        source = root / path
        if path and source.is_file():  # one that was deleted is still listed
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / path)


def _extract(root: Path, commit: str, target: Path) -> None:
    command = ["git", "-C", str(root), "archive", "--format=tar", commit, LIBRARY]
    done = subprocess.run(command, capture_output=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        raise NoRevision(f"expected {LIBRARY} in {commit[:10]}, got {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(target, filter="data")


def _sweep() -> None:
    """Remove what a killed gate left behind: its process is no more."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        found = re.match(rf"{PREFIX}(\d+)-", left.name)
        if found and not Path(f"/proc/{found[1]}").exists() and Path("/proc/self").exists():
            shutil.rmtree(left, ignore_errors=True)


class GitFailed(ValueError, subprocess.SubprocessError):
    """Git answered with an error: no checkout, no such revision, a damaged index."""


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise GitFailed(f"expected an answer to `git {words[0]}` in {root}, got: {said}")
    return done.stdout.strip()
