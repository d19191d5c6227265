"""The command under torchrun: stopped and started again, it ends as if nothing had been."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORDS = (
    "--arms", "unstructured:rigl", "--densities", "0.25", "--seeds", "1", "--epochs", "3",
    "--batch", "30", "--take", "60,60", "--dst-every", "2", "--checkpoint-every", "0",
    "--device", "cpu",
)  # fmt: skip


def torchrun(out: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "bench", "accuracy", *WORDS, "--out", str(out), *more],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_what_is_left_of_killed_ranks_ends_with_the_same_weights(tmp_path: Path) -> None:
    """A kill leaves the last checkpoint alone: here, a copy of it."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    (cut / "checkpoints").mkdir(parents=True)
    process = torchrun(whole)
    left: list[Path] = []
    while process.poll() is None and not left:
        with contextlib.suppress(OSError):  # replaced or dropped meanwhile
            left = [
                Path(shutil.copy(found, cut / "checkpoints"))
                for found in (whole / "checkpoints").glob("*.pt")
            ]
        time.sleep(0.005)
    finished(process)
    assert left
    finished(torchrun(cut))
    assert not (cut / "checkpoints").exists()
    lines = [json.loads((f / "accuracy.jsonl").read_text()) for f in (cut, whole)]
    for name in ("weights", "curve", "losses", "updates", "explored", "run_id"):
        assert lines[0][name] == lines[1][name], name
    assert lines[0]["recipe"]["ranks"] == 2
    # seconds of all sittings: those of the first are in the copy
    assert lines[0]["train_s"] != lines[1]["train_s"]


def finished(process: subprocess.Popen[str]) -> None:
    told, _ = process.communicate(timeout=200)
    assert process.returncode == 0, told
    assert told.count("1 runs, 0 without an accuracy") == 1  # the first rank alone speaks
    assert "[1/1] unstructured:rigl density 0.25 seed 0: accuracy" in told
