"""Rows summed up by implementation: attainment, ceilings, amortisation. Floor 1: no torch."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bench.frames import groups
from bench.records import REFERENCE_IMPL, Status
from bench.stats import geometric_mean
from bench.table import CONTEXT

ATTAINMENT_COLUMNS = [*CONTEXT, "impl", "pass", "attainment", "least", "most", "cells", "without"]
PAYING_COLUMNS = [
    *CONTEXT, "impl", "prep_s", "prep_most_s", "calls_to_pay", "calls_most", "cells", "never",
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


def _ok(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["status"] == Status.OK]
