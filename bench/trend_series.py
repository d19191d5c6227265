"""Points of one history become series: every cell's, and a mean a pass. Floor 1: no torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench import trend_points
from bench.frames import Record, groups, records
from bench.history import SPEEDUP, TIME, Series
from bench.records import Status

NOWHERE = (math.nan, math.nan, math.nan)
Matrix = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def cell_series(points: pd.DataFrame, folders: Sequence[int]) -> tuple[list[Series], int]:
    """Return (a series for each cell that two folders have, how many cells fewer have).

    Args:
        points: those of one history, as :func:`bench.trend_points.points` returns them.
        folders: the history's, in order.
    """
    found: list[Series] = []
    single = 0
    for (name, cell), group in groups(points, ["pass", "cell"], sort=False):
        by_folder = {row["folder"]: row for row in records(group)}
        series = _cell(str(name), str(cell), [by_folder.get(f) for f in folders])
        if len(series.places) < 2:
            single += 1
        else:
            found.append(series)
    return found, single


def _cell(conv_pass: str, cell_id: str, rows: Sequence[Record | None]) -> Series:
    """Return a cell's series: speed-ups where each folder that has a time has one, else times."""
    there = [row for row in rows if row is not None]
    ok = [row for row in there if row["status"] == Status.OK]
    paired = all(not math.isnan(row["speedup"]) for row in ok)
    kind, names = (
        (SPEEDUP, trend_points.SPEEDUP) if paired else (TIME, trend_points.TIME)
    )  # fmt: skip
    triples = [NOWHERE if row is None else tuple(row[n] for n in names) for row in rows]
    values, lows, highs = zip(*triples, strict=True)
    return Series(
        name=there[-1]["label"],
        conv_pass=conv_pass,
        cell_id=cell_id,
        kind=kind,
        values=values,
        lows=lows,
        highs=highs,
        failed=len(there) - len(ok),
        absent=len(rows) - len(there),
    )


def mean_series(conv_pass: str, cells: Sequence[Series]) -> Series:
    """Return the geometric mean over cells, one value a folder.

    A folder's value is the mean of fitted cells, logarithm = folder + cell by least squares: a
    gap moves it no more than the cell's own noise does, and without gaps it is the plain mean.
    The interval is as wide as if all cells erred together.

    Args:
        cells: series of one pass, one at least.
    """
    counts = Counter(series.kind for series in cells)
    kind = TIME if counts[TIME] > counts[SPEEDUP] else SPEEDUP
    alike = [series for series in cells if series.kind == kind]
    logs = np.array([series.logs for series in alike]).T
    folders, columns = _connected(np.isfinite(logs))
    chosen = [series for series, inside in zip(alike, columns, strict=True) if inside]
    level = np.full(len(folders), math.nan)
    level[folders] = _fitted(logs[np.ix_(folders, columns)])
    sign = -1 if kind == SPEEDUP else 1
    values = np.exp(sign * level)
    with np.errstate(invalid="ignore"):
        ends = [
            [np.log(np.array(getattr(s, name)) / np.array(s.values)) for s in chosen]
            for name in ("lows", "highs")
        ]
    lows, highs = (values * np.exp(_row_means(np.array(end).T)) for end in ends)
    return Series(
        name=conv_pass,
        conv_pass=conv_pass,
        cell_id="",
        kind=kind,
        values=tuple(values.tolist()),
        lows=tuple(lows.tolist()),
        highs=tuple(highs.tolist()),
        cells=len(chosen),
        failed=sum(series.failed for series in chosen),
        absent=sum(series.absent for series in chosen),
        left_out=len(cells) - len(chosen),
    )


def _connected(there: Mask) -> tuple[Mask, Mask]:
    """Return (folders, cells) as masks: the largest set in which each is linked with each.

    Folders that share no cell, nor a third folder that shares one with both, have no level in
    common.

    Args:
        there: [folders, cells], whether there is a value.
    """
    best = np.zeros(len(there), dtype=bool)
    rest = there.any(axis=1)
    while rest.any():
        folders: Mask = np.zeros(len(there), dtype=bool)
        folders[int(np.argmax(rest))] = True
        while True:
            grown = np.asarray(there[:, there[folders].any(axis=0)].any(axis=1))
            if (grown == folders).all():
                break
            folders = grown
        if folders.sum() > best.sum():
            best = folders
        rest &= ~folders
    return best, np.asarray(there[best].any(axis=0))


def _fitted(logs: Matrix) -> Matrix:
    """Return each folder's mean over all cells, [folders, cells] with gaps -> [folders]."""
    there = np.isfinite(logs)
    if there.all():
        return np.asarray(logs.mean(axis=1))
    rows, columns = np.nonzero(there)
    design = np.zeros((len(rows), sum(logs.shape)))
    design[np.arange(len(rows)), rows] = 1
    design[np.arange(len(rows)), len(logs) + columns] = 1
    effects = np.linalg.lstsq(design, logs[there], rcond=None)[0]
    return np.asarray(effects[: len(logs)] + effects[len(logs) :].mean())


def _row_means(values: Matrix) -> Matrix:
    """Return the mean of each row over what is no NaN; NaN for none."""
    there = np.isfinite(values)
    count = there.sum(axis=1)
    total = np.where(there, values, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)
