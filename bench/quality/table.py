"""Lines of quality.jsonl as frames, and the orders that ought to hold. Floor 1: no torch."""

from __future__ import annotations

from typing import Any

import pandas as pd

CASE = ["scores", "scores_sha", "shape", "seed", "block", "density", "balance", "coverage"]
# (a method that ought to retain at least as much, the one that it is compared with)
ORDERS = (
    ("hrbp2", "sorted"),
    ("hrbp2", "aligned"),
    ("hrbp2", "dsb_kernel"),
    ("hrbp", "dsb_kernel"),
    ("hrbp", "hrbp2"),
    ("hrbp2_pp", "hrbp2"),
    ("hrbp_pp", "hrbp"),
)
COMMON = "hrbp2"
ROUNDING = 1e-9  # scores are compared as shares in float64
COLUMNS = [
    *CASE, "method", "status", "reason", "retained", "block_bound", "density_reached",
    "survives_dgrad", "partitioned", "dgrad_fill", "regroup_s", "dead_filters", "dead_channels",
    "environment",
]  # fmt: skip


def frame(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one row a line; fields that a line lacks are empty."""
    rows = [{**line, "shape": "x".join(map(str, line["shape"]))} for line in lines]
    return pd.DataFrame(rows, columns=COLUMNS)


def against(rows: pd.DataFrame, method: str, other: str) -> pd.DataFrame:
    """Return the cases that both have, with columns ``retained`` and ``other``."""
    ok = rows[rows["status"] == "ok"]
    mine = ok[ok["method"] == method][[*CASE, "retained"]]
    theirs = ok[ok["method"] == other][[*CASE, "retained"]].rename(columns={"retained": "other"})
    return mine.merge(theirs, on=CASE)


def orders(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return for each of ``ORDERS`` how many cases there are, and those that break it."""
    found = []
    for method, other in ORDERS:
        both = against(rows, method, other)
        broken = both[both["retained"] < both["other"] - ROUNDING]
        found.append({
            "method": method,
            "other": other,
            "cases": len(both),
            "mean_gain": float((both["retained"] - both["other"]).mean()) if len(both) else None,
            "broken": broken.to_dict("records"),
        })  # fmt: skip
    return found


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row a method, over the unbalanced cases that hrbp2 can have.

    Columns: method, cases, retained (mean), of_unstructured (mean of retained / unstructured's),
    density_ratio (reached / asked, mean), dgrad_fill (mean), survives_dgrad, regroup_s (median),
    regroup_most_s.
    """
    ok = rows[(rows["status"] == "ok") & (rows["balance"] == "none")]
    if (ok["method"] == COMMON).any():  # ++ and masks reach further down: leave that out
        ok = ok.merge(ok[ok["method"] == COMMON][CASE], on=CASE)
    best = ok[ok["method"] == "unstructured"][[*CASE, "retained"]]
    best = best.rename(columns={"retained": "unstructured"})
    merged = ok.merge(best, on=CASE, how="left")
    merged["of_unstructured"] = merged["retained"] / merged["unstructured"]
    merged["density_ratio"] = merged["density_reached"] / merged["density"]
    merged["dgrad_fill"] = pd.to_numeric(merged["dgrad_fill"])
    grouped = merged.groupby("method", sort=False)
    made = grouped.agg(
        cases=("retained", "size"),
        retained=("retained", "mean"),
        of_unstructured=("of_unstructured", "mean"),
        density_ratio=("density_ratio", "mean"),
        dgrad_fill=("dgrad_fill", "mean"),
        survives_dgrad=("survives_dgrad", "first"),
        regroup_s=("regroup_s", "median"),
        regroup_most_s=("regroup_s", "max"),
    )
    return made.reset_index()
