"""A trend as a table for people, and as JSON, Markdown and CSV. Floor 1: no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.change_points import ALPHA, LEAST_RUNS, LEAST_STEP, POWER
from bench.history import ALONE, SLOWER, SPEEDUP, History, Series, Trend, TrendStep, change_text
from bench.jsonl import encode
from bench.records import SCHEMA

NAMED = 6  # cells that a sentence names before it only counts
CSV_COLUMNS = [
    "history", "device_name", "suite", "device", "dtype", "layout", "mode", "pattern", "pass",
    "cell_id", "series", "kind", "position", "revision", "folder", "commits", "value", "low",
    "high", "time_ratio", "level", "step",
]  # fmt: skip


def sentence(trend: Trend) -> str:
    """Return the verdict of the whole, in one sentence."""
    if trend.exit_code == ALONE:
        return f"NOT COMPARABLE: no two folders have an ok cell of {trend.impl} in common."
    if trend.exit_code == SLOWER:
        found = [h.since(series, step) for h, series, step in trend.standing]
        return f"SLOWER: {'; '.join(found)}."
    means = [series for h in trend.histories for series in h.passes.values()]
    runs = max(len(series.places) for series in means)
    if runs < LEAST_RUNS:
        return f"NO STEPS CALLED: {runs} folders show changes alone, {LEAST_RUNS} are needed."
    undone = sum(step.size > 0 for series in means for step in series.steps)
    if undone:
        return f"NOT SLOWER: {_counted(undone, 'step')} of a pass to slower, each undone since."
    return "NOT SLOWER: no step of a pass to slower."


def value_text(series: Series, value: float) -> str:
    """Return ``1.84×`` or a time in ms; ``gap`` for NaN."""
    if math.isnan(value):
        return "gap"
    return f"{value:.2f}×" if series.kind == SPEEDUP else f"{1e3 * value:.4g} ms"


def limits(series: Series) -> str:
    """Return what a series can show at all, in one sentence."""
    found = series.found
    if math.isnan(found.noise):
        return (
            f"{series.name}: {len(series.places)} folders have a value; steps are called from "
            f"{LEAST_RUNS} on"
        )
    return (
        f"{series.name}: noise {found.noise:.1%} a folder; {POWER:.0%} of steps are called from "
        f"{found.middle:.1%} on in the middle, from {found.recent:.1%} on when two folders old"
    )


def remarks(history: History) -> Iterator[str]:
    """Yield what a reader must know of a history, beside its table."""
    for series in history.passes.values():
        for step in series.steps:
            yield _located(history, series, step)
    lone = [f"{history.since(series, step)}" for series, step in history.lone]
    if lone:
        yield f"{_counted(len(lone), 'step')} of single cells, not of their pass: {_some(lone)}"
    yield from (limits(series) for series in history.passes.values())
    yield (
        f"nothing below {LEAST_STEP:.0%} is called a step, nor what the last folder shows alone; "
        f"noise alone makes a step in {ALPHA:.0%} of such runs"
    )
    for series in history.passes.values():
        if series.failed or series.absent or series.left_out:
            yield (
                f"{series.name}: {_counted(series.cells, 'cell')}; gaps: {series.failed} not ok, "
                f"{series.absent} without a line; {_counted(series.left_out, 'cell')} in no mean"
            )
    if history.single:
        yield f"{_counted(history.single, 'cell')} with a value in one folder at most: no series"
    for revision in history.revisions:
        if revision.software:
            yield f"software changes at {revision.label}: {revision.software}"


def _located(history: History, series: Series, step: TrendStep) -> str:
    cells = [f"{label} {change_text(size)}" for label, size in step.cells]
    state = "" if step.size < 0 else "; stands" if step.standing else "; undone since"
    return f"{history.since(series, step)}{state}: {_some(cells)}"


def _some(items: list[str]) -> str:
    shown = ", ".join(items[:NAMED]) or "no cell for itself"
    return shown + (f", and {len(items) - NAMED} more" if len(items) > NAMED else "")


def _rows(history: History) -> Iterator[list[str]]:
    """Yield revision, folder, a text a pass, and the steps that start there."""
    for place, revision in enumerate(history.revisions):
        texts, steps = [], []
        for series in history.passes.values():
            change = series.changes[place]
            told = "" if math.isnan(change) else f" ({100 * math.expm1(change):+.1f} %)"
            texts.append(value_text(series, series.values[place]) + told)
            steps += [history.since(series, s) for s in series.steps if s.position == place]
        yield [revision.label, revision.folder, *texts, "; ".join(steps)]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _columns(history: History) -> list[str]:
    means = [f"{name}, {_counted(s.cells, 'cell')}" for name, s in history.passes.items()]
    return ["revision", "folder", *means, "step"]


def _reading(history: History) -> str:
    kinds = {series.kind for series in history.passes.values()}
    what = "speed-up over dense in the same rounds" if SPEEDUP in kinds else "time of a call"
    what += " (or time of a call)" if len(kinds) > 1 else ""
    return f"geometric means of the {what}; in brackets the time against the folder before"


def render(trend: Trend, console: Console) -> None:
    """Print a table a history, remarks, notes and the verdict."""
    for history in trend.histories:
        console.print(Text(history.title, style="bold"))
        console.print(Text(_reading(history)))
        table = Table()
        for name in _columns(history):
            table.add_column(name, overflow="fold")
        for row in _rows(history):
            colour = "bold red" if "slower" in row[-1] else "green" if row[-1] else ""
            table.add_row(*(Text(text) for text in row[:-1]), Text(row[-1], style=colour))
        console.print(table)
        for remark in remarks(history):
            console.print(Text(f"- {remark}"))
    for note in trend.notes:
        console.print(Text(f"note: {note}"))
    console.print(Text(sentence(trend), style="bold" if trend.exit_code else "green"))


def to_markdown(trend: Trend, pictures: list[str], captions: list[str]) -> str:
    """Return the same as Markdown, with a picture and its caption a history.

    Args:
        pictures: file names beside the text. captions: of each.
    """
    lines = [f"# Trend of {_plain(trend.impl)}", "", _plain(sentence(trend)), ""]
    for history, picture, caption in zip(trend.histories, pictures, captions, strict=True):
        lines += [f"## {_plain(history.title)}", "", f"![{_plain(caption)}]({picture})", ""]
        lines += [f"*{_plain(caption)}*", "", _plain(_reading(history)).capitalize() + ".", ""]
        columns = _columns(history)
        lines += [f"| {' | '.join(map(_plain, columns))} |", "| --- " * len(columns) + "|"]
        lines += [f"| {' | '.join(map(_plain, row))} |" for row in _rows(history)]
        lines += ["", *(f"- {_plain(remark)}" for remark in remarks(history)), ""]
    lines += [f"- {_plain(note)}" for note in trend.notes]
    return "\n".join(lines).rstrip() + "\n"


def to_json(trend: Trend) -> str:
    """Return everything as JSON text; null in gaps. ``time_ratio`` is after ÷ before."""
    data = {
        "schema": SCHEMA,
        "exit_code": trend.exit_code,
        "sentence": sentence(trend),
        "impl": trend.impl,
        "rule": {"least_step": LEAST_STEP, "least_folders": LEAST_RUNS, "alpha": ALPHA},
        "histories": [_history(history) for history in trend.histories],
        "notes": trend.notes,
    }
    return json.dumps(json.loads(encode(data)), indent=1) + "\n"


def _history(history: History) -> dict[str, Any]:
    return {
        "machine": history.machine,
        "context": history.context,
        "revisions": [asdict(revision) for revision in history.revisions],
        "passes": {name: _series(history, s) for name, s in history.passes.items()},
        "cells": [_series(history, series) for series in history.cells],
        "single": history.single,
    }


def _series(history: History, series: Series) -> dict[str, Any]:
    found = series.found
    names = (
        "name", "conv_pass", "cell_id", "kind", "values", "lows", "highs", "levels", "cells",
        "failed", "absent", "left_out",
    )  # fmt: skip
    return {
        **{name: getattr(series, name) for name in names},
        "noise": found.noise,
        "penalty": found.penalty,
        "seen_in_the_middle": found.middle,
        "seen_two_folders_old": found.recent,
        "steps": [_step(history, step) for step in series.steps],
    }


def _step(history: History, step: TrendStep) -> dict[str, Any]:
    return {
        "since": history.revisions[step.position].label,
        "position": step.position,
        "last_before": step.last_before,
        "text": step.text,
        "time_ratio": math.exp(step.size),
        "low": math.exp(step.low),
        "high": math.exp(step.high),
        "standing": step.standing,
        "cells": [{"cell": label, "time_ratio": math.exp(size)} for label, size in step.cells],
    }


def to_csv(trend: Trend) -> str:
    """Return one line a series and folder; seconds or speed-ups, empty in gaps."""
    found = [
        {"history": number, "device_name": history.machine["device_name"], **history.context}
        | _point(history, series, place)
        for number, history in enumerate(trend.histories, 1)
        for series in (*history.passes.values(), *history.cells)
        for place in range(len(history.revisions))
    ]
    return pd.DataFrame(found, columns=CSV_COLUMNS).to_csv(index=False, lineterminator="\n")


def _point(history: History, series: Series, place: int) -> dict[str, Any]:
    revision = history.revisions[place]
    return {
        "pass": series.conv_pass,
        "cell_id": series.cell_id,
        "series": series.name,
        "kind": series.kind,
        "position": place,
        "revision": revision.label,
        "folder": revision.folder,
        "commits": " ".join(revision.commits),
        "value": series.values[place],
        "low": series.lows[place],
        "high": series.highs[place],
        "time_ratio": math.exp(series.changes[place]),
        "level": series.levels[place],
        "step": "; ".join(step.text for step in series.steps if step.position == place),
    }


def _plain(text: str) -> str:
    """Return ``text`` so that it stays in one cell of a Markdown table and forms no tags."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(escaped.split())
