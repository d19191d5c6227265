"""Folders of results become the points of a history: one a cell and folder. Floor 1: no torch.

Speed-ups and times are those of :mod:`bench.table`. A speed-up counts where dense was measured
in the same rounds, so that what the machine did that day is in both and falls out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd

from bench.frames import Record, records
from bench.records import REFERENCE_IMPL, Environment, Status, digest
from bench.store import Results
from bench.table import ALL, CONTEXT, PASSES, TOTAL_KEYS, rows, totals

GROUP = ["machine", *CONTEXT[1:]]  # what is never compared with one another
SPEEDUP = ["speedup", "speedup_low", "speedup_high"]
TIME = ["median_s", "low_s", "high_s"]
COLUMNS = [
    "folder", *GROUP, "pass", "cell", "label", "environment", "status", *SPEEDUP, *TIME,
]  # fmt: skip
_USED = [*TOTAL_KEYS, "pass", "cell_id", "label", "status", "paired", *SPEEDUP, *TIME]


def machine_id(environment: Environment) -> str:
    """Return a name of the hard facts: machines of different names are never compared."""
    return digest(environment.hard)


def points(read: Sequence[Results], impl: str) -> pd.DataFrame:
    """Return one row a cell of ``impl`` and folder, columns :data:`COLUMNS`.

    ``folder`` counts from 0 in the order given. ``cell`` is a cell id; under ``pass`` "all" it
    names the three passes of a case together, where a folder has all three. Speed-ups are NaN
    unless dense shares the rounds, and for dense itself; times, in seconds, are NaN unless ok.
    Of a cell in several environments of one machine the last counts.
    """
    found: list[Record] = []
    for number, results in enumerate(read):
        some = [m for m in results.measurements if m.cell.impl in (impl, REFERENCE_IMPL)]
        table = rows(replace(results, measurements=some))
        table = _last(table[table["impl"] == impl], results)
        cells = records(table[_USED])
        for row in (*cells, *_together(cells, totals(table))):
            machine = machine_id(results.environments[row["environment"]])
            found.append(_point(row | {"machine": machine}) | {"folder": number})
    return pd.DataFrame(found, columns=COLUMNS)


def repeated(results: Results) -> int:
    """Return how many measurements a later one of the same cell and machine replaces."""
    return len(results.measurements) - len(_environment_of(results))


def _environment_of(results: Results) -> dict[tuple[str, str], str]:
    """Return (machine, cell id) -> the environment of its last measurement."""
    machines = {name: machine_id(facts) for name, facts in results.environments.items()}
    return {(machines[m.environment], m.cell.cell_id): m.environment for m in results.measurements}


def _last(table: pd.DataFrame, results: Results) -> pd.DataFrame:
    kept = {(environment, cell) for (_, cell), environment in _environment_of(results).items()}
    pairs = zip(table["environment"], table["cell_id"], strict=True)
    return table[pd.Series([pair in kept for pair in pairs], index=table.index, dtype=bool)]


def _together(cells: Sequence[Record], sums: pd.DataFrame) -> Iterator[Record]:
    """Yield the three passes of each case as one row.

    Args:
        cells: rows of single passes. sums: what :func:`bench.table.totals` made of them.
    """
    cases: dict[tuple[str, ...], dict[str, Record]] = {}
    for row in cells:
        cases.setdefault(tuple(row[k] for k in TOTAL_KEYS), {})[row["pass"]] = row
    for ratio in records(sums):
        parts = cases[tuple(ratio[k] for k in TOTAL_KEYS)]
        if set(parts) != set(PASSES):
            continue
        bad = [row["status"] for row in parts.values() if row["status"] != Status.OK]
        first = parts[PASSES[0]]
        yield {
            **first,
            "pass": ALL,
            "cell_id": digest([parts[name]["cell_id"] for name in PASSES]),
            "label": first["label"].replace(f" {PASSES[0]} ", " "),
            "status": bad[0] if bad else str(Status.OK),
            "paired": all(row["paired"] is True for row in parts.values()),
            **{name: sum(row[name] for row in parts.values()) for name in TIME},
            **{name: ratio[name] for name in SPEEDUP},
        }


def _point(row: Record) -> Record:
    """Return a row with its numbers where they may be compared, else NaN."""
    ok = row["status"] == Status.OK
    paired = ok and row["paired"] is True and row["impl"] != REFERENCE_IMPL
    return {
        **{name: row[name] for name in ("pass", "label", "environment", "status", *GROUP)},
        "cell": row["cell_id"],
        **{name: row[name] if paired else math.nan for name in SPEEDUP},
        **{name: row[name] if ok else math.nan for name in TIME},
    }
