"""Every cell, missing ones too: as the table of the page and as ``cells.csv``.

The page gets columns, each as its distinct values and a place among them for every row: of
10,000 cells that is 2.1 MB, where a table in HTML took 6.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from bench.frames import stacked
from bench.table import ROW_COLUMNS
from reports import style
from reports.data import ReportData

FILE = "cells.csv"
RENAMED = {"gflops": "gflop_per_s"}  # the one name that does not tell its unit as the others do
WHOLE = (
    "recipe_seed", "stored_weights", "samples", "severe", "peak_bytes", "rounds_rejected",
)  # fmt: skip
CHOSEN = ("pass", "impl", "block", "status")  # with the context's: what the page filters by
CONTEXT = ("machine", "suite", "dtype", "layout", "mode", "pattern")
NAMES = {"impl": "implementation", "dtype": "type"}
BEFORE = ("machine", "suite", "layer", "shape", "pass", "impl", "block")
AFTER = ("dtype", "layout", "mode", "pattern", "status")
Column = dict[str, Any]


def write_csv(path: Path, data: ReportData) -> None:
    """Write one line a cell: every column of :func:`bench.table.rows`, machine and device first.

    Without a cell there is no file, and what an older report left at ``path`` goes.
    """
    frame = _every(data)
    if frame.empty:
        path.unlink(missing_ok=True)
        return
    for name in WHOLE:  # absent for missing cells, and 31.0 samples read oddly
        frame[name] = frame[name].astype("Int64")
    frame = frame.rename(columns=RENAMED)
    frame.to_csv(path, index=False, encoding="utf-8", errors="replace", lineterminator="\n")


def page_table(data: ReportData) -> dict[str, Any]:
    """Return the page's table as plain JSON: ``rows``, a count, and ``columns``.

    A column has ``at``, a place for each row among its distinct ``texts`` and ``values``. A text
    is what is shown; a value, where there is one, is the number behind it, None where there is
    none. ``csv`` is its name in ``cells.csv`` ("" where other columns hold it), ``name`` its
    heading ("" where it is saved alone). ``choose`` marks what rows are chosen by, ``context``
    what is hidden while every row has the same, ``range`` what a value is multiplied by, and its
    unit, where a range of it can be chosen.
    """
    frame = _every(data)
    return {"rows": len(frame), "columns": list(_columns(frame, data))}


def _every(data: ReportData) -> pd.DataFrame:
    frame = stacked((data.rows, data.missing), ROW_COLUMNS)
    devices = {key: found.device_name for key, found in data.environments.items()}
    frame.insert(0, "machine", frame["environment"].map(data.names))
    frame.insert(1, "device_name", frame["environment"].map(devices))
    return frame


def _columns(frame: pd.DataFrame, data: ReportData) -> Iterator[Column]:
    yield from (_plain(frame, name) for name in BEFORE)
    yield _number(frame, "sparsity", "sparsity", style.percent) | {"range": [100, "%"]}
    yield from (_plain(frame, name) for name in AFTER)
    yield _number(frame, "median", "median_s", style.duration)
    yield from _interval(frame, "median, 95 %", "low_s", "high_s", style.duration)
    yield _number(frame, "speed-up", "speedup", style.times) | {"range": [1, "×"]}
    yield from _interval(frame, "speed-up, 95 %", "speedup_low", "speedup_high", style.times)
    yield _number(frame, "GFLOP/s", "gflops", _rate)
    yield _number(frame, "attainment", "attainment", lambda share: f"{100 * share:.3g} %")
    yield _number(frame, "samples", "samples", lambda count: f"{count:g}")
    yield from (_plain(frame, name) for name in ("flags", "reason"))


def _plain(frame: pd.DataFrame, name: str) -> Column:
    texts, at = _distinct(frame[name].astype(str).tolist())
    column: Column = {"name": NAMES.get(name, name), "csv": name, "texts": texts, "at": at}
    if name == "machine":
        pairs = zip(frame["machine"], frame["device_name"], strict=True)
        devices = {machine: device for machine, device in pairs if isinstance(device, str)}
        column["long"] = [f"{t}: {devices[t]}" if t in devices else t for t in texts]
    return column | {"choose": name in CONTEXT + CHOSEN, "context": name in CONTEXT}


def _number(frame: pd.DataFrame, name: str, csv: str, text: Callable[[float], str]) -> Column:
    values, at = _distinct(_numbers(frame[csv]))
    texts = ["" if value is None else text(value) for value in values]
    return {
        "name": name, "csv": RENAMED.get(csv, csv), "texts": texts, "values": values, "at": at,
    }  # fmt: skip


def _interval(
    frame: pd.DataFrame, name: str, low: str, high: str, text: Callable[[float], str]
) -> Iterator[Column]:
    """Yield what is shown, which sorts by the interval's width, and the two ends to be saved."""
    ends = [_numbers(frame[end]) for end in (low, high)]
    pairs, at = _distinct(list(zip(*ends, strict=True)))
    told = [
        None if a is None or b is None else (b - a, f"{text(a)} to {text(b)}") for a, b in pairs
    ]
    yield {
        "name": name, "csv": "", "at": at,
        "values": [t[0] if t else None for t in told], "texts": [t[1] if t else "" for t in told],
    }  # fmt: skip
    for end, numbers in zip((low, high), ends, strict=True):
        values, at = _distinct(numbers)
        yield {"name": "", "csv": end, "texts": [], "values": values, "at": at}


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 999.5 else f"{rate:.3g}"  # not 1.7e+05


def _numbers(series: pd.Series[Any]) -> list[float | None]:
    return [float(v) if math.isfinite(v) else None for v in series.astype(float)]


def _distinct(values: list[Any]) -> tuple[list[Any], list[int]]:
    """Return the distinct values in order of appearance, and a place among them for each."""
    places: dict[Any, int] = {}
    at = [places.setdefault(value, len(places)) for value in values]
    return list(places), at
