"""The accuracy runs: data, plans, the lines they leave and how a sweep resumes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bench.accuracy import NETWORKS, PRESETS, Run, data, models, run, runs, train
from bench.accuracy_table import accuracy_rows
from bench.store import read_accuracy
from tests.accuracy_samples import HAND, TINY, few, one_thread

__all__ = ["few", "one_thread"]  # fixtures: pytest finds them by name


@pytest.fixture
def quick(few, monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_, **__: few)


@pytest.fixture(scope="module")
def sweep(few, tmp_path_factory):
    """Return (folder, lines, progress calls) of all four arms."""
    folder = tmp_path_factory.mktemp("sweep")
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda *_, **__: few)
        lines = run(TINY, folder, environment_id="here", progress=lambda *a: calls.append(a))
    return folder, lines, calls


# --- plans -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": "cifar"}, "data as one of digits, cifar10, cifar100, imagenet; got 'cifar'"),
        ({"model": "resnet18"}, "a network for digits: digits-cnn; got 'resnet18'"),
        ({"arms": ("dense", "hrbp3")}, "arm as one of dense, unstructured, .*; got 'hrbp3'"),
        ({"arms": ("hrbp2:snip",)}, "expected hrbp2 or hrbp2:{set,rigl,itop}, got 'hrbp2:snip'"),
        ({"arms": ("hrbp:rigl",)}, "an arm that can move .*, got 'hrbp:rigl'"),
        ({"arms": ("grouped:rigl",)}, "an arm that can move .*, got 'grouped:rigl'"),
        ({"arms": ("two_four",)}, r"density 0.5 for two_four, which has no other; got \[0.25\]"),
        ({"arms": ()}, "at least one arm"),
        ({"arms": ("aligned", "aligned:static")}, "each arm once"),
        ({"densities": ()}, "at least one density"),
        ({"densities": (0.0,)}, r"a density in \(0, 1\], got 0.0"),
        ({"densities": (1.5,)}, r"a density in \(0, 1\], got 1.5"),
        ({"densities": (float("nan"),)}, r"a density in \(0, 1\], got nan"),
        ({"seeds": 0}, "seeds as an int >= 1"),
        ({"epochs": 1.5}, "epochs as an int >= 1"),
        ({"batch": 1}, "batch as an int >= 2"),
        ({"lr": 0.0}, "lr > 0"),
        ({"lr": float("inf")}, "lr > 0, got inf"),
        ({"momentum": 1.0}, r"momentum in \[0, 1\)"),
        ({"weight_decay": -1.0}, "weight_decay >= 0"),
        ({"smoothing": 1.0}, r"smoothing in \[0, 1\)"),
        ({"dst_until": 0.0}, r"dst_until in \(0, 1\]"),
        ({"dst_drop": 1.5}, r"dst_drop in \(0, 1\]"),
        ({"dst_every": 0}, "dst_every as an int >= 1"),
        ({"allocation": "global"}, "allocation as one of uniform, erk"),
        ({"balance": "rows"}, "balance as one of none, filters, both"),
        ({"scores": "taylor"}, "scores as one of snip, grasp, synflow, magnitude, random"),
        ({"precision": "float16"}, "precision as one of float32, bfloat16"),
        ({"device": "tpu"}, "device as one of auto, cpu, cuda"),
        ({"step_rounds": 14}, "step_rounds as an int >= 15"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_run_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(TINY, **change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"densities": (0.5, 0.1)}, "density"),
        ({"block": (256, 16)}, "block"),
    ],
)
def test_what_the_network_cannot_have_is_refused_before_anything_is_trained(
    change, words, tmp_path, quick, monkeypatch
):
    monkeypatch.setattr(runs, "line_of", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match=words):
        run(replace(TINY, **change), tmp_path, environment_id="here")


def test_every_network_is_one_for_its_data():
    for name, networks in NETWORKS.items():
        for network in networks:
            assert models.MODELS[network].image == data.SPECS[name].shape


def test_two_four_is_run_at_its_one_density():
    plan = replace(TINY, arms=("two_four", "aligned"), densities=(0.5, 0.25))
    assert [(r.arm, r.density) for r in plan.runs()] == [
        ("two_four", 0.5), ("aligned", 0.5), ("aligned", 0.25)
    ]  # fmt: skip
    assert replace(TINY, arms=("dense",), densities=()).runs() == [Run("dense", 1.0, 0)]


def test_the_preset_trains_dense_once_a_seed():
    todo = PRESETS["digits"].runs()
    assert len(todo) == len(set(todo)) == 35
    assert sum(each.arm == "dense" for each in todo) == 5


def test_a_run_is_named_by_what_concerns_it():
    def name(arm, density=0.25, device="cpu", **change):
        return replace(TINY, **change).run_id(Run(arm, density, 0), device, HAND)

    assert name("aligned") == name("aligned", seeds=9, step_rounds=20, arms=("aligned",))
    for change in (
        {"epochs": 2}, {"lr": 0.2}, {"block": (32, 32)}, {"balance": "both"}, {"batch": 31},
        {"momentum": 0.5}, {"device": "cuda"}, {"density": 0.5}, {"rescale": True},
        {"precision": "bfloat16"}, {"deterministic": False}, {"smoothing": 0.1},
        {"allocation": "erk"},
    ):  # fmt: skip
        assert name("aligned", **change) != name("aligned"), change
    assert name("dense", block=(32, 32)) == name("dense")
    assert name("unstructured", balance="both") == name("unstructured")
    # the block decides what layers can keep, for every sparse arm
    assert name("unstructured", block=(32, 32)) != name("unstructured")
    assert name("grouped", scores="random") == name("grouped")
    moving = [TINY.run_id(Run("hrbp2", 0.25, 0, dst), "cpu", HAND) for dst in ("static", "rigl")]
    assert moving[0] == name("hrbp2")
    assert moving[0] != moving[1]
    images = [TINY.run_id(Run("dense", 1.0, 0), "cpu", HAND | {"digest": d}) for d in "ab"]
    assert images[0] != images[1]
    assert name("unstructured", scores="random") != name("unstructured")
    assert name("hrbp2") != name("aligned")


# --- runs ------------------------------------------------------------------------------------

KEYS = {
    "schema", "run_id", "arm", "dst", "density", "seed", "accuracy", "status", "reason", "data",
    "model", "recipe", "curve", "losses", "real_density", "flops_ratio", "dead_filters",
    "left_dense", "lifted", "standalone", "explored", "updates", "weights", "step", "train_s",
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
    assert "scores snip" in patterns["unstructured"]
    assert "block 16x16" in patterns["hrbp2"]


def test_a_sweep_goes_on_where_it_stopped(sweep, tmp_path, quick, monkeypatch):
    folder, lines, _ = sweep
    path = tmp_path / "accuracy.jsonl"
    content = (folder / "accuracy.jsonl").read_bytes()
    path.write_bytes(content)
    trained = []
    monkeypatch.setattr(
        runs, "line_of", lambda each, _, run_id, __: trained.append(each) or made(each, run_id)
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
