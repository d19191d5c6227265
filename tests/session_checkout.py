"""A checkout with bench/gpu_session.sh, whose interpreter is a stub that tests steer."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS = [
    "machine", "doctor", "tiles-first", "tests-first", "sweep-first", "ceilings", "tests",
    "sanitizer", "sweep-bfloat16", "sweep-float16", "report", "tiles-rest",
]  # fmt: skip
MEASURE = ["machine", "sweep-sustained", "profile", "breakeven", "energy", "sweep-host", "report"]
WHOLE_STEPS = ["steps-vgg16", "steps-wrn28_10", "steps-resnet50", "steps-report"]
# Writes down what it was asked; fails, says something or takes its time where a test wants it so.
STUB = """#!/usr/bin/env bash
case "$1 $2" in
"-m pip") exit 0 ;;
"-c from importlib.util"*) echo "${LACKS:-}"; exit 0 ;;
"-c import sys, torch"*) exit "${NO_CUDA:-0}" ;;
esac
told="$*"
case "$told" in *"--suite targets"*) told="$told HRBP_TUNED=${HRBP_TUNED:-unset}" ;; esac
echo "$told" >>"$ASKED"
case "${TUNES:-} $*" in
yes*"bench tune"*) mkdir -p "$FOLDER/tune" && echo "{}" >"$FOLDER/tune/tuned.json" ;;
esac
case "$*" in *"bench tune"*) echo "${TUNE_SAYS:-}" ;; esac
case "$*" in *"${SLOW:-nothing}"*) sleep 30 ;; esac
case "$*" in *"${LARGE:-nothing}"*) head -c 20000000 /dev/urandom >"$FOLDER/large.bin" ;; esac
case "$*" in *"bench check"*) echo "${CHECK_SAYS:-}" ;; esac
case "$*" in *"${FAILING:-nothing}"*) echo "it broke"; exit 7 ;; esac
"""


@dataclass(frozen=True)
class Session:
    """A checkout with the script, and a results folder with a space in its name."""

    folder: Path

    @property
    def out(self) -> Path:
        return self.folder.parent / "the results"

    @property
    def script(self) -> Path:
        return self.folder / "bench" / "gpu_session.sh"

    @property
    def asked(self) -> list[str]:
        path = self.folder.parent / "asked"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def steps(self) -> dict[str, int]:
        """Return step -> exit code, of its last run."""
        lines = (self.out / "steps.tsv").read_text().splitlines()
        return {line.split("\t")[0]: int(line.split("\t")[1]) for line in lines}

    def words(self, *arguments: str, stage: str = "check", minutes: str = "9") -> list[str]:
        options = ["--stage", stage, "--minutes", minutes, "--out", str(self.out), "--no-install"]
        return ["bash", str(self.script), *options, *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        folder = self.folder.parent
        stub = folder / "python"
        if not stub.exists():
            stub.write_text(STUB)
            stub.chmod(0o755)
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        own = {"HOME": str(folder), "ASKED": str(folder / "asked"), "FOLDER": str(self.out)}
        return kept | own | {"HRBP_PYTHON": str(stub)} | more

    def run(
        self, *arguments: str, stage: str = "check", minutes: str = "9", **more: str
    ) -> subprocess.CompletedProcess[str]:
        return self.plain(*self.words(*arguments, stage=stage, minutes=minutes)[2:], **more)

    def plain(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(self.script), *arguments],
            cwd=self.folder.parent,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def archive(self) -> Path:
        """Return the archive: .zst, or .gz on a machine without zstd."""
        return next(self.out.glob("results.tar.*"))

    def packed(self, path: Path | None = None) -> list[str]:
        archive = path or self.archive
        if archive.suffix == ".gz":
            with tarfile.open(archive) as tar:
                return tar.getnames()
        plain = archive.parent.parent / "plain.tar"
        subprocess.run(["zstd", "-dqf", archive, "-o", plain], check=True)
        with tarfile.open(plain) as tar:
            return tar.getnames()


def make_session(folder: Path) -> Session:
    """Return a checkout with the script and one kernel in ``folder``."""
    checkout = folder / "a check out"
    for name in ("bench/impls", "hrbp_core", "tests"):
        (checkout / name).mkdir(parents=True)
    (checkout / "hrbp_core" / "kernel.py").write_text("one\n")
    for name in ("gpu_session.sh", "gpu_steps.sh"):
        shutil.copy(ROOT / "bench" / name, checkout / "bench")
    return Session(checkout)
