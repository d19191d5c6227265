"""Trained networks and whole training steps of several folders, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench.accuracy_table import DENSE_ARM
from bench.frames import Record, records
from bench.step_table import ASKED, step_rows
from reports import style
from reports.compare import Folder, Span
from reports.figures_compare import Dots, Row, pictures
from reports.parts import Block, Bullets, Paragraph, Table

ARM = ("data", "model", "arm", "density")
STEP = [name for name in ASKED if name not in ("environment", "device")]
Found = dict[tuple[Any, ...], tuple[Record, ...]]


def accuracy_blocks(folders: Sequence[Folder]) -> Iterator[Block]:
    """Yield the arms that the folders with accuracy.jsonl share; nothing where fewer than two."""
    there = [folder for folder in folders if len(folder.data.summary)]
    if len(there) < 2:
        return
    shared, several = _shared([_arms(folder) for folder in there])
    if several:
        yield Paragraph(
            f"{style.counted(several, 'arm')} of one density trained in several ways within a "
            "folder: not shown, since none stands for the others."
        )
    if not shared:
        names = style.listed(folder.label for folder in there)
        yield Paragraph(f"{names} share no arm with an accuracy.")
        return
    labels = [folder.label for folder in there]
    rows = [
        (_arm_text(key, shared), {"accuracy": [_accuracy(row) for row in found]})
        for key, found in shared.items()
    ]
    told = (
        "A point is the mean last-epoch test accuracy over runs, its bar the 95 % t-interval; "
        "none of one run."
    )
    dots = Dots(labels, rows, [("accuracy", "accuracy")], "accuracy (%)", "arm", speedups=False)
    yield from pictures("compare-accuracy", "Accuracy of the arms that are shared", told, dots)
    yield Paragraph("Every shared arm", strong=True)
    apart = {key: settings_apart(found) for key, found in shared.items()}
    marks = {text: f"note {i}" for i, text in enumerate(dict.fromkeys(apart.values()), 1) if text}
    table = tuple(
        (label, *(_accuracy_text(row) for row in shared[key]), marks.get(apart[key], "yes"))
        for (label, _), key in zip(rows, shared, strict=True)
    )
    columns = ("arm", *(f"{label}: accuracy (%)" for label in labels), "trained alike?")
    yield Table(columns, table, (1.8, *(1.8 for _ in labels), 1.0))
    yield Paragraph(
        "Means over runs with 95 % t-intervals, n of them. Where a setting differs, the numbers "
        "are of different training. A setting that only some folders name is told too: it may "
        "have had no name when the others were made."
    )
    if marks:
        yield Bullets(tuple(f"{mark[0].upper()}{mark[1:]}: {text}" for text, mark in marks.items()))


def _arms(folder: Folder) -> dict[tuple[Any, ...], list[Record]]:
    found: dict[tuple[Any, ...], list[Record]] = {}
    for row in records(folder.data.summary):
        if not math.isnan(row["accuracy"]):
            found.setdefault(tuple(row[n] for n in ARM), []).append(row)
    return found


def _shared(tables: Sequence[Mapping[tuple[Any, ...], list[Record]]]) -> tuple[Found, int]:
    """Return what all have exactly once, densest first; and how many keys have several rows."""
    common = [k for k in tables[0] if all(k in table for table in tables[1:])]
    alone = [k for k in common if all(len(table[k]) == 1 for table in tables)]
    order = sorted(alone, key=lambda k: (k[0], k[1], k[2] != DENSE_ARM, k[2], -k[3]))
    return {k: tuple(table[k][0] for table in tables) for k in order}, len(common) - len(alone)


def _arm_text(key: tuple[Any, ...], shared: Found) -> str:
    data, model, arm, density = key
    several = len({k[:2] for k in shared}) > 1
    parts = [arm, *([] if arm == DENSE_ARM else [style.percent(1 - density)])]
    return ", ".join([*([data, model] if several else []), *parts])


def _accuracy(row: Record) -> Span:
    return row["accuracy"], row["accuracy_low"], row["accuracy_high"]


def _accuracy_text(row: Record) -> str:
    value, low, high = _accuracy(row)
    known = (
        "" if math.isnan(low) else f" ({style.accuracy(low)} to {style.accuracy(high)})"
    )  # fmt: skip
    return f"{style.accuracy(value)}{known}, n = {row['n']}"


def settings_apart(rows: Sequence[Record]) -> str:
    """Return the settings of training and pattern that differ; "" for none."""
    told: list[set[str]] = [
        {part for part in f"{row['training']}, {row['pattern']}".split(", ") if part}
        for row in rows
    ]
    own = {part for part in set().union(*told) if not all(part in each for each in told)}
    named: dict[str, set[str]] = {}
    for setting in own:
        name, _, value = setting.partition(" ")
        named.setdefault(name, set()).add(value)
    differ = [f"{n} {' / '.join(sorted(v))}" for n, v in sorted(named.items()) if len(v) > 1]
    once = [f"{n} {next(iter(v))}" for n, v in sorted(named.items()) if len(v) == 1]
    parts = [
        *(["differing: " + "; ".join(differ)] if differ else []),
        *(["told by some alone: " + "; ".join(once)] if once else []),
    ]
    return ". ".join(parts)


def step_overlay(folders: Sequence[Folder]) -> Iterator[Block]:
    """Yield the steps that the folders with steps.jsonl share; nothing where fewer than two."""
    there = [folder for folder in folders if folder.data.steps]
    if len(there) < 2:
        return
    tables = [_steps(folder) for folder in there]
    common = [k for k in tables[0] if all(k in table for table in tables[1:])]
    labels = [folder.label for folder in there]
    if not common:
        yield Paragraph(f"{style.listed(labels)} share no comparison of whole training steps.")
        return
    name = _step_texts(common)
    rows: list[Row] = [
        (name(key), {"step": [_step(table[key]) for table in tables]}) for key in common
    ]
    told = (
        "A point is the geometric mean over trials of a whole training step's speed-up over "
        "dense, its bar the 95 % t-interval."
    )
    dots = Dots(labels, rows, [("step", "whole training step")], "speed-up over dense", "network")
    yield from pictures("compare-steps", "Whole training steps that are shared", told, dots)
    table = tuple(
        (name(key), *(_step_text(table[key]) for table in tables)) for key in common
    )  # fmt: skip
    columns = ("network", *(f"{label}: speed-up; dense / sparse step" for label in labels))
    yield Table(columns, table, (2.0, *(2.2 for _ in labels)))
    yield Paragraph("Steps are shown as they were timed; no ratio is made of times.")


def _steps(folder: Folder) -> dict[tuple[Any, ...], Record]:
    """Return the comparisons with a figure, by what was asked; the last of several counts."""
    rows = step_rows(folder.data.steps)
    return {tuple(r[n] for n in STEP): r for r in records(rows) if not math.isnan(r["speedup"])}


def _step_texts(keys: Sequence[tuple[Any, ...]]) -> Callable[[tuple[Any, ...]], str]:
    """Return what names a comparison: network, batch, sparsity, block, and what else differs."""
    place = STEP.index
    always = ("model", "batch", "density", "block")
    more = [n for n in STEP if n not in always and len({str(k[place(n)]) for k in keys}) > 1]

    def text(key: tuple[Any, ...]) -> str:
        model, batch, density, block = (key[place(n)] for n in always)
        told = [f"{model} N {batch}", style.percent(1 - density), f"block {block}"]
        return ", ".join([*told, *(f"{n} {key[place(n)]}" for n in more)])

    return text


def _step(row: Record) -> Span:
    return row["speedup"], row["speedup_low"], row["speedup_high"]


def _step_text(row: Record) -> str:
    value, low, high = _step(row)
    reach = "" if math.isnan(low) else f" ({style.interval(low, high)})"
    times = " / ".join(style.duration(row[f"{side}_step_s"]) for side in ("dense", "sparse"))
    return f"{style.times(value)}{reach}; {times}"
