"""The profile command as a user types it: sentences, exit codes, files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from hrbp_core.kernels import gpu

ROOT = Path(__file__).parent.parent
LAYER = ["--offline", "--layer", "conv4_3x3", "--block", "64", "--density", "0.25"]


def assert_refused(done, told):
    """One sentence on standard error, and exit code 2."""
    assert done.exit_code == 2, done.stdout
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def profile(*words, **environment):
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "NO_COLOR": "1"} | environment
    return subprocess.run(
        [sys.executable, "-m", "bench", "profile", *map(str, words)],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*LAYER, "--all-tiles"], "either --all-tiles or --layer"),
        (["--offline"], "either --all-tiles or --layer"),
        (["--offline", "--all-tiles", "--tile", "a"], "expected --tile with --layer"),
        ([*LAYER, "--gpu-sms", "0"], "expected --gpu-sms above 0, got 0"),
        ([*LAYER, "--jobs", "0"], "expected --jobs of at least 1, got 0"),
        ([*LAYER, "--arch", "sm_90,sm_75"], "arch of sm_80, sm_90, sm_100; got 'sm_75'"),
        ([*LAYER, "--arch", ","], "expected --arch as a comma-separated list"),
        (LAYER[:-2], "expected --block and --density with --layer"),
        ([*LAYER, "--tile", "8x8", "--pass", "wgrad"], "a tile of wgrad for this layer on sm_90, "),
        ([*LAYER, "--dtype", "float64"], "float16, bfloat16, float32; got 'float64'"),
        ([*LAYER, "--density", "0.01"], "pattern that conv4_3x3 can have: density 0.01 is under"),
        ([*LAYER, "--pass", "backward"], "pass of fprop, dgrad, wgrad; got 'backward'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(words, told) -> None:
    done = CliRunner().invoke(app, ["profile", *words])
    assert_refused(done, told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*LAYER, "--layer", "conv9"], "expected a layer of conv2_3x3, "),
        ([*LAYER, "--arch", "sm_75"], "arch of sm_80, sm_90, sm_100; got 'sm_75'"),
        ([*LAYER, "--block", "48"], "block_c each of 16, 32, 64, 128 on a GPU, got 48 and 48"),
        ([*LAYER, "--tile", "8x8"], "tile of fprop for this layer on sm_90, one of 64x64.m.w4"),
    ],
)
def test_bad_input_in_a_shell(words, told) -> None:
    done = profile(*words)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_interpreter_is_told_of() -> None:
    done = profile(*LAYER, TRITON_INTERPRET="1")
    assert done.returncode == 2
    assert "TRITON_INTERPRET=1 interprets them: unset it" in done.stderr


@pytest.mark.skipif(gpu.interpreted(), reason="TRITON_INTERPRET=1: nothing to compile")
def test_a_layer_in_processes_of_its_own(tmp_path) -> None:
    file = tmp_path / "new" / "p.json"
    done = profile(
        *LAYER, "--pass", "fprop,dgrad", "--dtype", "bfloat16", "--tile", "64x64.m.w4s4",
        "--jobs", "2", "--json", file, "--rate-tflops", "100",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "[2/2]" in done.stderr
    report = json.loads(file.read_text())
    assert [(row["pass"], row["tile"], row["arch"]) for row in report["rows"]] == [
        ("fprop", "64x64.m.w4s4", "sm_90"),
        ("dgrad", "64x64.m.w4s4", "sm_90"),
    ]
    assert all(row["matrix"]["HGMMA"] for row in report["rows"])
    assert [model["assumed_rate_tflops"] for model in report["floor_model"]] == [100.0, 100.0]
    assert "a model, no measurement; assumed ceilings: 4.3 TB/s and 100 TFLOP/s" in done.stdout
    assert "HGMMA" in done.stdout
