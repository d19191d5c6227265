"""How near to the machine's limit: rooflines, ceilings, attainment, what preparing costs."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bench.frames import Record, records
from bench.records import OURS
from bench.table import CONTEXT, PASSES
from reports import style
from reports.data import Key, ReportData, pick
from reports.figures_roofline import roofline_picture
from reports.parts import Block, Paragraph, Table


def limit_blocks(data: ReportData) -> Iterator[Block]:
    """Yield rooflines, ceilings, attainment and amortisation of each context."""
    if not len(data.rows):
        return
    if not len(data.attainment):
        yield Paragraph("No cell was timed, so there is nothing to hold against a limit.")
        return
    yield Paragraph(
        "Attainment is the least time of a cell over its measured time. The least time follows "
        "from the operations that the implementation does and from ceilings measured in the same "
        "run; in mode cold from the bytes that must move, too. In mode host there is none. "
        "Attainment tells waste from work: a fast small cell and a slow large one may be equally "
        "near to the limit. Means are geometric."
    )
    for number, key in enumerate(data.contexts(), 1):
        if not len(pick(data.attainment, CONTEXT, key)):
            continue
        picture = roofline_picture(data, key, number)
        if picture is not None:
            yield picture
        yield Paragraph(f"Attainment: {data.label(key)}", strong=True)
        yield Paragraph(_ceilings_text(data, key))
        yield _attainment_table(data, key)
        table = _paying_table(data, key)
        if table.rows:
            yield Paragraph(f"What preparing costs: {data.label(key)}", strong=True)
            yield table
    yield Paragraph(
        "Preparing is packing, indexing, tuning and compiling, once a pattern and outside of "
        "every time. It has paid after as many calls as it takes to save its own time against "
        "dense; never, where the cell is not faster than dense."
    )


def _ceilings_text(data: ReportData, key: Key) -> str:
    row = records(pick(data.ceilings, CONTEXT, key))[0]
    parts = []
    for stem, scale, unit, name in (
        ("flops", 1e9, "GFLOP/s", "matrix rate"),
        ("bytes", 1e9, "GB/s", "copy, read and written bytes counted"),
    ):
        most, least = row[f"{stem}_per_s"], row[f"{stem}_least"]
        if math.isnan(most):
            parts.append(f"{name} not known")
            continue
        first = "" if least > 0.999 * most else f"{least / scale:,.4g} to "
        parts.append(f"{name} {first}{most / scale:,.4g} {unit}")
    return f"Ceilings of {style.counted(row['cells'], 'cell')}: {'; '.join(parts)}."


def _attainment_table(data: ReportData, key: Key) -> Table:
    rows = []
    found = pick(data.attainment, CONTEXT, key)
    for impl in sorted(set(found["impl"]), key=lambda name: (name != OURS, name)):
        by_pass = {row["pass"]: row for row in records(found[found["impl"] == impl])}
        texts = [_attained(by_pass.get(name)) for name in PASSES]
        counts = [sum(row[n] for row in by_pass.values()) for n in ("cells", "without")]
        rows.append((str(impl), *texts, f"{counts[0]} of {sum(counts)}"))
    columns = ("implementation", *(f"{name}: mean (range)" for name in PASSES), "cells")
    return Table(columns, tuple(rows), (1.7, 1.7, 1.7, 1.7, 0.9))


def _attained(row: Record | None) -> str:
    if row is None or not row["cells"]:
        return "—"
    least, most = (_percent(row[name]) for name in ("least", "most"))
    return f"{_percent(row['attainment'])} ({least} to {most})"


def _paying_table(data: ReportData, key: Key) -> Table:
    rows = []
    order = sorted(
        records(pick(data.paying, CONTEXT, key)), key=lambda r: (r["impl"] != OURS, r["impl"])
    )
    for row in order:
        pays = row["cells"] - row["never"]
        calls = f"{_count(row['calls_to_pay'])} ({_count(row['calls_most'])})" if pays else "—"
        rows.append((
            row["impl"],
            f"{style.duration(row['prep_s'])} ({style.duration(row['prep_most_s'])})",
            calls,
            f"{pays} of {row['cells']}",
        ))  # fmt: skip
    columns = ("implementation", "preparing: median (most)", "calls: median (most)", "ever pays")
    return Table(columns, tuple(rows), (1.7, 2, 2, 1.2))


def _count(calls: float) -> str:
    return f"{calls:,.0f}" if calls >= 10 else f"{calls:.2g}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %" if fraction >= 0.095 else f"{100 * fraction:.1f} %"
