"""The accuracy runs: data, plans, the lines they leave and how a sweep resumes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.accuracy import DATA, PRESETS, Run, data, models, run, runs, train
from bench.accuracy_table import accuracy_rows
from bench.store import read_accuracy
from tests.accuracy_samples import TINY, few, one_thread

__all__ = ["few", "one_thread"]  # fixtures: pytest finds them by name


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture
def quick(few, monkeypatch):
    monkeypatch.setattr(data, "load", lambda name: few)


@pytest.fixture(scope="module")
def sweep(few, tmp_path_factory):
    """Return (folder, lines, progress calls) of all four arms."""
    folder = tmp_path_factory.mktemp("sweep")
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda name: few)
        lines = run(TINY, folder, environment_id="here", progress=lambda *a: calls.append(a))
    return folder, lines, calls


# --- data ------------------------------------------------------------------------------------


def test_the_split_is_disjoint_stratified_and_fixed(digits):
    train_rows, test_rows = data.digits_rows()
    assert (len(train_rows), len(test_rows)) == (1200, 597)
    assert sorted({*train_rows, *test_rows}) == list(range(1797))
    assert train_rows[:8].tolist() == [0, 2, 3, 5, 6, 7, 8, 9]
    counts = np.bincount(digits.train_y) + np.bincount(digits.test_y)
    assert np.abs(np.bincount(digits.train_y) - counts * 1200 / 1797).max() < 1


def test_images_are_normalised_by_the_training_images(digits):
    assert digits.train_x.shape == (1200, 1, 8, 8)
    assert digits.test_x.shape == (597, 1, 8, 8)
    assert digits.train_x.mean().abs() < 1e-5
    assert digits.train_x.std() == pytest.approx(1, abs=1e-5)
    assert digits.test_x.mean().abs() > 1e-5
    # equal images would mean that the test is in the training set
    together = torch.cat((digits.train_x, digits.test_x)).flatten(1)
    assert len(torch.unique(together, dim=0)) == len(together)


@pytest.mark.parametrize("name", DATA)
def test_what_a_plan_knows_without_torch_is_true(name):
    facts, split = DATA[name], data.load(name)
    assert facts.train_images == len(split.train_y)
    assert facts.test_images == len(split.test_y)
    convs = models.sparse_convs(models.make(facts.model, 0)).values()
    assert [tuple(conv.weight.shape) for conv in convs] == list(facts.sparse_shapes)


# --- plans -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": "cifar"}, "data as one of digits; got 'cifar'"),
        ({"arms": ("dense", "hrbp3")}, "one of dense, unstructured, aligned, hrbp2; got 'hrbp3'"),
        ({"arms": ()}, "at least one arm"),
        ({"arms": ("aligned", "aligned")}, "each arm once"),
        ({"densities": ()}, "at least one density"),
        ({"densities": (0.0,)}, r"a density in \(0, 1\], got 0.0"),
        ({"densities": (1.5,)}, r"a density in \(0, 1\], got 1.5"),
        ({"densities": (float("nan"),)}, r"a density in \(0, 1\], got nan"),
        ({"densities": (0.12,)}, "at least 0.125, the least of digits-cnn with blocks of 16x16"),
        ({"densities": (0.25,), "block": (64, 64)}, "at least 0.5, the least"),
        ({"densities": (0.005,), "coverage": False}, "a density of above 0.0078125"),
        ({"densities": (1e-6,), "arms": ("unstructured",)}, "keeps a weight"),
        ({"block": (256, 16)}, "a block no larger than the layer"),
        ({"seeds": 0}, "seeds as an int >= 1"),
        ({"epochs": 1.5}, "epochs as an int >= 1"),
        ({"batch": 1}, "batch as an int >= 2"),
        ({"lr": 0.0}, "lr > 0"),
        ({"momentum": 1.0}, r"momentum in \[0, 1\)"),
        ({"weight_decay": -1.0}, "weight_decay >= 0"),
        ({"balance": "rows"}, "balance as one of none, filters, both"),
        ({"scores": "grasp"}, "scores as one of snip, magnitude, random"),
        ({"device": "tpu"}, "device as one of auto, cpu, cuda"),
        ({"step_rounds": 14}, "step_rounds as an int >= 15"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_run_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(TINY, **change)


def test_a_density_below_the_blocks_least_is_no_matter_to_arms_without_blocks():
    assert replace(TINY, arms=("dense", "unstructured"), densities=(0.01,)).densities == (0.01,)
    assert replace(TINY, arms=("dense",), densities=()).runs() == [Run("dense", 1.0, 0)]


def test_the_preset_trains_dense_once_a_seed():
    todo = PRESETS["digits"].runs()
    assert len(todo) == len(set(todo)) == 30
    assert sum(each.arm == "dense" for each in todo) == 3


def test_a_run_is_named_by_what_concerns_it():
    def name(arm, density=0.25, device="cpu", **change):
        return replace(TINY, **change).run_id(Run(arm, density, 0), device)

    assert name("aligned") == name("aligned", seeds=9, step_rounds=20, arms=("aligned",))
    for change in (
        {"epochs": 2}, {"lr": 0.2}, {"block": (32, 32)}, {"balance": "both"}, {"batch": 31},
        {"momentum": 0.5}, {"device": "cuda"}, {"density": 0.5}, {"rescale": True},
    ):  # fmt: skip
        assert name("aligned", **change) != name("aligned"), change
    assert name("dense", block=(32, 32)) == name("dense")
    assert name("unstructured", block=(32, 32)) == name("unstructured")
    assert name("unstructured", scores="random") != name("unstructured")
    assert name("hrbp2") != name("aligned")


# --- runs ------------------------------------------------------------------------------------

KEYS = {
    "schema", "run_id", "arm", "density", "seed", "accuracy", "status", "reason", "data", "model",
    "recipe", "curve", "real_density", "flops_ratio", "dead_filters", "step", "train_s",
    "environment",
}  # fmt: skip


def test_every_arm_leaves_a_line_of_the_published_form(sweep):
    folder, lines, calls = sweep
    assert [line["arm"] for line in lines] == ["dense", "unstructured", "aligned", "hrbp2"]
    stored = (folder / "accuracy.jsonl").read_text().splitlines()
    assert lines == [json.loads(text) for text in stored]
    assert [(done, total, line["arm"]) for done, total, line in calls] == [
        (i + 1, 4, line["arm"]) for i, line in enumerate(lines)
    ]
    for line in lines:
        assert set(line) == KEYS
        assert (line["schema"], line["status"], line["reason"]) == (1, "ok", None)
        assert (line["data"], line["model"]) == ("digits", "digits-cnn")
        assert line["environment"] == "here"
        assert len(line["curve"]) == 1
        assert line["accuracy"] == line["curve"][-1]
        assert line["dead_filters"] == 0 or line["arm"] == "unstructured"
        assert line["real_density"] == line["density"] == (1.0 if line["arm"] == "dense" else 0.25)
        assert (line["step"] is None) == (line["arm"] == "dense")
        assert line["recipe"]["threads"] == 1
        if line["step"]:
            assert [len(line["step"][k]) for k in ("dense_s", "sparse_s")] == [15, 15]
    assert lines[0]["flops_ratio"] == 1
    assert lines[1]["flops_ratio"] == lines[2]["flops_ratio"] == lines[3]["flops_ratio"] < 0.26


def test_the_table_puts_all_arms_of_a_sweep_into_one_context(sweep):
    table = accuracy_rows(read_accuracy(sweep[0]))
    assert table["training"].nunique() == 1
    patterns = dict(zip(table["arm"], table["pattern"], strict=True))
    assert patterns["dense"] == ""
    assert patterns["unstructured"] == "scores snip"
    assert "block 16x16" in patterns["hrbp2"]


def test_a_sweep_goes_on_where_it_stopped(sweep, tmp_path, quick, monkeypatch):
    folder, lines, _ = sweep
    path = tmp_path / "accuracy.jsonl"
    content = (folder / "accuracy.jsonl").read_bytes()
    path.write_bytes(content)
    trained = []
    monkeypatch.setattr(
        runs, "_line", lambda each, plan, *rest: trained.append(each) or made(each, rest[2])
    )

    def made(each, run_id):
        line = next(line for line in lines if line["arm"] == each.arm)
        return line | {"seed": each.seed, "run_id": run_id}

    assert run(TINY, tmp_path, environment_id="here") == lines
    assert trained == []
    run(replace(TINY, seeds=2), tmp_path, environment_id="here")
    assert {each.seed for each in trained} == {1}
    assert len(trained) == 4
    trained.clear()
    path.write_bytes(content[:-40])  # killed in the middle of the last line
    assert run(TINY, tmp_path, environment_id="here") == lines
    assert [each.arm for each in trained] == ["hrbp2"]
    assert path.read_bytes() == content


def test_a_run_that_diverges_is_stored_and_the_sweep_goes_on(tmp_path, quick):
    plan = replace(TINY, arms=("dense", "aligned"), lr=1e30, epochs=2)
    lines = run(plan, tmp_path, environment_id="here")
    for line in lines:
        assert (line["status"], line["accuracy"], line["step"]) == ("diverged", None, None)
        assert line["reason"] == "the loss was nan in epoch 1 of 2"
        assert line["curve"] == []
    assert [line["arm"] for line in lines] == ["dense", "aligned"]


def test_accuracy_is_the_last_epochs_not_the_best(tmp_path, quick, monkeypatch):
    results = iter([0.9, 0.4])
    monkeypatch.setattr(train, "accuracy", lambda *_: next(results))
    plan = replace(TINY, arms=("dense",), epochs=2)
    (line,) = run(plan, tmp_path, environment_id="here")
    assert (line["accuracy"], line["curve"]) == (0.4, [0.9, 0.4])
