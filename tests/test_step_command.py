"""``bench step``: trials, their end, resumption, failures, wrong words."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bench import cli_step
from bench.cli import app
from bench.gating.child import Died
from bench.step_table import read_steps, step_rows
from bench.stepping import measuring, trials
from bench.stepping import run as running
from bench.stepping.stepper import Stepper
from bench.stepping.trials import Machine
from hrbp_core.kernels import cpu
from tests.step_samples import InProcess, Scripted

SMALL = ["--model", "digits-cnn", "--batch", "4", "--block", "16", "--device", "cpu"]
STEADY = [{"dense": 0.2, "sparse": 0.1}]


@pytest.fixture(autouse=True)
def no_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trials.REST_S, "cpu", 0.0)


def step(out: Path, *words: str) -> Any:
    return CliRunner().invoke(app, ["step", *SMALL, "--out", str(out), *words])


def scripted(
    monkeypatch: pytest.MonkeyPatch, seconds: Any = None, tick_s: float = 0.001, **breaks: Any
) -> Scripted:
    """Let a script stand for the processes; each look at the clock takes ``tick_s``."""
    script = Scripted(seconds or STEADY, breaks)
    ticks = count()
    machine = partial(Machine, start=script.start, now=lambda: next(ticks) * tick_s)
    monkeypatch.setattr(running, "Machine", machine)
    return script


def only(out: Path) -> dict[str, Any]:
    (line,) = read_steps(out)
    return line


def test_trials_end_when_the_speed_up_is_known(monkeypatch, tmp_path) -> None:
    script = scripted(monkeypatch)
    done = step(tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "speed-up of a whole step 2.000x" in done.stdout
    line = only(tmp_path)
    assert len(line["trials"]) == 3
    assert line["flags"] == []
    assert sorted(script.parts[1:3]) == ["dense", "sparse"]  # of fresh processes each time
    assert script.ended == len(script.parts) == 7
    assert line["energy"] == {"dense": {"counter_net_j": 3.0}, "sparse": {"counter_net_j": 2.0}}
    assert line["facts"]["memory"] == "MADE UP"
    assert "spent" not in line["trials"][0]
    assert step_rows([line])["speedup"][0] == pytest.approx(2)


def test_noise_takes_all_trials_and_is_told(monkeypatch, tmp_path) -> None:
    uneven = [{"dense": 0.2, "sparse": 0.1 * f} for f in (1, 1.2, 0.9, 1.1, 1.3, 1.0)]
    scripted(monkeypatch, uneven)
    done = step(tmp_path, "--trials", "4")
    assert "[noisy]" in done.stdout
    assert len(only(tmp_path)["trials"]) == 4


def test_no_trial_begins_when_the_budget_would_not_hold_it(monkeypatch, tmp_path) -> None:
    uneven = [{"dense": 0.2, "sparse": 0.1 * f} for f in (1, 1.2, 0.9, 1.1, 1.3)]
    scripted(monkeypatch, uneven, tick_s=20.0)
    step(tmp_path, "--budget", "1")
    line = only(tmp_path)
    assert len(line["trials"]) == 1
    assert {"noisy", "single_process"} <= set(line["flags"])


def test_turns_last_a_tenth_of_a_second_at_least_a_step(monkeypatch, tmp_path) -> None:
    scripted(monkeypatch, [{"dense": 0.03, "sparse": 0.4}])
    step(tmp_path)
    (first, *_) = only(tmp_path)["trials"]
    assert first["steps_a_turn"] == {"dense": 3, "sparse": 1}
    assert len(first["dense_s"]) == 3 * len(first["sparse_s"])


def test_a_stored_comparison_is_not_measured_again(monkeypatch, tmp_path) -> None:
    script = scripted(monkeypatch)
    first = step(tmp_path)
    again = step(tmp_path)
    assert (again.exit_code, len(script.parts)) == (0, 7)
    assert "before" in again.stdout
    assert again.stdout.splitlines()[1:] == first.stdout.splitlines()
    step(tmp_path, "--density", "0.5")
    assert len(read_steps(tmp_path)) == 2


def test_several_densities_share_the_time_and_the_rest_is_left(monkeypatch, tmp_path) -> None:
    scripted(monkeypatch)
    seconds = iter([0.0, 1.0, 31.0, 61.0, 62.0])
    monkeypatch.setattr(cli_step.time, "monotonic", lambda: next(seconds))
    done = step(tmp_path, "--density", "0.5,0.25,0.125", "--budget", "1")
    assert done.exit_code == 0
    assert "1 comparisons left for another call" in done.stdout
    assert [line["density"] for line in read_steps(tmp_path)] == [0.5, 0.25]


def test_a_wrong_one_among_several_decides_the_exit_code(monkeypatch, tmp_path) -> None:
    scripted(monkeypatch, make={"failed": ["wrong", "planted"]})
    assert step(tmp_path, "--density", "0.5,0.25").exit_code == 5
    assert [line["status"] for line in read_steps(tmp_path)] == ["wrong", "wrong"]


@pytest.mark.parametrize(
    ("breaks", "status", "words"),
    [
        ({"turn": Died("sparse", "stepping", "its process ended: killed by SIGKILL")}, "oom",
         "while stepping: its process ended: killed by SIGKILL; take a smaller --batch"),
        ({"turn": Died("sparse", "stepping", "its process ended: killed by SIGSEGV")}, "crashed",
         "killed by SIGSEGV"),
        ({"prepare": Died("dense", "preparing", "a step took longer than 1800 s")}, "timeout",
         "while preparing"),
        ({"prepare": {"failed": ["oom", "CUDA out of memory"]}}, "oom", "take a smaller --batch"),
        ({"make": {"failed": ["skipped", "expected layers that become sparse"]}}, "skipped",
         "expected layers"),
    ],
)  # fmt: skip
def test_every_failure_is_a_status_with_a_reason(
    breaks, status, words, monkeypatch, tmp_path
) -> None:
    script = scripted(monkeypatch, **breaks)
    done = step(tmp_path)
    assert done.exit_code == 2
    assert status.upper() in done.stderr
    assert words in done.stderr
    line = only(tmp_path)
    assert (line["status"], line["trials"]) == (status, [])
    assert words in line["reason"]
    assert script.ended == len(script.parts)


def test_a_loss_that_is_not_finite_is_wrong(monkeypatch, tmp_path) -> None:
    lost = {"peak_bytes": 1, "memory": "", "monitor": {}, "causes": [], "loss": None}
    scripted(monkeypatch, end=lost)
    done = step(tmp_path)
    assert done.exit_code == 5
    assert "the loss was not finite" in done.stderr


def test_an_interrupt_keeps_nothing_half_and_ends_all(monkeypatch, tmp_path) -> None:
    script = scripted(monkeypatch, turn=KeyboardInterrupt())
    done = step(tmp_path)
    assert done.exit_code == 130
    assert read_steps(tmp_path) == []
    assert script.ended == len(script.parts)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "alexnet"], "expected model as one of digits-cnn"),
        (["--mode", "fast"], "expected mode as one of eager, compile, graph; got 'fast'"),
        (["--mode", "graph"], "got graph: only CUDA has graphs"),
        (["--method", "unstructured"], "expected method as one of"),
        (["--balance", "all"], "expected balance as one of none, filters, both; got 'all'"),
        (["--scores", "best"], "expected scores as one of"),
        (["--batch", "1"], "expected batch >= 2"),
        (["--density", "a"], "density"),
        (["--density", "0"], "expected density in (0, 1], got 0"),
        (["--block", "0"], "expected block >= 1"),
        (["--budget", "0"], "expected a budget above 0"),
        (["--trials", "0"], "expected at least 1 trial"),
        (["--device", "tpu"], "expected a device of auto, cpu, cuda"),
    ],
)
def test_wrong_words_end_with_a_sentence(words, message, tmp_path) -> None:
    done = step(tmp_path, *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "steps.jsonl").exists()


# the worker's own code, in this process ---------------------------------------------------------


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.setattr(trials, "_start", InProcess)
    monkeypatch.setattr(measuring, "set_up", lambda *_: torch.set_num_threads(1))
    monkeypatch.setattr("bench.stepping.making.set_up", lambda *_: torch.set_num_threads(1))
    monkeypatch.setattr("bench.conversion.set_up", lambda *_: torch.set_num_threads(1))
    monkeypatch.setattr(measuring, "spin", lambda _: None)
    monkeypatch.setattr("bench.stepping.stepper.WARM_UP", {"cpu": (1, 0.0)})
    monkeypatch.setattr(trials, "TURN_S", 0.001)
    monkeypatch.setattr(trials, "MOST_LAPS", 3)
    InProcess.asked.clear()
    yield
    torch.set_num_threads(before)


def test_a_comparison_from_end_to_end(in_process, tmp_path) -> None:
    done = step(tmp_path, "--trials", "2")
    assert done.exit_code == 0, done.stderr
    line = only(tmp_path)
    assert InProcess.asked[0] == "make"
    assert line["facts"]["canonical"] == line["facts"]["sparse_layers"] == 4
    assert line["facts"]["real_density"] == pytest.approx(0.25)
    assert 0.2 < line["facts"]["flops_ratio"] < 0.4
    assert line["errors"]["update"] < 2e-3
    assert {"convert", "absorb"} <= line["prep_s"].keys()
    assert line["optimizer"] == "fused"
    (row,) = step_rows([line]).to_dict("records")
    assert row["speedup"] > 0
    assert 1 < row["amdahl_bound"] < 4
    assert not math.isnan(row["dense_peak_bytes"])
    assert {"convolution dgrad", "convolution wgrad"} <= line["spent"]["sparse"]["kinds_s"].keys()
    environments = json.loads((tmp_path / "environment.json").read_text())
    assert line["environment"] in environments


def test_a_wrong_kernel_ends_with_5_before_anything_is_timed(
    in_process, monkeypatch, tmp_path
) -> None:
    real = cpu.wgrad
    monkeypatch.setattr(cpu, "wgrad", lambda *a, **k: real(*a, **k) * 1.01)
    done = step(tmp_path)
    assert done.exit_code == 5
    assert done.stderr.splitlines()[-1].startswith("WRONG: digits-cnn, batch 4, eager, float32")
    assert "make: not the masked dense step: the update of " in done.stderr
    assert InProcess.asked == ["make"]
    line = only(tmp_path)
    assert (line["status"], line["trials"], line["facts"]["sparse_layers"]) == ("wrong", [], 4)
    assert step(tmp_path).exit_code == 5  # and stays so


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--density", "0.01"], "expected density >= 0.125"),
        (["--block", "256"], "expected a layer to allocate"),
        (["--density", "1"], "expected layers that become sparse, got none"),
    ],
)
def test_what_cannot_become_sparse_is_recorded(in_process, words, message, tmp_path) -> None:
    done = step(tmp_path, *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert only(tmp_path)["status"] == "skipped"


def test_memory_that_runs_out_comes_with_advice(in_process, monkeypatch, tmp_path) -> None:
    def full(self: Stepper) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Stepper, "warm_up", full)
    done = step(tmp_path)
    assert done.exit_code == 2
    assert "Tried to allocate 2 GiB; take a smaller --batch" in done.stderr
    assert only(tmp_path)["status"] == "oom"


# fresh processes, once ----------------------------------------------------------------------------


def test_fresh_processes_take_turns(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = step(tmp_path, "--trials", "1", "--budget", "0.02")
    assert done.exit_code == 0, done.stderr
    line = only(tmp_path)
    assert {"noisy", "single_process"} <= set(line["flags"])
    assert min(line["trials"][0]["dense_s"] + line["trials"][0]["sparse_s"]) > 0
    assert line["facts"]["memory"].startswith("a process")
