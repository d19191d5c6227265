"""What the quality sweep says, in words and tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from bench.frames import records
from bench.quality.plan import REAL
from bench.quality.table import ORDERS, against, orders, summary
from reports import style
from reports.data import ReportData
from reports.figures_quality import SURVIVE, quality_pictures
from reports.parts import Block, Bullets, Paragraph, Table

MOST_BROKEN = 12


def quality_blocks(data: ReportData) -> Iterator[Block]:
    """Yield the quality section; nothing where no regrouping was measured."""
    if len(data.quality):
        yield Paragraph(_where(data))
        yield Paragraph("Which method when", strong=True)
        yield Bullets(tuple(advice(data.quality)))
        yield _methods_table(data.quality)
        yield Paragraph(
            "Means over the unbalanced cells that hrbp2 can have; two_four and grouped have fewer, "
            "so read their share of what unstructured retains on the same cells. Density is what "
            "was reached over what was asked; dgrad is how much of the dense work that dgrad would "
            "have to do is real. channel and grouped do not cover: channel leaves whole channels "
            "dead."
        )
        yield from quality_pictures(data.quality)
        yield Paragraph("What ought to hold", strong=True)
        yield from _orders_blocks(data.quality)
    if data.optimum:
        yield Paragraph("How near to the best grouping", strong=True)
        yield Bullets(tuple(optimum_sentences(data.optimum)))
    bound = _bound_sentence(data.quality)
    if bound:
        yield Paragraph(bound)


def _where(data: ReportData) -> str:
    """Return what was grouped, on what, by which version."""
    rows = data.quality
    known = [
        data.environments[e] for e in sorted(set(rows["environment"])) if e in data.environments
    ]
    commits = sorted({(e.commit or "unknown")[:12] for e in known})
    machines = sorted({f"{e.cpu}, {e.threads} threads" for e in known})
    names = dict.fromkeys(rows["scores"])
    return (
        f"{style.counted(len(rows), 'regrouping')} of {style.counted(len(names), 'layer')} "
        f"({style.listed(names)}). Times: {'; '.join(machines) or 'unknown'}. "
        f"Commit: {', '.join(commits) or 'unknown'}. Made by: python -m bench quality."
    )


def _gain(rows: pd.DataFrame, method: str, other: str) -> float:
    """Return the mean difference of retained score in points; NaN where they never met."""
    unbalanced = rows[rows["balance"] == "none"]
    both = against(unbalanced, method, other)
    return float((both["retained"] - both["other"]).mean()) if len(both) else math.nan


def _points(value: float) -> str:
    return f"{100 * value:+.1f} points".replace("-", "−")


def advice(rows: pd.DataFrame) -> Iterator[str]:
    """Yield what to take when, each with the figure that says so; what was not run is left out."""
    table = {row["method"]: row for row in records(summary(rows))}
    gains = {pair: _gain(rows, *pair) for pair in (*ORDERS, ("hrbp_pp", "hrbp2_pp"))}
    real = rows[rows["scores"].isin(REAL)]
    if "hrbp2" in table and not math.isnan(gains["hrbp2", "sorted"]):
        yield (
            f"hrbp2, by default: {_points(gains['hrbp2', 'sorted'])} of all score over sorted "
            f"norms{_share(table['hrbp2'])}. Its two partitions can be absorbed by the "
            "neighbouring layers, so nothing is gathered at run time."
        )
    if "hrbp2_pp" in table and not math.isnan(gains["hrbp2_pp", "hrbp2"]):
        on_real = _gain(real, "hrbp2_pp", "hrbp2")
        told = "" if math.isnan(on_real) else f" ({_points(on_real)} on the networks' weights)"
        yield (
            f"hrbp2_pp, where kernels have several taps: {_points(gains['hrbp2_pp', 'hrbp2'])} "
            f"over hrbp2{told} for the same stored weights, in more blocks of fewer taps. It also "
            "reaches densities below the floor of whole blocks."
        )
    if "hrbp" in table and not math.isnan(gains["hrbp", "hrbp2"]):
        yield (
            f"hrbp, when score matters more than speed: {_points(gains['hrbp', 'hrbp2'])} over "
            "hrbp2, and every call gathers its channels. At the coverage floor it gains least."
        )
    if "hrbp_pp" in table and not math.isnan(gains["hrbp_pp", "hrbp2_pp"]):
        yield (
            f"hrbp_pp, for the most score in blocks that survive all passes: "
            f"{_points(gains['hrbp_pp', 'hrbp2_pp'])} over hrbp2_pp, with hrbp's gathering."
        )
    if "sorted" in table and "hrbp2" in table:
        yield (
            f"sorted, when a regrouping may take no time: {style.duration(_s(table['sorted']))} "
            f"at the median, hrbp2 {style.duration(_s(table['hrbp2']))}. aligned, when no "
            "channel may move."
        )
    yield from _network_advice(real)
    yield from _rival_advice(table)
    yield from _balance_advice(rows)


def _network_advice(rows: pd.DataFrame) -> Iterator[str]:
    means = {row["method"]: row["retained"] for row in records(summary(rows))}
    if {"hrbp2", "aligned", "unstructured"} <= means.keys():
        yield (
            f"Expect less of trained weights than of the synthetic families: on the networks hrbp2 "
            f"retains {means['hrbp2']:.3f}, aligned blocks {means['aligned']:.3f} and "
            f"unstructured {means['unstructured']:.3f}."
        )


def _share(row: dict[str, Any]) -> str:
    share = row["of_unstructured"]
    return "" if math.isnan(share) else f", {share:.0%} of what unstructured retains"


def _s(row: dict[str, Any]) -> float:
    return float(row["regroup_s"])


def _rival_advice(table: dict[str, dict[str, Any]]) -> Iterator[str]:
    full = [m for m in ("elementwise", "dsb", "ovw") if m in table]
    fills = [table[m]["dgrad_fill"] for m in full if not math.isnan(table[m]["dgrad_fill"])]
    if fills:
        low, high = (f"{v:.0%}" for v in (min(fills), max(fills)))
        told = low if low == high else f"{low} to {high}"
        yield (
            f"Not {style.listed(full)} for training: they keep columns of single taps, so that "
            f"in dgrad only {told} of the work of dense blocks would be real."
        )
    if "structure_lth" in table:
        ratio = table["structure_lth"]["density_ratio"]
        yield (
            f"structure_lth is no comparison at equal size: it kept {ratio:.1f} times the "
            "weights asked for on average."
        )


def _balance_advice(rows: pd.DataFrame) -> Iterator[str]:
    ok = rows[(rows["status"] == "ok") & (rows["method"] == "hrbp2")]
    keys = ["scores", "block", "density"]
    wide = ok.pivot_table(index=keys, columns="balance", values="retained")
    if not {"none", "filters", "both"} <= set(wide.columns):
        return
    wide = wide.dropna()
    filters, both = ((wide[b] - wide["none"]).mean() for b in ("filters", "both"))
    yield (
        f"Balance, where unequal groups cost time: on hrbp2 'filters' costs {_points(filters)}, "
        f"'both' {_points(both)}, on average over {style.counted(len(wide), 'layer')}."
    )


def _methods_table(rows: pd.DataFrame) -> Table:
    lines = []
    for row in records(summary(rows).sort_values("retained", ascending=False)):
        dgrad = "dense" if row["method"] in SURVIVE else "no blocks"
        if not math.isnan(row["dgrad_fill"]) and row["method"] not in SURVIVE:
            dgrad = f"{row['dgrad_fill']:.0%} real"
        share = row["of_unstructured"]
        lines.append((
            row["method"],
            str(row["cases"]),
            f"{row['retained']:.3f}",
            "—" if math.isnan(share) else f"{share:.1%}",
            f"{row['density_ratio']:.2f}",
            dgrad,
            f"{style.duration(row['regroup_s'])} ({style.duration(row['regroup_most_s'])})",
        ))  # fmt: skip
    columns = ("method", "cells", "retained", "of unstructured", "density", "dgrad",
               "median time (most)")  # fmt: skip
    return Table(columns, tuple(lines), (1.4, 0.6, 0.9, 1.3, 0.8, 1.0, 1.7))


def _orders_blocks(rows: pd.DataFrame) -> Iterator[Block]:
    found = [order for order in orders(rows) if order["cases"]]
    lines = tuple(
        (
            f"{o['method']} ≥ {o['other']}",
            f"{o['cases'] - len(o['broken'])} of {o['cases']}",
            _points(o["mean_gain"]),
        )
        for o in found
    )
    if not lines:
        yield Paragraph("No two methods that can be compared were run.")
        return
    yield Table(("order", "cells that obey", "mean gain"), lines, (2, 1.4, 1.2))
    yield Paragraph(
        "dsb_kernel lets every filter group choose its own channels, as hrbp does; hrbp2 has one "
        "partition for all of them, which costs most where scores have no structure to find."
    )
    broken = [
        f"{o['method']} {row['retained']:.4f} < {o['other']} {row['other']:.4f}: {row['scores']}, "
        f"block {row['block']}, density {row['density']:g}, balance {row['balance']}"
        for o in found
        for row in o["broken"]
    ]
    if broken:
        yield Paragraph("Cells that disobey:")
        yield Bullets(tuple(broken[:MOST_BROKEN]))
        if len(broken) > MOST_BROKEN:
            yield Paragraph(f"and {len(broken) - MOST_BROKEN} more, in the stored lines.")


def optimum_sentences(lines: list[dict[str, Any]]) -> Iterator[str]:
    """Yield for each method the mean and the least share of the best grouping."""
    for method, best, what in (
        ("hrbp2", "best_two_sided", "two partitions, under coverage"),
        ("hrbp", "best_one_sided", "each filter group its own channels, without coverage"),
    ):
        shares = [line[method] / line[best] for line in lines]
        yield (
            f"{method} reaches {sum(shares) / len(shares):.2%} of the best grouping of its kind "
            f"({what}) on average over {style.counted(len(shares), 'layer')} small enough to "
            f"try every one, {min(shares):.2%} at least."
        )


def _bound_sentence(rows: pd.DataFrame) -> str | None:
    ok = rows[(rows["status"] == "ok") & (rows["balance"] == "none")] if len(rows) else rows
    for method in ("hrbp", "hrbp2"):
        part = ok[ok["method"] == method] if len(ok) else ok
        if len(part):
            share = (part["retained"] / part["block_bound"]).mean()
            return (
                f"On the large layers the best is not known. {method} reaches {share:.0%} of an "
                "upper bound on average; the bound lets each filter choose its own runs of "
                "channels, so the best grouping lies below it."
            )
    return None
