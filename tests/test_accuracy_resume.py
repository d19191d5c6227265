"""A training that was stopped goes on with the same bits; one that cannot be done says why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.accuracy import Run, arms, data, run, runs, train
from bench.accuracy.checkpoint import Checkpoint
from bench.accuracy.command import Clock
from tests.accuracy_samples import TINY, few, network_of, one_thread, trainer

__all__ = ["few", "one_thread"]  # fixtures: pytest finds them by name

ROOT = Path(__file__).parents[1]
WORDS = (
    "--arms", "hrbp2:rigl", "--densities", "0.25", "--seeds", "1", "--epochs", "8", "--batch", "30",
    "--take", "300,60", "--dst-every", "3", "--checkpoint-every", "0", "--device", "cpu",
)  # fmt: skip


def bench(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench", "accuracy", *WORDS, "--out", str(out)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def line_of(folder: Path) -> dict:
    (text,) = (folder / "accuracy.jsonl").read_text().splitlines()
    return json.loads(text)


def test_a_killed_training_ends_with_the_same_weights(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = bench(cut)
    first = None
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        found = list((cut / "checkpoints").glob("*.pt"))
        if found and first is None:
            first = found[0].stat().st_ino
        if found and found[0].stat().st_ino != first:  # it was replaced: two epochs are over
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    told, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, told
    assert not (cut / "accuracy.jsonl").exists()
    for folder in (cut, whole):
        done = bench(folder)
        told, _ = done.communicate(timeout=120)
        assert done.returncode == 0, told
    one, other = line_of(cut), line_of(whole)
    assert one["weights"] == other["weights"]
    for name in ("curve", "losses", "updates", "explored", "accuracy", "run_id"):
        assert one[name] == other[name], name
    assert one["updates"] == 19  # of 80 steps, 3/4 of them: after 3, 6, ... 57
    assert not (cut / "checkpoints").exists()


@pytest.mark.parametrize(
    ("arm", "dst"),
    [("dense", "static"), ("unstructured", "set"), ("hrbp2_pp", "rigl"), ("thin", "static")],
)
def test_a_training_taken_apart_is_that_in_one_go(arm, dst, few):
    plan = replace(TINY, epochs=3, dst_every=2)
    each = Run(arm, 0.25, 0, dst)
    states = []
    network, _ = network_of(arm, few, plan)
    whole = trainer(network, few, plan, each).run(
        lambda state: states.append(torch.load(saved(state), weights_only=True))
    )
    weights = train.weights_digest(network)
    assert [len(state["curve"]) for state in states] == [1, 2]
    for state in states:
        network, _ = network_of(arm, few, plan)
        torch.manual_seed(17)
        rest = trainer(network, few, plan, each)
        rest.load_state_dict(state)
        outcome = rest.run()
        assert outcome.curve == whole.curve
        assert outcome.losses == whole.losses
        assert outcome.updates == whole.updates
        assert train.weights_digest(network) == weights


def saved(state):
    import io

    held = io.BytesIO()
    torch.save(state, held)
    held.seek(0)
    return held


def test_a_checkpoint_is_written_at_times_and_gone_in_the_end(tmp_path, few):
    network, _ = network_of("dense", few)
    state = trainer(network, few, TINY, Run("dense", 1.0, 0)).state_dict()
    seldom = Checkpoint(tmp_path, "a", every_s=1e6)
    seldom.save(state)
    assert not seldom.path.exists()
    often = Checkpoint(tmp_path, "b", every_s=0)
    often.save(state)
    assert often.load("cpu").keys() == state.keys()
    assert [p.name for p in often.path.parent.iterdir()] == ["b.pt"]
    often.drop()
    assert list(tmp_path.iterdir()) == []
    assert often.load("cpu") is None


def test_a_torn_checkpoint_costs_its_epochs_alone(tmp_path, few, monkeypatch, capsys):
    monkeypatch.setattr(data, "load", lambda *_, **__: few)
    plan = replace(TINY, arms=("dense",))
    (clean,) = run(plan, tmp_path / "clean", environment_id="here")
    broken = Checkpoint(tmp_path / "torn", clean["run_id"])
    broken.path.parent.mkdir(parents=True)
    broken.path.write_bytes(b"PK\x03\x04 torn")
    (line,) = run(plan, tmp_path / "torn", environment_id="here")
    assert line["weights"] == clean["weights"]
    assert "cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), MemoryError()],
)
def test_out_of_memory_is_a_line_and_the_sweep_goes_on(error, tmp_path, few, monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_, **__: few)
    build = arms.build

    def greedy(each, *rest):
        if each.arm == "unstructured":
            raise error
        return build(each, *rest)

    monkeypatch.setattr(arms, "build", greedy)
    plan = replace(TINY, arms=("unstructured", "aligned"))
    first, second = run(plan, tmp_path, environment_id="here")
    assert (first["status"], first["accuracy"], second["status"]) == ("oom", None, "ok")
    assert first["reason"].startswith("a batch of 30 images does not fit: give a smaller --batch (")
    assert first.keys() == second.keys()


def test_another_error_is_not_taken_for_it(tmp_path, few, monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_, **__: few)

    def broken(*_):
        raise RuntimeError("no")

    monkeypatch.setattr(runs.arms, "build", broken)
    with pytest.raises(RuntimeError, match="no"):
        run(replace(TINY, arms=("dense",)), tmp_path, environment_id="here")


def test_bfloat16_is_what_the_convolutions_run_in(few):
    seen = []
    network, _ = network_of("dense", few)
    network.blocks[0].conv1.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    half = replace(TINY, precision="bfloat16")
    train.step(network, train.make_optimizer(network, half, 0.1), half, few.train_x[:8],
               few.train_y[:8])  # fmt: skip
    assert seen == [torch.bfloat16]


def test_the_time_left_counts_trained_runs_alone():
    times = iter([0.0, 0.01, 60.01, 160.01, 160.02])
    clock = Clock(lambda: next(times, 999.0))
    clock._last = 0.0
    times = iter([0.01, 0.01, 60.01, 60.01, 160.01, 160.01])
    clock._now = lambda: next(times)
    assert clock.left(1, 10) == ""  # it was stored
    assert clock.left(2, 10) == "; about 8 min left"
    assert clock.left(9, 10) == "; about 80 s left"
