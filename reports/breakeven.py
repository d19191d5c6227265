"""The break-even sparsity of a layer: of searches, and as far as a sweep's densities tell it."""

from __future__ import annotations

from collections.abc import Iterator

from bench.frames import Record, records
from bench.records import OURS
from bench.table import CONTEXT
from reports import commands, style
from reports.data import Key, ReportData, pick
from reports.figures_breakeven import Span, break_even_picture
from reports.parts import Block, Paragraph, Table

HEAD = ("layer", "pass", "implementation", "break-even sparsity", "points", "machine")


def break_even_blocks(data: ReportData) -> Iterator[Block]:
    """Yield searches, then what a sweep tells; nothing where neither is there."""
    yield from _searches(data)
    for number, key in enumerate(data.contexts(), 1):
        yield from _swept(data, key, number)


def _searches(data: ReportData) -> Iterator[Block]:
    if not data.breakeven:
        return
    spans = [_span(line, _where(line)) for line in data.breakeven]
    yield break_even_picture(
        "break-even",
        "Break-even sparsity by search",
        spans,
        "found by bisection on cells timed together with dense",
        commands.first_of([commands.search(line) for line in data.breakeven]),
    )
    rows = [
        (
            f"{line['layer']}, block {line['block']}, N {line['batch']}",
            f"{line['pass']}, {line['dtype']}, {line['mode']}",
            line["impl"],
            _told(line),
            str(len(line["points"])),
            line["device_name"],
        )
        for line in data.breakeven
    ]
    yield Table(HEAD, tuple(rows), (1.9, 1.4, 1.6, 2.4, 0.8, 1.5))
    yield Paragraph(
        "The sparsity from which on the implementation is faster than dense, by bisection on "
        "cells timed together with dense. In brackets from the largest sparsity that is surely "
        "slower to the least that is surely faster; never and always are answers."
    )


def _where(line: Record) -> str:
    return f"{line['layer']}, {line['block']}, {line['pass']}"


def _told(line: Record) -> str:
    if line["sparsity"] is not None:
        text = f"{style.percent(line['sparsity'])} ({_range(line)})"
        return text + ("" if line["monotone"] else ", points contradict each other")
    nearest = line["points"][-1] if line["answer"] == "never" else line["points"][0]
    at = f"{nearest['speedup']:.2f}× at {style.percent(nearest['sparsity'])}"
    return f"{line['answer']}: {at} ({nearest['low']:.2f} to {nearest['high']:.2f})"


def _range(line: Record) -> str:
    return f"{style.percent(line['low'])} to {style.percent(line['high'])}"


def _span(line: Record, name: str) -> Span:
    """Return a search as a row of the picture."""
    ends = [point["sparsity"] for point in line["points"]]
    answer = (line["answer"], line["sparsity"], line["low"], line["high"])
    return Span(name, *answer, min(ends), max(ends))


def _swept(data: ReportData, key: Key, number: int) -> Iterator[Block]:
    """Yield what the densities of a sweep tell of our implementation in one context."""
    rows = records(pick(data.swept, [*CONTEXT, "impl"], (*key, OURS)))
    if not rows:
        return
    yield Paragraph(f"From the sweep's densities: {data.label(key)}", strong=True)
    yield Paragraph(f"{swept_finding(rows)} A search pins it down: {commands.BREAK_EVEN}.")
    rest = [row for row in rows if row["answer"] != "always"]
    if rest:
        spans = [
            Span(f"{r['layer']}, {r['block']}", r["answer"],
                 r["sparsity"] if r["answer"] == "found" else None,
                 r["low"], r["high"], r["least"], r["most"])
            for r in sorted(rest, key=lambda r: (r["answer"], -r["high"], r["layer"]))
        ]  # fmt: skip
        yield break_even_picture(
            f"break-even-{number}",
            f"Break-even sparsity from a sweep, forward + backward: {data.label(key)}",
            spans,
            "interpolated between the two neighbouring densities that were measured",
            commands.sweep(key),
        )


def swept_finding(rows: list[Record]) -> str:
    """Return how many layers and blocks cross dense's time within what was measured."""
    count = {a: sum(r["answer"] == a for r in rows) for a in ("always", "found", "never")}
    least, most = min(r["least"] for r in rows), max(r["most"] for r in rows)
    parts = [
        f"{count['always']} are faster than dense at every sparsity measured, so that their "
        "break-even lies below",
        f"{count['found']} cross it in between",
        f"{count['never']} are not faster at the highest sparsity measured",
    ]
    told = [part for part, n in zip(parts, count.values(), strict=True) if n]
    return (
        f"Of {len(rows)} pairs of layer and block measured at "
        f"two sparsities or more, from {style.percent(least)} to {style.percent(most)}: "
        f"{'; '.join(told)}."
    )
