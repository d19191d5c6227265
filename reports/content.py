"""What a report says, in order: sections of paragraphs, lists, tables and pictures.

The renderers (``document``, ``page``) know these four kinds and nothing of measurements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.accuracy_table import ACCURACY_CONTEXT, ARM_KEYS, DENSE_ARM
from bench.frames import groups, records, stacked
from bench.records import OURS
from bench.table import ALL, CASE, CONTEXT, PASSES
from reports import findings, style
from reports.accuracy_tables import anchor_blocks, equivalence_blocks
from reports.data import Key, ReportData, named_arms, pick
from reports.figures import kernel_pictures
from reports.figures_accuracy import accuracy_pictures
from reports.gating import gate_blocks
from reports.limits import break_even_blocks, limit_blocks
from reports.method import method_blocks
from reports.parts import Block, Bullets, Paragraph, Table
from reports.picture import PANELS, Picture
from reports.quality import quality_blocks
from reports.steps import step_blocks


@dataclass(frozen=True)
class Section:
    """A part of the report; ``blocks`` in reading order."""

    title: str
    blocks: tuple[Block, ...]


def sections(data: ReportData) -> list[Section]:
    """Return the whole report."""
    grouping = tuple(quality_blocks(data))
    gate = tuple(gate_blocks(data))
    steps = tuple(step_blocks(data))
    if (grouping or gate or data.steps) and data.nothing_timed:
        told = tuple(method_blocks(data)) if data.steps else ()
        named = (
            ("Whole training steps", steps if data.steps else ()),
            ("Gate", gate),
            ("Groupings compared", grouping),
            ("Machine and method", told),
        )
        return [Section(title, blocks) for title, blocks in named if blocks]
    pictures = kernel_pictures(data)
    return [
        Section("Findings", tuple(_first_page(data))),
        Section("Speed-up against accuracy", tuple(_accuracy(data))),
        Section("Whole training steps", steps),
        Section(
            "Speed-up against sparsity",
            _pictures(pictures, "speedup-sparsity", f"No layer has a speed-up of {OURS}"),
        ),
        Section(
            "Block against sparsity",
            _pictures(pictures, "block-sparsity", f"No layer has a speed-up of {OURS}"),
        ),
        Section("Every implementation", tuple(_implementations(data, pictures))),
        Section("How near to the limit", tuple(limit_blocks(data))),
        *(Section("Break-even", found) for found in [tuple(break_even_blocks(data))] if found),
        *(Section("Groupings compared", found) for found in [grouping] if found),
        *(Section("Gate", found) for found in [gate] if found),
        Section("Machine and method", tuple(method_blocks(data))),
        Section("Cells without a time", tuple(_failures(data))),
    ]


def _pictures(pictures: list[Picture], stem: str, nothing: str) -> tuple[Block, ...]:
    found: list[Block] = [p for p in pictures if p.name.startswith(stem)]
    return tuple(found) or (Paragraph(f"{nothing}, so there is nothing to draw here."),)


def _first_page(data: ReportData) -> Iterator[Block]:
    for sentence in findings.measured(data):
        yield Paragraph(sentence)
    yield Paragraph("What it means", strong=True)
    yield Bullets(tuple(findings.meaning(data)))
    yield Paragraph("In figures", strong=True)
    for label, lines in findings.headline_groups(data):
        if label:
            yield Paragraph(f"{label}:")
        yield Bullets(tuple(lines))
    table = _speed_table(data)
    if table.rows:
        yield Paragraph(f"{OURS} over dense, forward + backward", strong=True)
        yield table
        yield Paragraph(
            "The mean is geometric, over layers and blocks. Faster and slower count the "
            "layers whose whole interval lies above or below 1×; the rest is undecided. Where a "
            "layer is slower, policy auto keeps its dense convolution. The last column counts "
            "every cell of the three passes, whatever became of it."
        )


def _speed_table(data: ReportData) -> Table:
    rows = []
    for key in data.contexts():
        for block in findings.blocks_of(data, key):
            for row in findings.ours_by_density(data, key, block):
                undecided = row["cells"] - row["faster"] - row["slower"]
                rows.append((
                    data.label(key, short=True),
                    block,
                    style.percent(1 - row["density"]),
                    style.times(row["speedup"]),
                    style.interval(row["speedup_min"], row["speedup_max"]),
                    f"{row['faster']} / {undecided} / {row['slower']}",
                    findings.status_text(row),
                ))  # fmt: skip
    columns = (
        "where",
        "block",
        "sparsity",
        "mean",
        "range",
        "faster / undecided / slower",
        "cells",
    )
    widths = (2.2, 0.8, 0.9, 0.8, 1.6, 2.3, 2.0)
    if len(data.contexts()) > 1:
        return Table(columns, tuple(rows), widths)
    return Table(columns[1:], tuple(row[1:] for row in rows), widths[1:])


def _accuracy(data: ReportData) -> Iterator[Block]:
    drawn = accuracy_pictures(data)
    yield from drawn
    if not drawn:
        yield Paragraph(
            "No network was trained with an accuracy and step times of its own, so there is "
            "nothing to draw here."
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


def _implementations(data: ReportData, pictures: list[Picture]) -> Iterator[Block]:
    yield from _pictures(pictures, "implementations", "No implementation has a speed-up")
    for key in data.contexts():
        table = _coverage_table(pick(data.coverage, [*CONTEXT, "block"], (*key, ALL)))
        yield Paragraph(f"Every mean: {data.label(key)}", strong=True)
        yield table


def _coverage_table(cover: pd.DataFrame) -> Table:
    rows = []
    order = cover.assign(other=cover["impl"] != OURS).sort_values(
        ["other", "impl", "density"], ascending=[True, True, False]
    )
    for (impl, density), group in groups(order, ["impl", "density"], sort=False):
        by_pass = {r["pass"]: r for r in records(group)}
        means = [_mean_text(by_pass.get(name)) for name in PANELS]
        counts = findings.status_text(by_pass[ALL])
        rows.append((str(impl), style.percent(1 - density), *means, counts))
    columns = ("implementation", "sparsity", "fprop", "dgrad", "wgrad", "all three", "cells")
    return Table(columns, tuple(rows), (1.7, 0.8, 1.2, 1.2, 1.2, 1.2, 1.7))


def _mean_text(row: dict[str, Any] | None) -> str:
    if row is None or not row["cells"]:
        return "—"
    return f"{style.times(row['speedup'])} (n = {row['cells']})"


def _failures(data: ReportData) -> Iterator[Block]:
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
