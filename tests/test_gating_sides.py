"""bench.gating.sides: two states of the library on disk, beside head's suite; nothing stays."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from bench.gating import sides
from bench.gating.sides import NoRevision, checkout, commit_of, laid_out
from tests.gating_checkout import commit, git, repository, state, tree, write

FIRST = {
    ".gitignore": "*.tmp\n",
    "README.md": "one\n",
    "bench/__init__.py": "one\n",
    "bench/old.py": "one\n",
    "hrbp_core/__init__.py": "one\n",
    "hrbp_core/gone.py": "one\n",
    "hrbp_core/kernels/a b ü.py": "one\n",
    "hrbp_core/kernels/tuned.json": "one\n",
}
SECOND = {
    "bench/__init__.py": "two\n",
    "bench/new.py": "two\n",
    "hrbp_core/kernels/a b ü.py": "two\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with a space in its name and two commits; the first one is tagged."""
    made = repository(tmp_path / "a check out", FIRST)
    git(made, "tag", "-a", "v1", "-m", "the first one")
    commit(made, SECOND, gone="bench/old.py")
    return made


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of our own: what is left there shows."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


# --- what is laid out ---------------------------------------------------------------------


def test_base_is_the_commits_library_beside_heads_suite(root: Path) -> None:
    with laid_out(root, "v1") as (base, _):
        found = tree(base.root)
    suite = {"bench/__init__.py": "two\n", "bench/new.py": "two\n"}
    assert found == suite | {n: t for n, t in FIRST.items() if n.startswith("hrbp_core")}


def test_head_is_the_working_tree_as_it_is(root: Path) -> None:
    write(root, {
        "hrbp_core/__init__.py": "edited\n",
        "hrbp_core/untracked.py": "new\n",
        "hrbp_core/ignored.tmp": "no\n",
        "bench/untracked.py": "new\n",
        "elsewhere.py": "no\n",
    })  # fmt: skip
    (root / "hrbp_core" / "gone.py").unlink()
    with laid_out(root, "v1") as (base, head):
        found, suite = tree(head.root), tree(base.root / "bench")
    assert found == {
        "bench/__init__.py": "two\n",
        "bench/new.py": "two\n",
        "bench/untracked.py": "new\n",
        "hrbp_core/__init__.py": "edited\n",
        "hrbp_core/kernels/a b ü.py": "two\n",
        "hrbp_core/kernels/tuned.json": "one\n",
        "hrbp_core/untracked.py": "new\n",
    }
    assert suite == {n[6:]: t for n, t in found.items() if n.startswith("bench")}


def test_staged_and_tracked_though_ignored_files_are_heads(root: Path) -> None:
    write(root, {"hrbp_core/staged.py": "new\n", "hrbp_core/kept.tmp": "kept\n"})
    git(root, "add", "-f", "hrbp_core/staged.py", "hrbp_core/kept.tmp")
    with laid_out(root, "HEAD") as (base, head):
        assert (head.root / "hrbp_core/staged.py").read_text() == "new\n"
        assert (head.root / "hrbp_core/kept.tmp").read_text() == "kept\n"
        assert not (base.root / "hrbp_core/staged.py").exists()


def test_later_edits_do_not_reach_what_is_measured(root: Path) -> None:
    with laid_out(root, "HEAD") as (base, head):
        write(root, {"hrbp_core/__init__.py": "later\n"})
        for side in (base, head):
            assert (side.root / "hrbp_core/__init__.py").read_text() == "one\n"


@pytest.mark.parametrize("revision", ["v1", "HEAD~1", "v1^{}", "short"])
def test_sides_say_who_they_are(root: Path, revision: str) -> None:
    first, second = git(root, "rev-parse", "v1^{commit}"), git(root, "rev-parse", "HEAD")
    with laid_out(root, first[:8] if revision == "short" else revision) as (base, head):
        assert (base.name, base.commit, base.dirty) == ("base", first, False)
        assert (head.name, head.commit, head.dirty) == ("head", second, False)
        assert (base.text, head.text) == (first[:10], second[:10])


@pytest.mark.parametrize(
    ("files", "dirty"),
    [
        ({}, False),
        ({"README.md": "edited\n"}, False),
        ({"elsewhere.py": "new\n"}, False),
        ({"hrbp_core/ignored.tmp": "new\n"}, False),
        ({"hrbp_core/__init__.py": "edited\n"}, True),
        ({"hrbp_core/untracked.py": "new\n"}, True),
        ({"bench/__init__.py": "edited\n"}, True),
        ({"bench/untracked.py": "new\n"}, True),
    ],
)
def test_head_is_dirty_by_changes_of_library_or_suite_alone(root: Path, files, dirty) -> None:
    write(root, files)
    with laid_out(root, "v1") as (base, head):
        assert (base.dirty, head.dirty) == (False, dirty)
        assert head.text.endswith(" with uncommitted changes") is dirty


# --- head alone, for the gate's test of itself ----------------------------------------------


@pytest.mark.parametrize("git_there", [True, False])
def test_head_alone_is_the_working_tree_with_git_or_without(
    root: Path, temporary: Path, monkeypatch, git_there: bool
) -> None:
    write(root, {"hrbp_core/untracked.py": "new\n", "hrbp_core/__pycache__/a.pyc": "no\n"})
    write(root, {".gitignore": "*.tmp\n__pycache__/\n"})
    monkeypatch.setattr(sides, "__file__", str(root / "bench" / "gating" / "sides.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(root.parent))
    monkeypatch.delenv("HRBP_COMMIT", raising=False)
    commit_there = git(root, "rev-parse", "HEAD")
    if not git_there:
        (root / ".git").rename(root / "no git")
    with sides.head_alone(root) as head:
        found = tree(head.root)
        assert (head.name, head.commit, head.dirty) == (
            ("head", commit_there, True) if git_there else ("head", "unknown", False)
        )
    assert found["hrbp_core/untracked.py"] == "new\n"
    assert found["bench/__init__.py"] == "two\n"
    assert not [name for name in found if "__pycache__" in name]
    assert {name.split("/")[0] for name in found} == {"bench", "hrbp_core"}
    assert not list(temporary.iterdir())


def test_a_copy_of_the_files_says_its_commit_by_the_environment(root, monkeypatch) -> None:
    monkeypatch.setenv("HRBP_COMMIT", "d" * 40)
    with sides.head_alone(root) as head:
        assert (head.commit, head.dirty) == ("d" * 40, False)


# --- what there is not --------------------------------------------------------------------


@pytest.mark.parametrize(
    "revision", ["nope", "--help", "--all", "-n1", "", "HEAD:hrbp_core", "HEAD~9", "f" * 40]
)
def test_no_such_revision(root: Path, temporary: Path, revision: str) -> None:
    with pytest.raises(NoRevision) as found, laid_out(root, revision):
        pass
    assert f"expected a revision that git knows, got {revision!r}" in str(found.value)
    assert "fetch-depth: 0" in str(found.value)
    assert not list(temporary.iterdir())


def test_a_branch_named_like_an_option_is_a_branch(root: Path) -> None:
    git(root, "update-ref", "refs/heads/--all", "v1^{commit}")
    assert commit_of(root, "--all") == git(root, "rev-parse", "v1^{commit}")


def test_a_revision_without_the_library(root: Path, temporary: Path) -> None:
    bare = commit(root, gone="hrbp_core")
    git(root, "reset", "-q", "--hard", "HEAD~1")
    with pytest.raises(NoRevision, match=f"expected hrbp_core in {bare[:10]}, got"):
        laid_out(root, bare).__enter__()
    assert not list(temporary.iterdir())


def test_the_checkout_is_the_one_that_the_suite_lies_in(root: Path, monkeypatch) -> None:
    monkeypatch.setattr(sides, "__file__", str(root / "bench" / "gating" / "sides.py"))
    assert checkout() == root


@pytest.mark.parametrize("lacking", ["repository", "git"])
def test_no_git_checkout(tmp_path: Path, monkeypatch, lacking: str) -> None:
    monkeypatch.setattr(sides, "__file__", str(tmp_path / "bench" / "gating" / "sides.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    if lacking == "git":
        monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="expected a git checkout at ") as found:
        checkout()
    assert not isinstance(found.value, NoRevision)
    assert "\n" not in str(found.value)


# --- nothing stays ------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [None, RuntimeError, KeyboardInterrupt, SystemExit])
def test_both_folders_are_gone_however_it_ends(root: Path, temporary: Path, ending) -> None:
    before = state(root)
    seen: list[Path] = []

    def use() -> None:
        with laid_out(root, "v1") as (base, head):
            seen.extend((base.root, head.root))
            assert all(path.is_relative_to(temporary) and path.is_dir() for path in seen)
            (base.root / "left by a process").write_text("x")
            assert state(root) == before
            if ending is not None:
                raise ending

    if ending is None:
        use()
    else:
        with pytest.raises(ending):
            use()
    assert len(set(seen)) == 2
    assert not list(temporary.iterdir())
    assert state(root) == before


def test_uncommitted_changes_stay_as_they_are(root: Path) -> None:
    write(root, {"hrbp_core/__init__.py": "edited\n", "bench/untracked.py": "new\n"})
    git(root, "add", "hrbp_core/__init__.py")
    before, files = state(root), tree(root / "hrbp_core")
    with laid_out(root, "v1"):
        pass
    assert (state(root), tree(root / "hrbp_core")) == (before, files)


def test_what_a_killed_gate_left_is_swept_and_nothing_else(root: Path, temporary: Path) -> None:
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    left = {
        name: temporary / name
        for name in (
            f"hrbp-gate-{dead.pid}-abc",
            f"hrbp-gate-{os.getpid()}-abc",
            f"hrbp-gate-{os.getppid()}-abc",
            "hrbp-gate-notes",
            f"other-{dead.pid}-abc",
        )
    }
    for path in left.values():
        write(path, {"base/hrbp_core/a.py": "x"})
    with laid_out(root, "v1"):
        swept = [name for name, path in left.items() if not path.exists()]
    assert swept == [f"hrbp-gate-{dead.pid}-abc"]
