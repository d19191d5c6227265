"""Accuracy runs become rows: the second half of :mod:`bench.table`. Floor 1: no torch.

Both axes of a row are one network's: its last-epoch accuracy (a fraction) and the speed-up of
its own whole training steps over those of the dense network (same batch, alternating).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.frames import groups
from bench.stats import mean_interval, median, median_interval

DENSE_ARM = "dense"
ACCURACY_CONTEXT = ["environment", "data", "model", "training"]
ARM_KEYS = [*ACCURACY_CONTEXT, "arm", "pattern", "density"]
RUN_COLUMNS = [
    *ARM_KEYS, "seed", "run_id", "status", "reason", "accuracy", "epochs", "real_density",
    "flops_ratio", "dead_filters", "step_pairs", "dense_step_s", "sparse_step_s",
    "step_speedup", "step_low", "step_high",
]  # fmt: skip
SUMMARY_COLUMNS = [
    *ARM_KEYS, "runs", "n", "diverged", "accuracy", "accuracy_low", "accuracy_high",
    "step_n", "step_speedup", "step_low", "step_high", "real_density", "dead_filters",
]  # fmt: skip
GAP_COLUMNS = [*ARM_KEYS, "gap", "gap_low", "gap_high", "n_dense", "n_arm"]
_PATTERN_KEYS = (
    "method", "block", "allocation", "balance", "coverage", "scores", "rescaled", "dst",
)  # fmt: skip
_OWN_COLUMNS = ("seed", "density", "arm")


def accuracy_rows(runs: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row a line of ``accuracy.jsonl``, columns :data:`RUN_COLUMNS`.

    ``step_speedup`` is the median of the paired dense over sparse step times with its
    order-statistic interval; 1 for the dense arm, which is its own reference; NaN without times.
    ``training`` is the recipe less its pattern keys, which stand in ``pattern``.
    """
    table = pd.DataFrame([_run_row(run) for run in runs], columns=RUN_COLUMNS)
    return table.sort_values([*ARM_KEYS, "seed", "run_id"]).reset_index(drop=True)


def _run_row(run: dict[str, Any]) -> dict[str, Any]:
    recipe = dict(run.get("recipe") or {})
    own = [k for k in recipe if k in _PATTERN_KEYS or k.startswith("dst_")]
    pattern = {k: recipe.pop(k) for k in own}
    for name in _OWN_COLUMNS:
        recipe.pop(name, None)
    dense = run["arm"] == DENSE_ARM
    accuracy = run.get("accuracy")
    row = {name: run[name] for name in ("environment", "data", "model", "arm", "density", "seed")}
    row |= {name: run.get(name, math.nan) for name in ("real_density", "flops_ratio")}
    row |= {
        "run_id": run["run_id"],
        "training": _settings(recipe),
        "pattern": "" if dense else _settings(pattern),
        "status": run["status"],
        "reason": run.get("reason") or "",
        "accuracy": math.nan if accuracy is None else float(accuracy),
        "epochs": len(run.get("curve") or ()),
        "dead_filters": run.get("dead_filters", math.nan),
        "step_pairs": 0,
    }
    if dense:
        row |= {"step_speedup": 1.0, "step_low": 1.0, "step_high": 1.0}
    elif run.get("step"):
        row |= _step_columns(run["step"]["dense_s"], run["step"]["sparse_s"])
    return row


def _step_columns(dense_s: Sequence[float], sparse_s: Sequence[float]) -> dict[str, Any]:
    if len(dense_s) != len(sparse_s):
        raise ValueError(
            f"expected as many dense as sparse steps, got {len(dense_s)} and {len(sparse_s)}"
        )
    if not dense_s:
        return {}
    ratios = [d / s for d, s in zip(dense_s, sparse_s, strict=True)]
    low, high = median_interval(ratios)
    return {
        "step_pairs": len(ratios),
        "dense_step_s": median(dense_s),
        "sparse_step_s": median(sparse_s),
        "step_speedup": median(ratios),
        "step_low": low,
        "step_high": high,
    }


def _settings(settings: dict[str, Any]) -> str:
    """Return ``key value, key value`` in the order of the keys; [16, 16] as 16x16.

    Commas inside a value become semicolons: readers take the settings apart at commas.
    """
    parts = []
    for key, value in sorted(settings.items()):
        if isinstance(value, list | tuple):
            text = "x".join(map(str, value))
        else:
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        parts.append(f"{key} {text.replace(', ', '; ')}")
    return ", ".join(parts)


def accuracy_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm, pattern and density of each context, over seeds.

    ``accuracy`` is the mean over the ``n`` runs that ended with one, with its 95 % t-interval;
    ``step_speedup`` the geometric mean over ``step_n`` runs with the t-interval of its
    logarithm. An interval is NaN below two runs. Diverged runs are counted, never averaged.

    Args:
        table: what :func:`accuracy_rows` returned.
    """
    records = []
    for key, group in groups(table, ARM_KEYS):
        accuracy = group["accuracy"].dropna().tolist()
        steps = np.log(group["step_speedup"].dropna().to_numpy(dtype=float))
        mean, low, high = _mean(accuracy)
        step, step_low, step_high = (math.exp(v) for v in _mean(steps))
        row = dict(zip(ARM_KEYS, key, strict=True)) | {
            "runs": len(group),
            "n": len(accuracy),
            "diverged": int((group["status"] != "ok").sum()),
            "accuracy": mean,
            "accuracy_low": low,
            "accuracy_high": high,
            "step_n": len(steps),
            "step_speedup": step,
            "step_low": step_low,
            "step_high": step_high,
            "real_density": group["real_density"].astype(float).mean(),
            "dead_filters": group["dead_filters"].astype(float).mean(),
        }
        if row["arm"] == DENSE_ARM:
            row |= {"step_low": 1.0, "step_high": 1.0}
        records.append(row)
    return pd.DataFrame(records, columns=SUMMARY_COLUMNS)


def _mean(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    return mean_interval(values) if len(values) else (math.nan,) * 3


def accuracy_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Return dense minus arm in mean accuracy (a fraction), one row per sparse arm.

    The 95 % interval is Welch's, over runs: seeds are not taken as pairs. NaN below two runs
    on either side, or without a dense run in the context.

    Args:
        table: what :func:`accuracy_rows` returned.
    """
    records = []
    there = table.dropna(subset="accuracy")
    dense = {
        key: group["accuracy"].tolist()
        for key, group in groups(there[there["arm"] == DENSE_ARM], ACCURACY_CONTEXT)
    }
    for key, group in groups(there[there["arm"] != DENSE_ARM], ARM_KEYS):
        reference = dense.get(key[: len(ACCURACY_CONTEXT)], [])
        ours = group["accuracy"].tolist()
        row = dict(zip(ARM_KEYS, key, strict=True))
        row |= dict(zip(("gap", "gap_low", "gap_high"), _welch(reference, ours), strict=True))
        records.append(row | {"n_dense": len(reference), "n_arm": len(ours)})
    return pd.DataFrame(records, columns=GAP_COLUMNS)


def _welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Return (difference of means, low, high) at 95 %."""
    from scipy.stats import t  # takes 0.8 s to load: only where it is called

    if not first or not second:
        return (math.nan,) * 3
    gap = float(np.mean(first) - np.mean(second))
    if min(len(first), len(second)) < 2:
        return gap, math.nan, math.nan
    parts = [float(np.var(v, ddof=1)) / len(v) for v in (first, second)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return gap, gap, gap
    freedom = sum(parts) ** 2 / sum(
        p**2 / (len(v) - 1) for p, v in zip(parts, (first, second), strict=True)
    )
    half = error * float(t.ppf(0.975, freedom))
    return gap, gap - half, gap + half
