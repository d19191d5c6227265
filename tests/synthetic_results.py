"""SYNTHETIC results for the tests of tables and reports: random numbers, nothing was measured."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.records import Case, Cell, Environment, Flag, Measurement, Recipe, Status
from hrbp_core.shapes import ConvShape, Pass

ENVIRONMENT = Environment(
    device="cpu",
    device_name="SYNTHETIC, nothing was measured",
    capability=None,
    sm_count=None,
    memory_gib=None,
    mig=None,
    ecc=None,
    power_limit_w=None,
    clock_mode=None,
    driver=None,
    cuda=None,
    cudnn=None,
    torch="2.13.0",
    triton="3.7.1",
    python="3.11.9",
    cpu="SYNTHETIC",
    threads=2,
    platform="linux",
    commit="0123456789abcdef",
    dirty=True,
)
OTHER = replace(ENVIRONMENT, device_name="SYNTHETIC too, another machine", threads=8)
IMPLS = ("dense", "masked_dense", "gather_grouped", "block_sparse")
LAYERS = {"conv3_1": (128, 28), "conv4_1": (256, 14), "conv5_1": (512, 7)}
PLANS = (
    ("conv3_1", 16, 0.5),
    ("conv3_1", 16, 0.25),
    ("conv3_1", 32, 0.25),
    ("conv4_1", 32, 0.5),
    ("conv4_1", 32, 0.25),
    ("conv4_1", 32, 0.125),
    ("conv5_1", 64, 0.25),
    ("conv5_1", 64, 0.125),
)
CRASH = "expected a launch, got RuntimeError: the SYNTHETIC device is not there, " * 4
SAMPLES = 31


def cells(names: dict[str, str] | None = None) -> list[Cell]:
    """Return every cell of the sweep; ``names`` renames layers."""
    found = []
    for layer, block, density in PLANS:
        extent, size = LAYERS[layer]
        shape = ConvShape(N=8, C=extent, H=size, W=size, K=extent, R=3, S=3, padding=(1, 1))
        for conv_pass in Pass:
            case = Case(
                suite="synthetic",
                layer=(names or {}).get(layer, layer),
                shape=shape,
                dtype="float32",
                device="cpu",
                conv_pass=conv_pass,
                recipe=Recipe("hrbp2", density, (block, block)),
                entries=round(density * (extent // block) ** 2) * 9,
            )
            found += [Cell(case, impl, "cold") for impl in IMPLS]
    return found


def measure(cell: Cell, environment: str, seed: int = 0, paired: bool = True) -> Measurement:
    """Return a made-up measurement; the last gather_grouped wgrad of the sweep crashes."""
    case = cell.case
    recipe = case.recipe
    broken = case.layer == "conv5_1" and recipe.density == 0.125 and case.conv_pass is Pass.WGRAD
    if broken and cell.impl == "gather_grouped":
        return Measurement(cell, environment, Status.CRASHED, reason=CRASH)
    gain = {
        "dense": 1.0,
        "masked_dense": 0.97,
        "gather_grouped": 0.45 / math.sqrt(recipe.density),
        "block_sparse": 0.62 / recipe.density**0.75 * (recipe.block[0] / 32) ** 0.2,
    }[cell.impl]
    dense_s = case.shape.flops() / 80e9 * {"fprop": 1, "dgrad": 1.1, "wgrad": 1.3}[case.conv_pass]
    rng = np.random.default_rng([seed, int(cell.cell_id, 16) % 2**32])
    samples = dense_s / gain * np.exp(rng.normal(0, 0.02, SAMPLES))
    detail: dict[str, Any] = {"rounds": f"{cell.case_id}-{seed}"} if paired else {}
    flags = (Flag.NOISY,) if cell.impl == "masked_dense" and recipe.density == 0.5 else ()
    return Measurement(
        cell, environment, Status.OK, samples_s=tuple(samples.tolist()), flags=flags,
        prep_s=0.01, detail=detail | {"rounds_rejected": 1 if flags else 0},
    )  # fmt: skip


def training_runs(environment: str) -> list[dict[str, Any]]:
    """Return made-up runs: dense, and three sparse arms at three densities, three seeds each."""
    rng = np.random.default_rng(7)
    runs = []
    for arm, density in [("dense", 1.0)] + [
        (arm, density)
        for arm in ("unstructured", "aligned", "hrbp2")
        for density in (0.5, 0.25, 0.125)
    ]:
        loss = {"dense": 0.0, "unstructured": 0.002, "aligned": 0.009, "hrbp2": 0.005}[arm]
        gain = {"dense": 1.0, "unstructured": 0.93}.get(arm, 0.75 / density**0.4)
        for seed in range(3):
            runs.append(_run(environment, arm, density, seed, loss, gain, rng))
    return runs


def _run(
    environment: str, arm: str, density: float, seed: int, loss: float, gain: float, rng: Any
) -> dict[str, Any]:
    accuracy = float(0.975 - loss * math.log2(1 / density) + rng.normal(0, 0.003))
    dense_s = 0.05 * np.exp(rng.normal(0, 0.03, 21))
    sparse_s = dense_s / gain * np.exp(rng.normal(0, 0.02, 21))
    step = {"dense_s": dense_s.tolist(), "sparse_s": sparse_s.tolist()}
    return {
        "schema": 1, "run_id": f"{arm}-{density}-{seed}", "arm": arm, "density": density,
        "seed": seed, "accuracy": accuracy, "status": "ok", "reason": None, "data": "digits",
        "model": "digits-cnn",
        "recipe": {"epochs": 12, "batch": 64, "lr": 0.1, "block": [16, 16], "balance": "none"},
        "curve": [accuracy] * 12, "real_density": density, "flops_ratio": density,
        "dead_filters": 0, "step": None if arm == "dense" else step, "environment": environment,
    }  # fmt: skip


def write(
    folder: Path,
    measurements: list[Measurement] | None = None,
    runs: list[dict[str, Any]] | None = None,
    environments: tuple[Environment, ...] = (ENVIRONMENT,),
) -> Path:
    """Write the files of a results folder; None leaves a file out."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {e.environment_id: asdict(e) for e in environments}
    (folder / "environment.json").write_text(json.dumps(facts), encoding="utf-8")
    if measurements is not None:
        _write_lines(folder / "results.jsonl", [m.to_dict() for m in measurements])
    if runs is not None:
        _write_lines(folder / "accuracy.jsonl", runs)
    return folder


def _write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


def sweep(environment: Environment = ENVIRONMENT, seed: int = 0) -> list[Measurement]:
    """Return the whole made-up sweep on one machine."""
    return [measure(cell, environment.environment_id, seed) for cell in cells()]
