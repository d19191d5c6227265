"""Measurements become rows: every derived column is computed here. Floor 1: no torch.

====================  ====================================================================
``rows``              one row a measurement: times in seconds, speed-up over dense
``totals``            fprop + dgrad + wgrad together, where all three are there
``missing``           cells that the sweep implies and that no line reports
``coverage``          geometric means beside the counts of cells that failed
``CONTEXT``           columns whose values are never averaged together
====================  ====================================================================

The accuracy axis has the same shape in :mod:`bench.accuracy_table`; its functions are here by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench import floors
from bench.floors import calls_to_pay
from bench.frames import Record, gathered, groups, stacked
from bench.frames import records as rows_of
from bench.joules import joules
from bench.records import REFERENCE_IMPL, Case, Flag, Measurement, Recipe, Status
from bench.stats import geometric_mean, median, median_interval, quantiles, severe_outliers
from hrbp_core.shapes import ConvShape, Pass

if TYPE_CHECKING:
    from bench.store import Results

CONTEXT = ["environment", "suite", "device", "dtype", "layout", "mode", "pattern"]
CASE = ["layer", "shape", "density", "block", "recipe_seed"]
TOTAL_KEYS = [*CONTEXT, *CASE, "impl"]
PASSES = [str(p) for p in Pass]
ALL = "all"
MISSING = "missing"
STATUSES = [*(str(s) for s in Status), MISSING]
_TIMES = ["median_s", "low_s", "high_s", "min_s", "p05_s", "p95_s", "iqr_s"]
_DENSE = ["dense_s", "dense_low_s", "dense_high_s"]
_RATES = ["ceiling_flops_per_s", "ceiling_bytes_per_s"]
_WORK = ["flops", "least_bytes", *_RATES, "floor_s", "attainment"]
_RATIO = ["speedup", "speedup_low", "speedup_high"]
ROW_COLUMNS = [
    *TOTAL_KEYS, "pass", "label", "cell_id", "case_id", "sparsity", "stored_weights",
    "real_density", "status", "reason", "flags", "samples", "severe", *_TIMES, "gflops",
    *_DENSE, *_RATIO, "paired", *_WORK, "prep_s", "calls_to_pay", "peak_bytes", "energy_j",
    "rounds", "rounds_rejected",
]  # fmt: skip
TOTAL_COLUMNS = [*TOTAL_KEYS, "total_s", "dense_total_s", *_RATIO, "attainment", "incomplete"]
COVERAGE_KEYS = [*CONTEXT, "impl", "density", "block", "pass"]
COVERAGE_COLUMNS = [
    *COVERAGE_KEYS, "speedup", "speedup_min", "speedup_max", "attainment", "cells", "faster",
    "slower", *STATUSES, "throttled",
]  # fmt: skip


def shape_text(shape: ConvShape) -> str:
    """Return a shape as ``N8 C256 14x14 K256 3x3``; stride, padding, dilation where not 1, 0, 1."""
    text = f"N{shape.N} C{shape.C} {shape.H}x{shape.W} K{shape.K} {shape.R}x{shape.S}"
    for name, usual in (("stride", (1, 1)), ("padding", (0, 0)), ("dilation", (1, 1))):
        value = getattr(shape, name)
        if value != usual:
            text += f" {name} {value[0]}" + (f"x{value[1]}" if value[0] != value[1] else "")
    return text


def block_text(block: tuple[int, int]) -> str:
    """Return a block as ``32x16`` (block_k x block_c)."""
    return f"{block[0]}x{block[1]}"


def pattern_text(recipe: Recipe) -> str:
    """Return what makes two patterns comparable, beside density, block and seed."""
    covered = "covered" if recipe.coverage else "not covered"
    taps = "" if recipe.taps is None else f", {recipe.taps} taps"
    return f"{recipe.method}, balance {recipe.balance}, {covered}{taps}, {recipe.scores} scores"


def rows(results: Results) -> pd.DataFrame:
    """Return one row a measurement, columns :data:`ROW_COLUMNS`, in a stable order.

    Times are in seconds, ``gflops`` in 1e9 operations a second on the *stored* weights
    (2 * stored_weights * N * P * Q / median, for dense too). ``flops`` are the implementation's
    own, ``least_bytes`` what a pass with empty caches must move, ``floor_s`` the least time under
    the ceilings stored with the cell, ``attainment`` floor over median; ``calls_to_pay`` is prep
    over what a call saves against dense, infinite where it saves none; ``energy_j`` joules a call
    less idle power. ``speedup`` is dense over this implementation, of the same case and
    environment: the median of the paired ratios with its order-statistic interval where both name
    the same ``detail["rounds"]``, else the ratio of medians with the widest interval that both
    medians' intervals allow. NaN unless both are ok.
    A cell stored twice for one environment counts once, by its later line. Cells measured
    together share ``rounds``, so ``rounds_rejected`` counts once for all of them.
    """
    latest = {(m.environment, m.cell.cell_id): m for m in results.measurements}
    named = [(m, cell_id, (m.environment, m.cell.case_id)) for (_, cell_id), m in latest.items()]
    dense = {
        case: m for m, _, case in named if m.cell.impl == REFERENCE_IMPL and m.status is Status.OK
    }
    records = [
        {"cell_id": cell_id, "case_id": case[1]} | _row(m, dense.get(case))
        for m, cell_id, case in named
    ]
    table = pd.DataFrame(records, columns=ROW_COLUMNS)
    order = table["pass"].map({name: i for i, name in enumerate(PASSES)})
    table = table.assign(_pass=order).sort_values([*TOTAL_KEYS, "_pass", "cell_id"])
    return table.drop(columns="_pass").reset_index(drop=True)


def _row(measurement: Measurement, dense: Measurement | None) -> dict[str, Any]:
    cell, case = measurement.cell, measurement.cell.case
    row = _case_columns(case) | {
        "environment": measurement.environment,
        "mode": cell.mode,
        "impl": cell.impl,
        "status": str(measurement.status),
        "reason": measurement.reason or "",
        "flags": ", ".join(str(f) for f in measurement.flags),
        "samples": len(measurement.samples_s),
        "prep_s": math.nan if measurement.prep_s is None else measurement.prep_s,
        "peak_bytes": measurement.detail.get("peak_bytes", math.nan),
        "energy_j": joules(measurement.detail.get("energy")),
        "rounds": str(measurement.detail.get("rounds") or cell.cell_id),
        "rounds_rejected": int(measurement.detail.get("rounds_rejected") or 0),
    }
    row["label"] = f"{case.layer} {row['block']} {row['density']:g} {row['pass']} {cell.impl}"
    if measurement.samples_s:
        row |= _time_columns(measurement.samples_s)
        row["gflops"] = case.shape.flops(case.stored_weights) / row["median_s"] / 1e9
        row |= floors.columns(measurement, row["median_s"])
    if measurement.status is Status.OK and dense is not None:
        row |= _ratio_columns(measurement, dense)
        row["calls_to_pay"] = calls_to_pay(row["prep_s"], row["dense_s"], row["median_s"])
    return row


def _case_columns(case: Case) -> dict[str, Any]:
    recipe = case.recipe
    return {
        "suite": case.suite,
        "layer": case.layer,
        "shape": shape_text(case.shape),
        "device": case.device,
        "dtype": case.dtype,
        "pass": str(case.conv_pass),
        "layout": case.layout,
        "pattern": pattern_text(recipe),
        "recipe_seed": recipe.seed,
        "block": block_text(recipe.block),
        "density": recipe.density,
        "sparsity": 1 - recipe.density,
        "stored_weights": case.stored_weights,
        "real_density": case.stored_weights / math.prod(case.shape.filter_shape),
    }


def _time_columns(samples: tuple[float, ...]) -> dict[str, Any]:
    low, high = median_interval(samples)
    p05, q1, q3, p95 = quantiles(samples, (0.05, 0.25, 0.75, 0.95))
    times = (median(samples), low, high, min(samples), p05, p95, q3 - q1)
    row = dict(zip(_TIMES, times, strict=True))
    return row | {"severe": severe_outliers(samples, q1, q3)}


def _ratio_columns(measurement: Measurement, dense: Measurement) -> dict[str, Any]:
    """Return the dense times and the speed-up; exactly 1 for dense itself."""
    ours, theirs = measurement.samples_s, dense.samples_s
    low, high = median_interval(ours)
    dense_low, dense_high = median_interval(theirs)
    row = dict(zip(_DENSE, (median(theirs), dense_low, dense_high), strict=True))
    rounds = measurement.detail.get("rounds")
    row["paired"] = (
        rounds is not None and rounds == dense.detail.get("rounds") and len(ours) == len(theirs)
    )
    if measurement is dense:
        ratio = (1.0, 1.0, 1.0)
    elif row["paired"]:
        ratios = [d / s for d, s in zip(theirs, ours, strict=True)]
        ratio = (median(ratios), *median_interval(ratios))
    else:
        ratio = (median(theirs) / median(ours), dense_low / high, dense_high / low)
    return row | dict(zip(_RATIO, ratio, strict=True))


def totals(table: pd.DataFrame) -> pd.DataFrame:
    """Return fprop + dgrad + wgrad together, one row per :data:`TOTAL_KEYS`.

    ``speedup`` is the sum of the dense medians over the sum of this implementation's; its
    interval [sum of dense lows / sum of highs, sum of dense highs / sum of lows] is
    conservative. Unless all three passes have a speed-up these are NaN, and ``incomplete``
    says which pass lacks it and why.

    Args:
        table: what :func:`rows` returned.
    """
    records = []
    cases: dict[tuple[Any, ...], dict[str, Record]] = {}
    for row in rows_of(table):
        cases.setdefault(tuple(row[k] for k in TOTAL_KEYS), {})[row["pass"]] = row
    for key, found in cases.items():
        row = dict(zip(TOTAL_KEYS, key, strict=True))
        row["incomplete"] = ", ".join(_incomplete(found))
        if not row["incomplete"]:
            names = [*_TIMES, *_DENSE, "floor_s"]
            sums = {n: sum(part[n] for part in found.values()) for n in names}
            row["attainment"] = sums["floor_s"] / sums["median_s"]
            row["total_s"], row["dense_total_s"] = sums["median_s"], sums["dense_s"]
            row["speedup"] = sums["dense_s"] / sums["median_s"]
            same = row["impl"] == REFERENCE_IMPL
            row["speedup_low"] = 1.0 if same else sums["dense_low_s"] / sums["high_s"]
            row["speedup_high"] = 1.0 if same else sums["dense_high_s"] / sums["low_s"]
        records.append(row)
    return pd.DataFrame(records, columns=TOTAL_COLUMNS)


def _incomplete(found: dict[str, Record]) -> Iterator[str]:
    """Yield "pass: why" for each pass without a speed-up."""
    for name in PASSES:
        row = found.get(name)
        if row is None:
            yield f"{name}: {MISSING}"
        elif row["status"] != Status.OK:
            yield f"{name}: {row['status']}"
        elif math.isnan(row["speedup"]):
            yield f"{name}: no dense time"


def missing(table: pd.DataFrame) -> pd.DataFrame:
    """Return the cells that no line reports, in columns of :func:`rows`.

    Within a context every implementation and pass that occurs is expected for every case.
    """
    records = []
    for context, group in groups(table, CONTEXT):
        cases = list(group[CASE].drop_duplicates().itertuples(index=False, name=None))
        present = set(group[[*CASE, "impl", "pass"]].itertuples(index=False, name=None))
        impls, passes = sorted(set(group["impl"])), set(group["pass"])
        wanted = product(cases, impls, (p for p in PASSES if p in passes))
        for case, impl, name in wanted:
            if (*case, impl, name) not in present:
                row = dict(zip(TOTAL_KEYS, (*context, *case, impl), strict=True))
                row |= {"pass": name, "sparsity": 1 - row["density"]}
                reason = "no line in results.jsonl"
                records.append(row | {"status": MISSING, "reason": reason, "flags": ""})
    return pd.DataFrame(records, columns=ROW_COLUMNS)


def coverage(table: pd.DataFrame) -> pd.DataFrame:
    """Return geometric mean speed-ups beside counts of cells, one row per :data:`COVERAGE_KEYS`.

    ``pass`` "all" is the three passes together (:func:`totals`), ``block`` "all" every block.
    ``cells`` counts the speed-ups in the mean; ``faster`` and ``slower`` those whose whole
    interval lies above or below 1. A column per status counts cells (for pass "all" those of
    the three passes), ``missing`` and ``throttled`` among them.
    """
    if table.empty:
        return pd.DataFrame(columns=COVERAGE_COLUMNS)
    cells = stacked([table, missing(table)], ROW_COLUMNS)
    cells = _with_all(_with_all(cells, "pass"), "block")
    throttled = cells["flags"].str.contains(Flag.THROTTLED.value, regex=False)
    cells = cells.assign(throttled=throttled.astype(int))
    counts = cells.groupby([*COVERAGE_KEYS, "status"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=STATUSES, fill_value=0)
    counts["throttled"] = cells.groupby(COVERAGE_KEYS)["throttled"].sum()
    together = totals(table).assign(**{"pass": ALL})
    ratios = stacked([table, together], [*COVERAGE_KEYS, *_RATIO, "attainment"])
    ratios = _with_all(ratios, "block")
    means = [
        dict(zip(COVERAGE_KEYS, key, strict=True)) | _mean_columns(group)
        for key, group in gathered(rows_of(ratios), COVERAGE_KEYS).items()
    ]
    joined = counts.reset_index().merge(pd.DataFrame(means), on=COVERAGE_KEYS, how="left")
    count_columns = ["cells", "faster", "slower"]
    joined[count_columns] = joined[count_columns].fillna(0).astype(int)
    return joined[COVERAGE_COLUMNS]


def _with_all(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows, and all of them again under ``column`` = "all"."""
    return pd.concat([frame, frame.assign(**{column: ALL})], ignore_index=True)


def _mean_columns(group: list[Record]) -> dict[str, Any]:
    there = [row for row in group if not math.isnan(row["speedup"])]
    near = [row["attainment"] for row in group if not math.isnan(row["attainment"])]
    return {
        "speedup": geometric_mean([row["speedup"] for row in there]),
        "speedup_min": min((row["speedup"] for row in there), default=math.nan),
        "speedup_max": max((row["speedup"] for row in there), default=math.nan),
        "attainment": geometric_mean(near),
        "cells": len(there),
        "faster": sum(row["speedup_low"] > 1 for row in there),
        "slower": sum(row["speedup_high"] < 1 for row in there),
    }
