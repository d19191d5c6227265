"""The section on speed-up against accuracy: pictures, and a table of every arm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from bench.accuracy_table import ACCURACY_CONTEXT, ARM_KEYS, DENSE_ARM
from bench.frames import records
from reports import style
from reports.accuracy_tables import anchor_blocks, equivalence_blocks
from reports.data import ReportData, named_arms, pick
from reports.figures_accuracy import accuracy_pictures
from reports.parts import Block, Paragraph, Table


def accuracy_blocks(data: ReportData) -> Iterator[Block]:
    """Yield the section; nothing where no network was trained."""
    if not len(data.runs):
        return
    drawn = accuracy_pictures(data)
    yield from drawn
    if not drawn:
        yield Paragraph(
            "No arm has both an accuracy and step times of its own, so there is nothing to draw "
            "here."
        )
    if len(data.summary):
        yield Paragraph("Every arm", strong=True)
        yield _arms_table(data)
        yield Paragraph(
            "Means over seeds with 95 % t-intervals; the difference to dense in percentage "
            "points with Welch's interval; the step speed-up is a geometric mean over seeds."
        )
    yield from equivalence_blocks(data)
    yield from anchor_blocks(data)


def _arms_table(data: ReportData) -> Table:
    rows = []
    arms = named_arms(data.summary)
    order = arms.assign(sparse=arms["arm"] != DENSE_ARM).sort_values(
        [*ACCURACY_CONTEXT, "sparse", "name", "density"], ascending=[True] * 6 + [False]
    )
    for row in records(order):
        gap = records(pick(data.gaps, ARM_KEYS, tuple(row[k] for k in ARM_KEYS)))
        context = tuple(row[k] for k in ACCURACY_CONTEXT)
        parts = (data.label(context, short=True), row["name"])
        rows.append((
            " · ".join(p for p in parts if p),
            style.percent(1 - row["density"]),
            f"{row['n']} of {row['runs']}",
            _with_interval(style.accuracy, row, "accuracy"),
            _with_interval(style.points, gap[0], "gap") if gap else "—",
            "1×" if row["arm"] == DENSE_ARM else _with_interval(style.times, row, "step_speedup"),
        ))  # fmt: skip
    columns = ("arm", "sparsity", "runs", "accuracy (%)", "dense − arm (points)", "step speed-up")
    return Table(columns, tuple(rows), (2.0, 0.8, 0.7, 1.9, 1.8, 1.8))


def _with_interval(text: Any, row: dict[str, Any], name: str) -> str:
    """Return ``value (low to high)``; the value alone where there is no interval."""
    stem = "step" if name == "step_speedup" else name
    low, high = row[f"{stem}_low"], row[f"{stem}_high"]
    known = "" if math.isnan(low) else f" ({text(low)} to {text(high)})"
    return text(row[name]) + known
