"""`bench run --isolate` with a third party that hangs: the others are measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = """
import time
from types import SimpleNamespace
from bench.impls import block_sparse

def plain(problem):
    return block_sparse.prepare(problem)

def hangs(problem):
    time.sleep(600)

IMPLS = {name: SimpleNamespace(prepare=call) for name, call in list(globals().items())
         if callable(call) and getattr(call, "__module__", "") == __name__}
plain_, hangs_ = (IMPLS[n] for n in ("plain", "hangs"))
"""
LIMIT_S = 10  # a busy machine's first convolution once took longer than 5


@pytest.fixture
def site(tmp_path):
    """Leave a distribution with entry points, as pip would."""
    folder = tmp_path / "site"
    info = folder / "rival-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "rival.py").write_text(SOURCE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    lines = "\n".join(f"rival_{name} = rival:{name}_" for name in ("plain", "hangs"))
    (info / "entry_points.txt").write_text(f"[hrbp.impls]\n{lines}\n")
    return folder


def test_one_that_hangs_costs_itself_alone(site, tmp_path) -> None:
    names = "dense,rival_hangs,rival_plain,block_sparse"
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": f"{site}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "bench", "run", "--suite", "quick", "--device", "cpu",
         "--layers", "conv5_3x3", "--batch", "1", "--densities", "0.25", "--blocks", "64",
         "--passes", "fprop", "--impls", names, "--isolate", "--limit", str(LIMIT_S),
         "--out", str(tmp_path / "out")],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "results.jsonl").read_text()
    lines = {line["impl"]: line for line in map(json.loads, text.splitlines())}
    assert list(lines) == names.split(",")
    assert lines["rival_hangs"]["status"] == "timeout"
    took = f"a step of rival_hangs took longer than {LIMIT_S} s, twice"
    assert lines["rival_hangs"]["reason"] == took
    for name in ("dense", "rival_plain", "block_sparse"):
        assert lines[name]["status"] == "ok"
    tried = [line for line in done.stdout.splitlines() if "a step of rival_hangs took" in line]
    assert len(tried) == 2, done.stdout
