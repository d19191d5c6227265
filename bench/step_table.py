"""Stored steps become rows: speed-up, shares of the time, memory, energy. Floor 1: no torch.

``steps.jsonl`` holds one line a comparison of dense with block-sparse training steps. The lines
keep what was measured; every figure that follows from it is worked out here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.joules import joules
from bench.jsonl import read_lines
from bench.stats import mean_interval, median

STEPS, STEPS_KEY = "steps.jsonl", "run_id"
SIDES = ("dense", "sparse")
PRECISION = 0.02  # half-width of the speed-up's interval that is not noisy
FPROP, DGRAD, WGRAD = "convolution fprop", "convolution dgrad", "convolution wgrad"
BACKWARD = "convolution dgrad + wgrad"  # where one operator does both
NORM, ELEMENTWISE, OPTIMIZER = "normalisation", "elementwise", "optimizer"
PERMUTATION, OTHER, UNATTRIBUTED = "permutation", "other", "unattributed"
CONVOLUTION = (FPROP, DGRAD, WGRAD, BACKWARD)
KINDS = (*CONVOLUTION, NORM, ELEMENTWISE, OPTIMIZER, PERMUTATION, OTHER)
ASKED = [
    "environment", "device", "model", "batch", "mode", "precision", "density", "block", "method",
    "balance", "scores", "allocation", "seed",
]  # fmt: skip
COLUMNS = [
    "run_id", *ASKED, "status", "reason", "flags", "trials", "dense_step_s", "sparse_step_s",
    "speedup", "speedup_low", "speedup_high", "noisy", "real_density", "flops_ratio",
    "amdahl_share", "amdahl_bound", "dense_peak_bytes", "sparse_peak_bytes", "memory",
    "dense_energy_j", "sparse_energy_j", "sparse_layers", "canonical", "standalone", "prep_s",
]  # fmt: skip
SHARE_COLUMNS = ["run_id", "side", "kind", "share", "seconds"]
Line = Mapping[str, Any]


def read_steps(folder: Path | str) -> list[dict[str, Any]]:
    """Return the finished comparisons in ``folder``, in order; [] when none were stored.

    A torn last line is left out with a warning.

    Raises:
        StoreError: another schema; a broken line before the last; a run_id missing or twice.
    """
    path = Path(folder) / STEPS
    if not path.exists():
        return []
    lines = read_lines(path, key=STEPS_KEY)
    if lines.torn:
        warnings.warn(f"{path}: a torn last line was left out", stacklevel=2)
    return lines.records


def speedup(trials: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """Return (dense over sparse, low, high): the geometric mean over trials, 95 % by Student's t.

    A trial's ratio is that of its medians; the interval is of the logarithms, NaN of one trial.
    """
    if not trials:
        return (math.nan,) * 3
    logs = [math.log(median(t["dense_s"]) / median(t["sparse_s"])) for t in trials]
    mean, low, high = (math.exp(value) for value in mean_interval(logs))
    return mean, low, high


def is_noisy(trials: Sequence[Mapping[str, Any]], precision: float = PRECISION) -> bool:
    """Return whether the speed-up's interval is wider than the precision, or not known."""
    _, low, high = speedup(trials)
    return not math.sqrt(high / low) - 1 <= precision


def amdahl_bound(share: float, density: float) -> float:
    """Return the most that a step gains when ``share`` of it shrinks to ``density`` of its time."""
    return 1 / ((1 - share) + share * density)


def step_rows(lines: Sequence[Line]) -> pd.DataFrame:
    """Return one row a line, columns :data:`COLUMNS`; NaN for what was not measured."""
    return pd.DataFrame([_row(line) for line in lines], columns=COLUMNS)


def _row(line: Line) -> dict[str, Any]:
    trials = line.get("trials") or []
    facts, flags = line.get("facts") or {}, line.get("flags") or []
    ratio, low, high = speedup(trials)
    row = {name: line.get(name) for name in ("run_id", *ASKED, "status")}
    row |= {
        "reason": line.get("reason") or "",
        "flags": ", ".join(flags),
        "trials": len(trials),
        "speedup": ratio,
        "speedup_low": low,
        "speedup_high": high,
        "noisy": bool(trials) and is_noisy(trials),
        "real_density": _number(facts.get("real_density")),
        "flops_ratio": _number(facts.get("flops_ratio")),
        "memory": facts.get("memory") or "",
        "sparse_layers": facts.get("sparse_layers", 0),
        "canonical": facts.get("canonical", 0),
        "standalone": len(facts.get("standalone") or {}),
        "prep_s": sum((line.get("prep_s") or {}).values()) if line.get("prep_s") else math.nan,
    }
    for side in SIDES:
        row[f"{side}_step_s"] = _step_s(trials, side)
        peaks = [t[f"{side}_peak_bytes"] for t in trials if t.get(f"{side}_peak_bytes") is not None]
        row[f"{side}_peak_bytes"] = max(peaks, default=math.nan)
        row[f"{side}_energy_j"] = joules((line.get("energy") or {}).get(side))
    return row | _amdahl(line, row)


def _step_s(trials: Sequence[Mapping[str, Any]], side: str) -> float:
    """Return the median over trials of their medians."""
    medians = [median(trial[f"{side}_s"]) for trial in trials]
    return median(medians) if medians else math.nan


def _amdahl(line: Line, row: Mapping[str, Any]) -> dict[str, float]:
    spent = (line.get("spent") or {}).get("dense")
    if not spent or spent.get("sparse_layers_s") is None or math.isnan(row["real_density"]):
        return {"amdahl_share": math.nan, "amdahl_bound": math.nan}
    share = min(spent["sparse_layers_s"] / _whole_s(spent, row["dense_step_s"]), 1.0)
    bound = amdahl_bound(share, row["real_density"])
    return {"amdahl_share": share, "amdahl_bound": bound}


def _whole_s(spent: Mapping[str, Any], step_s: float) -> float:
    """Return the seconds that the profile's kinds are a share of.

    On a CPU the profiler slows operators and what lies between them, so its own span; on CUDA
    kernels take what they take without it, so the step as it was timed.
    """
    told = sum(spent["kinds_s"].values())
    whole = step_s if spent["on_device"] and not math.isnan(step_s) else spent["span_s"]
    return max(whole, told)


def share_rows(lines: Sequence[Line]) -> pd.DataFrame:
    """Return one row a line, side and kind of work, columns :data:`SHARE_COLUMNS`.

    ``seconds`` is the share of the step as it was timed; the unattributed rest is a kind too.
    """
    records = []
    for line in lines:
        for side in SIDES:
            spent = (line.get("spent") or {}).get(side)
            step_s = _step_s(line.get("trials") or [], side)
            if not spent or math.isnan(step_s):
                continue
            whole = _whole_s(spent, step_s)
            shares = {kind: spent["kinds_s"].get(kind, 0.0) / whole for kind in KINDS}
            shares[UNATTRIBUTED] = max(1 - sum(shares.values()), 0.0)
            records += [
                dict(zip(SHARE_COLUMNS, (line["run_id"], side, k, s, s * step_s), strict=True))
                for k, s in shares.items()
            ]
    return pd.DataFrame(records, columns=SHARE_COLUMNS)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
