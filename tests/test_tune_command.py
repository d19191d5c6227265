"""The command ``tune``: its sentences, and what it leaves, on a scripted device."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from bench import tune_device, tune_offline
from bench.cli import app
from bench.tune_cases import candidates, kernel_problem
from hrbp_core.kernels import gpu, tuned
from hrbp_core.shapes import Pass
from tests.tuning_samples import GPU, ScriptedGpu, quick

PROBLEM = kernel_problem(quick()[0].case)
FOUND = candidates(Pass.FPROP, PROBLEM, torch.bfloat16, 132, 90)[1]
NAMES = [c.name for c in FOUND]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--suite", "all"], "expected a suite of quick, "),
        (["--layers", "conv9"], "expected a layer of "),
        (["--dtype", "float64"], "expected a dtype of bfloat16, float16, tf32, float32"),
        (["--dtype", "int8"], "expected a dtype of "),
        (["--method", "hrbp"], "expected a method whose groups share their channels"),
        (["--suite", "quick", "--blocks", "24", "--densities", "0.5"], "got 24 and 24"),
        (["--suite", "quick", "--blocks", "64", "--densities", "0.01"], "that a layer can have"),
        (["--passes", "backward"], "expected a pass of fprop, dgrad, wgrad"),
        (["--minutes", "0"], "expected --minutes above 0"),
        (["--jobs", "0"], "expected --jobs of at least 1"),
        (["--table", "t.json"], "expected --table with --merge"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, words: list[str], sentence: str) -> None:
    done = CliRunner().invoke(app, ["tune", "--out", str(tmp_path), *words])
    assert (done.exit_code, sentence in done.output) == (2, True), done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_device_is_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["tune", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "expected a CUDA device, found none" in done.output


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[ScriptedGpu], None]:
    """Let the command find a scripted device."""

    def found(device: ScriptedGpu) -> None:
        device.clock.device = SimpleNamespace(cache_bytes=50 * 2**20)  # type: ignore[attr-defined]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr("bench.clocks.CudaClock", lambda: device.clock)
        monkeypatch.setattr("bench.tune_device.CudaTuning", lambda dtype, cache: device)
        usual = tune_offline.Objections
        monkeypatch.setattr(
            "bench.tune_offline.Objections", lambda able, jobs: usual(able, jobs, device.report)
        )

    return found


QUICK = ["tune", "--suite", "quick", "--layers", "conv4_3x3", "--blocks", "64", "--passes", "fprop",
         "--densities"]  # fmt: skip


def test_the_command_tunes_and_leaves_a_table_to_try(
    tmp_path: Path, on: Callable[[ScriptedGpu], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    on(ScriptedGpu(times={NAMES[2]: 50e-6}))
    words = [*QUICK, "0.25", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    told = rf"{NAMES[2]} 50\.\d us, (2\.0|1\.9)\dx the default \(model\); "
    assert re.search(told, done.output), done.output
    assert "another tile than the default in 1 of 1; " in done.output
    monkeypatch.setenv("HRBP_TUNED", str(tmp_path / "tuned.json"))
    chosen = tuned.lookup(Pass.FPROP, PROBLEM, torch.bfloat16, GPU, 90)
    assert chosen == (FOUND[2].tile, None)
    again = CliRunner().invoke(app, words)
    assert "0 problems to tune, 1 known already" in again.output


def test_the_command_tells_what_is_left_and_what_is_wrong(
    tmp_path: Path, on: Callable[[ScriptedGpu], None]
) -> None:
    on(ScriptedGpu(open_s=40.0, verdicts={NAMES[1]: [("wrong", "off by 3")]}))
    done = CliRunner().invoke(
        app, [*QUICK, "0.25,0.5,0.01", "--minutes", "1", "--out", str(tmp_path)]
    )
    assert done.exit_code == 5
    assert "note: conv4_3x3 left out: density 0.01 is under the least one" in done.output
    assert f"tile {NAMES[1]}: off by 3" in done.output
    assert "1 problems left for another call; the same command goes on" in done.output


def test_a_device_is_told_by_its_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = SimpleNamespace(torch="2.13", triton="3.7.1", cuda="13.0", driver="580")
    monkeypatch.setattr(tune_device, "environment", lambda device: facts)
    monkeypatch.setattr(tune_device, "set_up", lambda device, dtype: False)
    for name, value in (("device_name", GPU), ("capability", 90), ("processors", 132)):
        monkeypatch.setattr(gpu, name, lambda device, value=value: value)
    device = tune_device.CudaTuning("bfloat16", 1)
    assert (device.name, device.capability, device.processors) == (GPU, 90, 132)
    assert device.versions == vars(facts)


def test_help_shows_examples() -> None:
    done = CliRunner().invoke(app, ["tune", "--help"])
    assert "Example: python -m bench tune --merge results/tune" in done.output
