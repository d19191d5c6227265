"""``bench convert``: both reports, the check of the function, and the timed steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from bench import conversion
from bench.cli import app
from bench.timing import StopRule, Timed
from hrbp_core import BlockSparseConv2d, absorb, calibrate

SMALL = ["convert", "--model", "resnet20", "--block", "16", "--density", "0.5", "--batch", "2"]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small tensors: threads would wait for one another most of the time."""
    before = torch.get_num_threads()
    monkeypatch.setattr(conversion, "set_up", lambda *_: torch.set_num_threads(1))
    yield
    torch.set_num_threads(before)


def run(*words: str) -> str:
    done = CliRunner().invoke(app, [*SMALL, "--device", "cpu", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_both_reports_and_the_check() -> None:
    told = run()
    for part in ("12 sparse layers (hrbp2), 9 dense", "12 of 12 sparse layers permute nothing",
                 "score retained: 0.", "FLOPs of a forward: ", "in train mode, "):  # fmt: skip
        assert part in told
    assert "forward + backward" not in told


def test_json_holds_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = StopRule(precision=1, cap_s=0.2, least_rounds=3, steady=1, warmup_cap_s=0.1)
    real = conversion.step_times
    monkeypatch.setattr(conversion, "step_times", lambda c, device: real(c, device, quick))
    monkeypatch.setattr(conversion, "spin", lambda: None)
    facts = json.loads(run("--json", "--time", "--scores", "snip", "--allocation", "global"))
    assert facts["wish"]["scores"] == "snip"
    assert facts["environment"]["device"] == "cpu"
    assert set(facts["samples_s"]) == {"dense", "not absorbed", "absorbed"}
    assert len({len(samples) for samples in facts["samples_s"].values()}) == 1
    assert facts["speedups"]["dense"] == [1, 1, 1]
    assert facts["difference"]["train"] < 1e-5
    assert facts["difference"]["eval"] < 1e-5
    assert facts["standalone"] == {}
    assert facts["report"]["kept_weights"] < facts["report"]["weights"]


@pytest.mark.parametrize("policy", ["sparse", "dense", "auto"])
def test_a_policy_is_passed_on_and_auto_shows_its_choices(policy: str, monkeypatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(conversion, "calibrate", partial(calibrate, repeats=1))

    def seen(network: nn.Module) -> Any:
        made.append(network)
        return absorb(network)

    monkeypatch.setattr(conversion, "absorb", seen)
    facts = json.loads(run("--json", "--policy", policy))
    layers = [m for m in made[0].modules() if isinstance(m, BlockSparseConv2d)]
    assert {layer.policy for layer in layers} == {policy}
    assert ("calibrate" in facts["seconds"]) == (policy == "auto")
    if policy != "auto":
        assert facts["calibrations"] == {}
        return
    assert list(facts["calibrations"]) == ["not absorbed", "absorbed"]
    for calibration in facts["calibrations"].values():
        assert len(calibration["layers"]) == 12
        assert {each["choice"] for each in calibration["layers"]} <= {"sparse", "dense"}
        assert all("[2, " in call for each in calibration["layers"] for call in each["calls"])
    told = run("--policy", "auto")
    assert "\nnot absorbed: " in told
    assert "layers run sparsely, " in told


def test_separately_regrouped_layers_stay_standalone() -> None:
    facts = json.loads(run("--json", "--separately", "--method", "shuffled"))
    assert facts["standalone"]
    assert "joint=False" in facts["report"]["untraced"]


def test_speedups_are_medians_over_medians_with_an_interval_of_rounds() -> None:
    times = {"dense": Timed([2.0, 4.0, 6.0]), "absorbed": Timed([1.0, 1.0, 2.0])}
    assert conversion.speedups(times)["absorbed"] == (4.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "alexnet"], "expected model as one of digits-cnn"),
        (["--scores", "best"], "expected scores as one of magnitude"),
        (["--allocation", "even"], "expected allocation as one of uniform"),
        (["--policy", "fast"], "expected policy as one of sparse, dense, auto; got 'fast'"),
        (["--batch", "0"], "expected batch >= 1, got 0"),
        (["--density", "0.01"], "density"),
        (["--method", "unstructured"], "expected a method whose blocks survive"),
    ],
)
def test_wrong_words_end_with_a_sentence(words: list[str], message: str) -> None:
    done = CliRunner().invoke(app, [*SMALL, "--device", "cpu", *words])
    assert done.exit_code == 2
    assert message in done.stderr
