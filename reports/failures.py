"""Every cell and run without a result, with its reason."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from bench.frames import groups, records, stacked
from bench.table import CASE, CONTEXT, PASSES
from reports import style
from reports.data import Key, ReportData
from reports.parts import Block, Paragraph, Table


def failure_blocks(data: ReportData) -> Iterator[Block]:
    """Yield torn lines, cells that are not ok or missing, and runs that diverged."""
    for text in data.torn:
        yield Paragraph(f"A torn line could not be read and was left out: {text[:300]}")
    failed = data.failed
    diverged = data.runs[data.runs["status"] != "ok"]
    if len(failed):
        yield Paragraph(
            f"{style.counted(len(failed), 'cell')} without a time. Passes that share a reason "
            "stand in one line, and so do all cells of an implementation's passes with one reason."
        )
        yield _failure_table(data, failed)
    elif len(data.rows):
        yield Paragraph("No cell failed, was skipped or is missing.")
    else:
        yield Paragraph("No cell was measured, so no cell failed.")
    if len(diverged):
        yield Paragraph("Training runs without a result", strong=True)
        rows = [
            (f"{r['arm']}, seed {r['seed']}", f"{r['density']:.4g}", r["status"], r["reason"])
            for r in records(diverged)
        ]
        yield Table(("run", "density", "status", "reason"), tuple(rows), (2, 0.8, 0.9, 4))


def _failure_table(data: ReportData, failed: pd.DataFrame) -> Table:
    """List every cell; one line where all cells of an implementation's passes share a reason."""
    keys = [*CONTEXT, "impl", "status", "reason"]
    sizes = stacked([data.rows, data.missing], [*CONTEXT, "impl", "pass"]).value_counts()
    rows: list[tuple[str, ...]] = []
    for key, group in groups(failed, keys, sort=False):
        row = dict(zip(keys, key, strict=True))
        context: Key = tuple(row[k] for k in CONTEXT)
        where = data.label(context, short=True)
        why = (row["status"], row["reason"])
        there = (sizes[(*context, row["impl"], name)] for name in set(group["pass"]))
        if len(group) > 1 and len(group) == sum(there):
            cells = [(f"every cell, {len(group)}", _passes(group))]
        else:
            cells = [
                (
                    f"{layer}, block {block}, sparsity {style.percent(1 - density)}",
                    _passes(part),
                )
                for (layer, _, density, block, _), part in groups(group, CASE, sort=False)
            ]
        prefix = f"{where} · " if where else ""
        rows += [(prefix + cell, row["impl"], passes, *why) for cell, passes in cells]
    columns = ("cell", "implementation", "passes", "status", "reason")
    return Table(columns, tuple(rows), (2.6, 1.4, 1.2, 0.9, 3.2))


def _passes(cells: pd.DataFrame) -> str:
    """Return the passes that occur, in their usual order."""
    there = set(cells["pass"])
    return ", ".join(name for name in PASSES if name in there)
