"""Rows summed up: attainment, ceilings, amortisation, break-even. Floor 1: no torch."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bench.frames import Record, gathered, groups, records
from bench.records import REFERENCE_IMPL, Status
from bench.stats import geometric_mean
from bench.table import CONTEXT

ATTAINMENT_COLUMNS = [*CONTEXT, "impl", "pass", "attainment", "least", "most", "cells", "without"]
PAYING_COLUMNS = [
    *CONTEXT, "impl", "prep_s", "prep_most_s", "calls_to_pay", "calls_most", "cells", "never",
]  # fmt: skip
SWEPT = [*CONTEXT, "impl", "layer", "shape", "block", "recipe_seed"]
SWEPT_COLUMNS = [
    *SWEPT, "answer", "sparsity", "low", "high", "monotone", "points", "least", "most",
]  # fmt: skip
CEILING_COLUMNS = [*CONTEXT, "flops_per_s", "flops_least", "bytes_per_s", "bytes_least", "cells"]


def attainments(table: pd.DataFrame) -> pd.DataFrame:
    """Return attainment by implementation and pass, columns :data:`ATTAINMENT_COLUMNS`.

    The geometric mean over ``cells``, with the least and the most of them; ``without`` counts
    timed cells that have none, because their mode has no floor or no ceiling was stored.

    Args:
        table: what ``bench.table.rows`` returned.
    """
    found = []
    for key, group in groups(_ok(table), [*CONTEXT, "impl", "pass"]):
        values = [float(v) for v in group["attainment"].dropna()]
        ends = (min(values), max(values)) if values else (math.nan, math.nan)
        found.append((*key, geometric_mean(values), *ends, len(values), len(group) - len(values)))
    return pd.DataFrame(found, columns=ATTAINMENT_COLUMNS)


def ceilings(table: pd.DataFrame) -> pd.DataFrame:
    """Return the ceilings that a context's floors were made from: the most and the least of each.

    They rise during a run, when a cell shows that the machine can do more.
    """
    found = []
    for key, group in groups(_ok(table), CONTEXT):
        ends: list[float] = []
        for name in ("ceiling_flops_per_s", "ceiling_bytes_per_s"):
            known = group[name].dropna().astype(float)
            ends += [known.max(), known.min()] if len(known) else [math.nan, math.nan]
        found.append((*key, *ends, int(group["ceiling_flops_per_s"].notna().sum())))
    return pd.DataFrame(found, columns=CEILING_COLUMNS)


def paying(table: pd.DataFrame) -> pd.DataFrame:
    """Return what preparing costs and after how many calls it has paid, by implementation.

    Preparing compiles, tunes, indexes and packs, once a pattern. ``calls_to_pay`` is the median
    over the cells that are faster than dense, ``calls_most`` the most of them (NaN without one);
    ``never`` counts the cells that are not. ``cells`` are those with a time to prepare and a
    dense time. The dense reference has no row.
    """
    found = []
    there = _ok(table).dropna(subset=["prep_s", "dense_s"])
    for key, group in groups(there[there["impl"] != REFERENCE_IMPL], [*CONTEXT, "impl"]):
        calls = group["calls_to_pay"].astype(float)
        pays = calls[np.isfinite(calls)]
        ends = (pays.median(), pays.max()) if len(pays) else (math.nan, math.nan)
        prep = group["prep_s"].astype(float)
        counts = (len(group), len(group) - len(pays))
        found.append((*key, prep.median(), prep.max(), *ends, *counts))
    return pd.DataFrame(found, columns=PAYING_COLUMNS)


def break_evens(totals: pd.DataFrame) -> pd.DataFrame:
    """Return where forward + backward equals dense, by layer and block, from a sweep's densities.

    As ``bench.breakeven`` tells it: ``answer`` is found, never or always, of the sparsities from
    ``least`` to ``most`` that were measured; ``sparsity`` is interpolated between the two points
    beside it, in the logarithm of the speed-up, NaN unless found; ``low`` is the largest sparsity
    that is surely slower, ``high`` the least that is surely faster (0 and 1 where none is);
    ``monotone`` is false where points contradict each other. Layers and blocks of one density
    alone are left out.

    Args:
        totals: what ``bench.table.totals`` returned.
    """
    found = []
    there = totals[totals["impl"] != REFERENCE_IMPL].dropna(subset="speedup")
    ordered = records(there.sort_values(SWEPT, kind="stable"))
    for key, line in gathered(ordered, SWEPT).items():
        if len({row["density"] for row in line}) > 1:
            found.append(dict(zip(SWEPT, key, strict=True)) | _crossing(line))
    return pd.DataFrame(found, columns=SWEPT_COLUMNS)


def _crossing(rows: list[Record]) -> dict[str, object]:
    line = sorted(rows, key=lambda row: -row["density"])
    sparsity, ratio = [1 - row["density"] for row in line], [row["speedup"] for row in line]
    slower = [place for place, value in enumerate(ratio) if value <= 1]
    answer, at = "always", math.nan
    if slower:
        last = slower[-1]
        answer = "never"
        if last + 1 < len(ratio):
            here, there = (math.log(value) for value in ratio[last : last + 2])
            step = sparsity[last + 1] - sparsity[last]
            answer, at = "found", sparsity[last] + step * here / (here - there)
    low = max((1 - row["density"] for row in line if row["speedup_high"] < 1), default=0.0)
    high = min((1 - row["density"] for row in line if row["speedup_low"] > 1), default=1.0)
    ends = {"least": sparsity[0], "most": sparsity[-1], "points": len(line)}
    known = {"low": min(low, high), "high": max(low, high), "monotone": low <= high}
    return {"answer": answer, "sparsity": at} | known | ends


def _ok(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["status"] == Status.OK]
