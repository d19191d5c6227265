"""The page on machine and method: what a reader must know before the numbers are believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

import pandas as pd

from bench.frames import groups
from bench.records import Flag
from reports.data import ReportData
from reports.parts import Block, Bullets, Paragraph, Table
from reports.style import counted, duration

MODES = {
    "cold": "caches are emptied before every sample",
    "hot": "the same buffers again and again, caches warm",
    "sustained": "launches back to back, as in a training step",
    "host": "the time that the host needs to launch, without the device's",
}
FLAGS = {
    Flag.NOISY: "the interval of the median was still wide when the time was up",
    Flag.THROTTLED: "the device slowed itself down by heat or brake",
    Flag.POWER_LIMITED: "the device ran at its power limit",
    Flag.LAUNCH_BOUND: "the host could not launch fast enough",
    Flag.BIMODAL: "the samples have two peaks",
    Flag.WARMUP_UNSTABLE: "times still drifted at the end of the warm-up",
    Flag.SINGLE_PROCESS: "all samples come from one process",
    Flag.UNLOCKED: "the clocks were not locked",
    Flag.WINOGRAD: "faster than the direct form can be: probably Winograd's",
}


def method_blocks(data: ReportData) -> Iterator[Block]:
    """Yield the page."""
    for key, name in data.names.items():
        yield Paragraph(f"Machine {name}", strong=True)
        found = data.environments.get(key)
        if found is None:
            yield Paragraph(f"environment.json does not describe the environment {key}.")
            continue
        facts = [
            (field.replace("_", " "), _fact(value))
            for field, value in (("environment id", key), *asdict(found).items())
            if value is not None
        ]
        yield Table(("fact", "value"), tuple(facts), (1, 4))
    if len(data.rows):
        yield Paragraph("How the times were taken", strong=True)
        yield Bullets(tuple(_timing(data)))
        yield Paragraph("How a speed-up is made", strong=True)
        yield Bullets(tuple(_ratios(data)))
        yield Paragraph("Flags", strong=True)
        yield _flags(data)
    if len(data.runs):
        yield Paragraph("How the networks were trained", strong=True)
        yield Bullets(tuple(_training(data)))
    yield Paragraph("What this was made from", strong=True)
    yield Paragraph(
        "The report holds nothing that these files do not: DIR, in the command that made a "
        "figure, is the folder that holds them."
    )
    yield Table(("file", "SHA-256"), tuple(data.sources), (1, 4))


def _fact(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _timing(data: ReportData) -> Iterator[str]:
    rows = data.rows
    for mode in sorted(set(rows["mode"])):
        yield f"Mode {mode}: {MODES.get(mode, 'not described here')}."
    ok = rows[rows["status"] == "ok"]
    if len(ok):
        counts = ok["samples"].astype(int)
        yield (
            f"Samples a cell: {counts.min()} to {counts.max()}, half of the cells at least "
            f"{int(counts.quantile(0.5, interpolation='lower'))}. None is deleted; "
            f"{counted(int(ok['severe'].astype(int).sum()), 'sample')} of {counts.sum():,} lie "
            "beyond three quartile ranges."
        )
    together = rows.sort_values("rounds_rejected").drop_duplicates(
        ["environment", "rounds"], keep="last"
    )
    yield (
        f"Rounds rejected, because the dense reference itself had slowed down: "
        f"{int(together['rounds_rejected'].sum())}."
    )
    prep = rows["prep_s"].astype(float).dropna()
    if len(prep):
        yield (
            f"Compiling, indexing and packing is never inside a time; it took "
            f"{duration(prep.median())} a cell (median), {duration(prep.max())} at most."
        )

    yield from _memory(ok)


def _memory(ok: pd.DataFrame) -> Iterator[str]:
    peaks = ok[ok["peak_bytes"].notna()].groupby("impl")["peak_bytes"].max()
    if len(peaks):
        each = ", ".join(f"{name} {value / 2**20:,.0f} MiB" for name, value in peaks.items())
        yield f"Device memory beyond a pass's inputs, its output included, at most: {each}."


def _ratios(data: ReportData) -> Iterator[str]:
    joined = data.rows[data.rows["speedup"].notna() & (data.rows["impl"] != "dense")]
    paired = int((joined["paired"] == True).sum())  # noqa: E712  (NaN where there is no ratio)
    yield (
        f"Paired, {counted(paired, 'cell')}: dense and the implementation took turns; the speed-up "
        "is the median of the ratios of neighbouring samples, with the 95 % order-statistic "
        "interval of that median."
    )
    yield (
        f"Not paired, {counted(len(joined) - paired, 'cell')}: the ratio of the medians; the "
        "interval runs from the low end of dense over the high end of the implementation to the "
        "opposite corner."
    )
    yield (
        "Forward + backward: the sum of the three dense medians over the sum of the three others, "
        "with the corners of their intervals, so wider than 95 %; only where all three are there."
    )
    yield (
        "Means over layers are geometric, and never mix machines, suites, number formats, layouts, "
        "modes or kinds of pattern."
    )


def _flags(data: ReportData) -> Table:
    found = Counter(flag for text in data.rows["flags"] for flag in text.split(", ") if flag)
    rows = [(str(f), FLAGS[f], f"{found[str(f)]} of {len(data.rows)}") for f in Flag]
    return Table(("flag", "what it says", "cells"), tuple(rows), (1.2, 4, 0.9))


def _training(data: ReportData) -> Iterator[str]:
    runs = data.runs
    for (name, model, training), group in groups(runs, ["data", "model", "training"]):
        seeds = ", ".join(str(s) for s in sorted(set(group["seed"])))
        yield f"{model} on {name}, {training or 'no recipe stored'}; seeds {seeds}."
    for pattern in sorted({p for p in runs["pattern"] if p}):
        arms = sorted(set(runs.loc[runs["pattern"] == pattern, "arm"]))
        yield f"Pattern of {', '.join(arms)}: {pattern}."
    yield "The accuracy is that of the last epoch, never of the best one."
    pairs = runs.loc[runs["step_pairs"] > 0, "step_pairs"]
    if len(pairs):
        yield (
            f"A step is forward, backward and optimizer; dense and sparse steps of one batch "
            f"took turns, {pairs.min()} to {pairs.max()} pairs a run."
        )
