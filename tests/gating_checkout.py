"""Git repositories, a copy of this checkout and stand-in workers: for the tests of the gate."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.gating.sides import Side

ROOT = Path(__file__).parents[1]
GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
# of the smallest layers of any suite: 26 million operations a pass
TINY = (
    "--suite", "resnet50", "--layers", "conv3_expand", "--densities", "0.25", "--blocks", "32",
    "--batch", "1", "--device", "cpu", "--passes", "fprop,dgrad",
)  # fmt: skip
SLOW = """

import time

_quick = fprop


def fprop(*rest):
    start = time.perf_counter()
    y = _quick(*rest)
    end = 2 * time.perf_counter() - start
    while time.perf_counter() < end:
        pass
    return y
"""
WRONG = """

_right = fprop


def fprop(*rest):
    y = _right(*rest)
    y[0, 1, 2, 3] += 1
    return y
"""


# --- repositories -------------------------------------------------------------------------


def git(root: Path, *words: str) -> str:
    """Return what git says, whatever the user's own settings are."""
    done = subprocess.run(
        [*GIT, "-C", str(root), *words],
        env=os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Write files by their paths in a folder; return the folder."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def repository(root: Path, files: Mapping[str, str]) -> Path:
    """Return a new repository with one commit of what is in the folder, and these files."""
    write(root, files)
    git(root, "init", "-q", "-b", "main")
    commit(root)
    return root


def commit(root: Path, files: Mapping[str, str] | None = None, gone: str = "") -> str:
    """Commit all that is there, with these files and less one path; return the commit."""
    write(root, files or {})
    if gone:
        git(root, "rm", "-rq", gone)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "a change")
    return git(root, "rev-parse", "HEAD")


def tree(root: Path) -> dict[str, str]:
    """Return path -> text of all files in a folder."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): path.read_text() for path in files}


def state(root: Path) -> list[str]:
    """Return what git knows of a checkout: worktrees, changes, refs, stashes."""
    questions = ("worktree list --porcelain", "status --porcelain", "for-each-ref", "stash list")
    return [git(root, *words.split()) for words in questions]


def copied_checkout(root: Path) -> Path:
    """Return a repository whose one commit is this checkout's library and suite, as on disk."""
    for name in ("hrbp_core", "bench"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    return repository(root, {".gitignore": "__pycache__/\n/results/\n"})


def clone(origin: Path, target: Path) -> Path:
    """Return a clone, tags included."""
    subprocess.run([*GIT, "clone", "-q", str(origin), str(target)], check=True, timeout=60)
    return target


def append(root: Path, name: str, text: str) -> None:
    """Add text to the end of a file of a checkout."""
    with (root / name).open("a") as opened:
        opened.write(text)


# --- the command --------------------------------------------------------------------------


def gate_command(*words: object) -> list[str]:
    """Return the command as it is typed."""
    return [sys.executable, "-m", "bench", "gate", *map(str, words)]


def gate_environment(temporary: Path, **more: str) -> dict[str, str]:
    """Return an environment without a GPU, with one thread and a temporary folder of its own."""
    temporary.mkdir(exist_ok=True)
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("HRBP_", "GIT_", "PYTHON"))}
    own = {"TMPDIR": str(temporary), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    cache = str(temporary.parent / "cache")  # torch's own, which it leaves in TMPDIR otherwise
    own |= {"TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": cache}
    return kept | own | {"COLUMNS": "250", "NO_COLOR": "1"} | more


def gate(
    root: Path, temporary: Path, *words: object, timeout: float = 120.0, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a checkout."""
    return subprocess.run(
        gate_command(*words), cwd=root, env=gate_environment(temporary, **more),
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


# --- stand-in workers ---------------------------------------------------------------------

# does what it is sent as code; tells the request first
OBEDIENT = """
import json, os, signal, subprocess, sys, time

def tell(**message):
    print(json.dumps(message), flush=True)

with open(sys.argv[1]) as opened:
    tell(answer=json.load(opened))
for line in sys.stdin:
    exec(json.loads(line)["code"])
"""
# the real worker leads this
LED = """
import os, subprocess, sys, time

class Led:
    def __init__(self, request, at):
        self.request, self.at = request, at

    def prepare(self):
        exec(self.request.get("code", ""), {"led": self})
        return {"prepared": 1}

    def warm(self):
        return {"warm": 2.5}

    def turn(self, cells):
        return {cell: 1.0 for cell in cells}

    def finish(self):
        yield {"environment": {}}
        yield {"measurement": 3}
"""


def obedient_side(root: Path, name: str = "head", commit: str = "c" * 40) -> Side:
    """Return a side whose worker does what it is sent as ``code``."""
    files = {"bench/__init__.py": "", "bench/gating/__init__.py": ""}
    write(root, files | {"bench/gating/worker.py": OBEDIENT})
    return Side(name, commit, False, root)


def led_side(root: Path, **files: str) -> Side:
    """Return a side with the real worker around stand-ins that need no torch.

    Args:
        files: the text of ``library``, ``impls`` or ``package``, where it is another; the
            library "none" is not there.
    """
    texts = {
        "bench/__init__.py": files.get("package", ""),
        "bench/gating/__init__.py": "",
        "bench/gating/process.py": LED,
        "bench/impls/__init__.py": files.get("impls", "def load(name): pass\n"),
        "hrbp_core/__init__.py": files.get("library", ""),
    }
    if files.get("library") == "none":
        del texts["hrbp_core/__init__.py"]
    for name in ("bench/gating/worker.py", "bench/orphans.py"):
        texts[name] = (ROOT / name).read_text()
    write(root, texts)
    return Side("head", "c" * 40, False, root)
