"""The gate as it is typed: every exit code, and nothing left behind."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from bench.records import Status
from tests.gating_checkout import (
    TINY,
    append,
    clone,
    commit,
    copied_checkout,
    gate,
    gate_command,
    gate_environment,
    git,
    state,
)  # fmt: skip
from tests.killed import descendants, wait_until_gone
from tests.store_samples import ENVIRONMENT, cell, failed, scaled, store

SLEEPY = """
import time
from pathlib import Path

class Led:
    def __init__(self, request, at):
        self.folder, self.cells = Path(request["cache"]), request["cells"]
        self.folder.mkdir(exist_ok=True)

    def _sleep(self, name):
        (self.folder / name).touch()
        time.sleep(0.5)

    def prepare(self):
        self._sleep("preparing")
        return {}

    def warm(self):
        from bench.records import Cell

        return {Cell.from_dict(cell).cell_id: 1.0 for cell in self.cells}

    def turn(self, cells):
        self._sleep("turning")
        return dict.fromkeys(cells, 1.0)
"""
BROKEN = "\n\ndef broken(:\n"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout, with tags for bases that cannot be measured."""
    root = copied_checkout(tmp_path_factory.mktemp("gate") / "a check out")
    ops = (root / "hrbp_core" / "ops.py").read_text()
    assert "def spread_width(" in ops
    for tag, files, gone in (
        ("broken", {"hrbp_core/__init__.py": BROKEN}, ""),
        ("older", {"hrbp_core/ops.py": ops.replace("spread_width", "spread_breadth")}, ""),
        ("bare", {}, "hrbp_core"),
    ):
        commit(root, files, gone)
        git(root, "tag", tag)
        git(root, "reset", "-q", "--hard", "HEAD~1")
    return root


# --- two stored folders -------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folders")
    for name, one in (
        ("calm", cell(0)), ("twice", cell(0, scaled(2))), ("near", cell(0, scaled(1.1))),
        ("wrong", failed(Status.WRONG)),
    ):  # fmt: skip
        store(folder / name, one)
    store(folder / "elsewhere", cell(0), environment=replace(ENVIRONMENT, device_name="another"))
    return folder


@pytest.mark.parametrize(
    ("base", "head", "code", "sentence"),
    [
        ("calm", "calm", 0, "PASS: "),
        ("calm", "twice", 1, "FAIL: 1 of 1 cells"),
        ("calm", "none", 2, "NOT COMPARED: head: "),
        ("calm", "near", 3, "INCONCLUSIVE: "),
        ("calm", "elsewhere", 4, "INCOMPARABLE: "),
        ("none", "calm", 4, "NOT COMPARED: base: "),
        ("calm", "wrong", 5, "WRONG OR MISSING: "),
    ],
)
def test_stored_folders(origin, folders, tmp_path, base, head, code, sentence) -> None:
    summary = tmp_path / "summary.md"
    words = ("--base", folders / base, "--head", folders / head, "--markdown", summary)
    done = gate(origin, tmp_path / "t", *words)
    assert done.returncode == code, done.stdout + done.stderr
    assert sentence in done.stdout
    assert f"(exit {code})" in summary.read_text()


def test_stored_folders_as_json(origin, folders, tmp_path) -> None:
    words = ("--base", folders / "calm", "--head", folders / "twice", "--json")
    done = gate(origin, tmp_path / "t", *words)
    assert (done.returncode, json.loads(done.stdout)["exit_code"]) == (1, 1)


# --- what is asked wrongly ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "got"),
    [
        ((), "none of them"),
        (("--base", "x"), "--base"),
        (("--head", "x"), "--head"),
        (("--base-rev", "HEAD", "--self-test"), "--base-rev, --self-test"),
        (("--base-rev", "HEAD", "--promoted", "v1"), "--base-rev, --promoted"),
        (("--base-rev", "HEAD", "--base", "x", "--head", "y"), "--base-rev, --base and --head"),
    ],
)
def test_one_way_is_asked(origin, tmp_path, words, got) -> None:
    done = gate(origin, tmp_path / "t", *words)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("error: expected --base-rev REV, ")
    said, *more = done.stderr.splitlines()
    assert said.endswith(f"; got {got}")
    usual = "the working tree against the last commit: python -m bench gate --base-rev HEAD"
    assert more == ([] if words else [usual])


# --- two revisions, none of them measured -------------------------------------------------

WAYS = {
    "no such revision": ("--base-rev", "nope"),
    "a base that does not build": ("--base-rev", "broken"),
    "a base that lacks a name": ("--base-rev", "older"),
    "a head that does not build": ("--base-rev", "HEAD"),
    "a head whose shapes do not build": ("--base-rev", "HEAD"),
    "no checkout": ("--base-rev", "HEAD"),
    "a damaged index": ("--base-rev", "HEAD"),
    "a promoted base that is not there": ("--promoted", "nope"),
    "no budget": ("--base-rev", "HEAD", "--budget", "nan"),
    "too small a budget": ("--base-rev", "HEAD", "--budget", "0.01"),
}


@pytest.fixture(scope="module")
def ways(origin: Path, tmp_path_factory: pytest.TempPathFactory):
    """Return the ends of all these ways, two at a time, and each way's folder."""
    folder = tmp_path_factory.mktemp("ways")

    def take(name: str):
        root, left = clone(origin, folder / name), folder / f"{name} temporary"
        if name == "a head that does not build":
            append(root, "hrbp_core/ops.py", BROKEN)
        if name == "a head whose shapes do not build":
            append(root, "hrbp_core/shapes.py", BROKEN)
        if name == "no checkout":
            shutil.rmtree(root / ".git")
        if name == "a damaged index":
            (root / ".git" / "index").write_text("no index")
        words = (*WAYS[name], *TINY, "--out", folder / f"{name} out")
        done = gate(root, left, *words, GIT_CEILING_DIRECTORIES=str(folder))
        return done, root, list(left.iterdir())

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(WAYS, pool.map(take, WAYS), strict=True))


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("no such revision", 4, "base: expected a revision that git knows, got 'nope'"),
        ("a base that does not build", 4, "does not build, or lacks what the suite calls: Syntax"),
        ("a base that lacks a name", 4, "ImportError: cannot import name 'spread_width'"),
        ("a head that does not build", 2, "with uncommitted changes does not build: SyntaxError"),
        ("a head whose shapes do not build", 2, "SyntaxError"),
        ("no checkout", 2, "error: expected a git checkout at "),
        ("a damaged index", 2, "error: "),
        ("a promoted base that is not there", 2, "error: "),
        ("no budget", 2, "error: expected --budget above 0 minutes, got nan"),
        ("too small a budget", 2, "error: expected time for the screen's 6 trials of 2 cells"),
    ],
)
def test_two_revisions_that_are_not_compared(ways, name, code, said) -> None:
    done, _, left = ways[name]
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert left == []


def test_a_budget_that_is_too_small_keeps_its_trials_and_names_another(ways) -> None:
    done, root, _ = ways["too small a budget"]
    assert " so give --budget " in done.stderr
    out = Path(f"{root} out")
    lines = [json.loads(line) for line in (out / "gate_trials.jsonl").read_text().splitlines()]
    assert [line["role"] for line in lines] == ["head", "again", "base"]
    assert all(m["status"] == "ok" for line in lines for m in line["measurements"])


def test_a_gate_that_compared_nothing_says_so_in_its_file(ways) -> None:
    _, root, _ = ways["no such revision"]
    found = json.loads((Path(f"{root} out") / "gate.json").read_text())
    assert (found["exit_code"], found["verdicts"], len(found["errors"])) == (4, [], 1)


# --- interrupted --------------------------------------------------------------------------


def until(done) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def light(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose processes prepare and turn without torch, slowly, and tell when."""
    root = clone(origin, tmp_path_factory.mktemp("gate") / "light")
    commit(root, {"bench/gating/process.py": SLEEPY, "bench/impls/block_sparse.py": ""})
    return root


@pytest.mark.parametrize("when", ["preparing", "turning"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_gate_leaves_nothing(light, tmp_path, number, code, when) -> None:
    left, told = tmp_path / "t", tmp_path / "told"
    before = state(light)
    running = start(light, left, told)
    until(lambda: list(left.rglob(when)))
    children = descendants(running.pid)
    assert len(workers(running.pid)) == 3
    running.send_signal(number)
    assert running.wait(30) == code, told.read_text()
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert list(left.iterdir()) == []
    assert state(light) == before
    assert "Traceback" not in told.read_text()
    assert ("interrupted; nothing is left behind" in told.read_text()) is (code == 130)


def start(root: Path, left: Path, told: Path) -> subprocess.Popen[bytes]:
    with told.open("w") as said:
        return subprocess.Popen(
            gate_command("--base-rev", "HEAD", *TINY, "--out", left.parent / "out"), cwd=root,
            env=gate_environment(left), stderr=said, stdout=subprocess.DEVNULL,
            # a shell without job control makes what it starts in the background ignore interrupts
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip


def workers(pid: int) -> list[int]:
    """Return the measuring processes that a gate has started."""
    found = []
    for each in descendants(pid):
        try:
            command = Path(f"/proc/{each}/cmdline").read_bytes()
        except OSError:
            continue
        if b"bench.gating.worker" in command:
            found.append(each)
    return found


def test_a_killed_gate_is_swept_by_the_next_one(light, tmp_path) -> None:
    left, told = tmp_path / "t", tmp_path / "told"
    running = start(light, left, told)
    until(lambda: list(left.rglob("preparing")))
    children = descendants(running.pid)
    running.kill()
    running.wait()
    wait_until_gone(children)
    (folder,) = left.iterdir()
    assert folder.name.startswith(f"hrbp-gate-{running.pid}-")
    done = gate(light, left, "--base-rev", "bare", *TINY, "--out", tmp_path / "out")
    assert (done.returncode, "base: expected hrbp_core in " in done.stdout) == (4, True)
    assert list(left.iterdir()) == []
