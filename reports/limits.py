"""How near to the machine's limit: ceilings, attainment, what preparing costs, break-even."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bench.frames import Record, records
from bench.records import OURS
from bench.table import CONTEXT, PASSES
from reports import style
from reports.data import Key, ReportData, pick
from reports.parts import Block, Paragraph, Table


def limit_blocks(data: ReportData) -> Iterator[Block]:
    """Yield ceilings, attainment and amortisation of each context."""
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
    for key in data.contexts():
        if not len(pick(data.attainment, CONTEXT, key)):
            continue
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


def break_even_blocks(data: ReportData) -> Iterator[Block]:
    """Yield a line a search for the break-even sparsity; nothing where none was made."""
    rows = []
    for line in data.breakeven:
        found = line["sparsity"]
        nearest = line["points"][-1] if line["answer"] == "never" else line["points"][0]
        if found is not None:
            told = f"{style.percent(found)} ({_range(line)})"
            told += "" if line["monotone"] else ", points contradict each other"
        else:
            at = f"{nearest['speedup']:.2f}× at {style.percent(nearest['sparsity'])}"
            told = f"{line['answer']}: {at} ({nearest['low']:.2f} to {nearest['high']:.2f})"
        rows.append((
            f"{line['layer']}, block {line['block']}, N {line['batch']}",
            f"{line['pass']}, {line['dtype']}, {line['mode']}",
            line["impl"],
            told,
            str(len(line["points"])),
            line["device_name"],
        ))  # fmt: skip
    if not rows:
        return
    columns = ("layer", "pass", "implementation", "break-even sparsity", "points", "machine")
    yield Table(columns, tuple(rows), (1.9, 1.4, 1.6, 2.4, 0.8, 1.5))
    yield Paragraph(
        "The sparsity from which on the implementation is faster than dense, by bisection on "
        "cells timed together with dense. In brackets from the largest sparsity that is surely "
        "slower to the least that is surely faster; never and always are answers."
    )


def _range(line: Record) -> str:
    return f"{style.percent(line['low'])} to {style.percent(line['high'])}"
