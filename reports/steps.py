"""Whole training steps, in words and a table: what a user decides on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from bench.frames import Record, records
from bench.step_table import ASKED, SIDES, share_rows, step_rows
from reports import style
from reports.data import ReportData
from reports.figures_steps import step_pictures
from reports.parts import Block, Bullets, Paragraph, Table

COMMAND = "python -m bench step"
OWN = ("density", "block", "method", "balance")  # what tells comparisons of one network apart
LESS = ("environment", "device", "model", "batch", *OWN)


def step_blocks(data: ReportData) -> Iterator[Block]:
    """Yield the section; nothing where no whole step was timed."""
    if not data.steps:
        return
    rows = labelled(step_rows(data.steps))
    yield Paragraph(
        "A step is forward, backward and optimizer of the whole network on one batch, dense "
        "against the same network converted and absorbed, from the same initial weights. Dense "
        f"and sparse ran in fresh processes that took turns. Made by: {COMMAND}."
    )
    timed = rows[rows["speedup"].notna()]
    if len(timed):
        yield from step_pictures(rows, share_rows(data.steps))
        yield _table(timed)
        yield Paragraph(_notes(timed))
    failed = records(rows[rows["status"] != "ok"])
    if failed:
        yield Paragraph("Comparisons without a figure", strong=True)
        yield Bullets(tuple(f"{r['label']}: {r['status']}, {r['reason']}" for r in failed))


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with ``own_label``, its sparsity and blocks, and ``label``, all of it.

    Settings that all rows share, beside those, are left out.
    """
    differing = [n for n in ASKED if n not in LESS and rows[n].astype(str).nunique() > 1]
    own = [_own(row, differing) for row in records(rows)]
    label = [
        f"{r['model']} N {r['batch']}, {o}" for r, o in zip(records(rows), own, strict=True)
    ]  # fmt: skip
    return rows.assign(own_label=own, label=label)


def _own(row: Record, differing: list[str]) -> str:
    told = [style.percent(1 - row["density"]), f"block {row['block']}", str(row["method"])]
    if row["balance"] != "none":
        told.append(f"balance {row['balance']}")
    words = {"seed": "seed "}
    return ", ".join([*told, *(f"{words.get(n, '')}{row[n]}" for n in differing)])


def _table(rows: pd.DataFrame) -> Table:
    lines = []
    for row in records(rows):
        interval = style.interval(row["speedup_low"], row["speedup_high"])
        steps = " / ".join(style.duration(row[f"{side}_step_s"]) for side in SIDES)
        lines.append((
            row["label"],
            f"{style.times(row['speedup'])} ({interval})",
            steps,
            _bound(row),
            f"{row['real_density']:.3g}, {_share(row['flops_ratio'])}",
            _pair(row, "peak_bytes", 2**20, ",.0f"),
            _pair(row, "energy_j", 1, ".3g"),
            f"{row['trials']}" + (f", {row['flags']}" if row["flags"] else ""),
        ))  # fmt: skip
    columns = ("network", "speed-up (95 %)", "dense / sparse", "Amdahl", "density, FLOPs",
               "memory (MiB)", "energy (J)", "trials, flags")  # fmt: skip
    return Table(columns, tuple(lines), (2.2, 1.6, 1.3, 1.1, 1.0, 1.1, 0.9, 1.1))


def _bound(row: Record) -> str:
    if math.isnan(row["amdahl_bound"]):
        return "—"
    return f"{style.times(row['amdahl_bound'])} of {_share(row['amdahl_share'])}"


def _share(fraction: float) -> str:
    return "—" if math.isnan(fraction) else f"{100 * fraction:.0f} %"


def _pair(row: Record, name: str, unit: float, form: str) -> str:
    values = [row[f"{side}_{name}"] / unit for side in SIDES]
    return "—" if any(map(math.isnan, values)) else " / ".join(f"{v:{form}}" for v in values)


def _notes(rows: pd.DataFrame) -> str:
    memory = style.listed(sorted({text for text in rows["memory"] if text}) or ["not known"])
    layers = [
        f"{r['label']}: {r['standalone']} of {r['sparse_layers']}"
        for r in records(rows[rows["standalone"] > 0])
    ]
    permuting = f"Layers that permute in every step: {'; '.join(layers) or 'none'}. "
    return (
        "Amdahl's column: the bound, and the share of the dense step in the convolutions that "
        f"became sparse. Density and FLOPs: of the sparse layers, and of a whole step over "
        f"dense's. Memory: {memory}. Energy: a step's, idle power taken off. {permuting}"
        "Noisy: the interval is wider than ±2 %."
    )
