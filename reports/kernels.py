"""The kernels' sections: speed-up against sparsity, blocks, and every implementation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from bench.frames import groups, records
from bench.records import OURS, REFERENCE_IMPL
from bench.table import ALL, CONTEXT
from reports import findings, style
from reports.data import ReportData, pick
from reports.parts import Block, Paragraph, Table
from reports.picture import PANELS, Picture


def sparsity_blocks(data: ReportData, pictures: Sequence[Picture]) -> Iterator[Block]:
    """Yield the speed-ups over sparsity, of means and layer by layer, and their table."""
    yield from (p for p in pictures if p.name.startswith(("speedup-sparsity", "layers")))
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


def block_blocks(pictures: Sequence[Picture]) -> Iterator[Block]:
    """Yield the heat maps."""
    yield from (p for p in pictures if p.name.startswith("block-sparsity"))


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


def implementation_blocks(data: ReportData, pictures: Sequence[Picture]) -> Iterator[Block]:
    """Yield every implementation's means, where there are more than ours and dense."""
    for key in data.contexts():
        cover = pick(data.coverage, [*CONTEXT, "block"], (*key, ALL))
        if set(cover["impl"]) - {OURS, REFERENCE_IMPL}:
            number = data.contexts().index(key) + 1
            yield from (p for p in pictures if p.name == f"implementations-{number}")
            yield Paragraph(f"Every mean: {data.label(key)}", strong=True)
            yield _coverage_table(cover)


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
