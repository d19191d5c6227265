"""The picture of the findings page: every speed-up over dense in one strip, best seen at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from bench.accuracy_table import ACCURACY_CONTEXT
from bench.frames import records
from bench.records import OURS
from bench.step_table import step_rows
from reports import commands, style
from reports.data import ReportData, pick
from reports.findings import ours_by_density
from reports.findings_accuracy import OUR_ARM, accuracy_points
from reports.picture import Picture, caption, place
from reports.steps import labelled

MOST_ROWS = 16  # with its caption it shares one page with the findings
ROW_IN, TOP_IN, BOTTOM_IN, LEFT_IN, RIGHT_IN = 0.185, 0.08, 0.45, 1.0, 1.0
KERNELS, STEPS, TRAINED = "kernels", "steps", "trained"
READING = {
    KERNELS: (
        f"kernels: a point is the geometric mean speed-up of {OURS}'s forward + backward over "
        "layers and blocks, its bar runs from the slowest to the fastest of them"
    ),
    STEPS: "whole steps: the geometric mean over trials, its bar the 95 % interval",
    TRAINED: (
        "training: the geometric mean step speed-up over seeds, its bar the 95 % interval, and "
        "at the right what the accuracy differs from dense's"
    ),
}


@dataclass(frozen=True)
class Strip:
    """One row: a heading has a name alone."""

    name: str
    kind: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    beside: str = ""


def headline_picture(data: ReportData) -> Picture | None:
    """Return the strip of all speed-ups; None where there is none."""
    every = [*_kernels(data), *_steps(data), *_trained(data)]
    rows = [row for row in every if row.kind]
    if not rows:
        return None
    shown = every[:MOST_ROWS]
    while not shown[-1].kind:
        shown.pop()
    height = TOP_IN + BOTTOM_IN + ROW_IN * len(shown)
    kinds = dict.fromkeys(row.kind for row in shown if row.kind)
    left = len(rows) - sum(bool(row.kind) for row in shown)
    more = f" {style.counted(left, 'row')} more stand in the sections below." if left else ""
    return Picture(
        "headline",
        "Speed-up over dense, and what it costs" if TRAINED in kinds else "Speed-up over dense",
        caption(
            finding(rows),
            f"Right of 1× is faster; {'; '.join(READING[kind] for kind in kinds)}.{more}",
            "; ".join(_measured(data, kinds)),
        ),
        height,
        partial(_draw, height_in=height, rows=shown),
    )


def finding(rows: Sequence[Strip]) -> str:
    """Return how many rows lie beyond 1 with all of their bar."""
    up = sum(row.low > 1 for row in rows)
    down = sum(row.high < 1 for row in rows)
    return (
        f"{up} of {style.counted(len(rows), 'row')} are faster than dense over the whole bar, "
        f"{down} slower over the whole bar."
    )


def _measured(data: ReportData, kinds: dict[str, None]) -> Iterator[str]:
    if KERNELS in kinds:
        yield from dict.fromkeys(commands.sweep(key) for key in data.contexts())
    if STEPS in kinds:
        rows = step_rows(data.steps)
        yield commands.first_of([commands.step(r) for r in records(rows[rows["speedup"].notna()])])
    if TRAINED in kinds:
        yield from dict.fromkeys(commands.training(data, key) for key in data.arm_contexts())


def _kernels(data: ReportData) -> Iterator[Strip]:
    for key in data.contexts():
        rows = [row for row in ours_by_density(data, key) if row["cells"]]
        if rows:
            yield Strip(data.label(key, short=True) or "Kernels, forward + backward")
        for row in rows:
            ends = (row["speedup"], row["speedup_min"], row["speedup_max"])
            beside = f"n = {row['cells']}"
            yield Strip(style.percent(1 - row["density"]), KERNELS, *ends, beside)


def _steps(data: ReportData) -> Iterator[Strip]:
    rows = labelled(step_rows(data.steps))
    for row in records(rows[rows["speedup"].notna()]):
        yield Strip(f"Whole step: {row['label']}")
        ends = (row["speedup"], row["speedup_low"], row["speedup_high"])
        yield Strip(style.percent(1 - row["density"]), STEPS, *ends)


def _trained(data: ReportData) -> Iterator[Strip]:
    for key in data.arm_contexts():
        arms = pick(data.summary, [*ACCURACY_CONTEXT, "arm"], (*key, OUR_ARM))
        rows = records(
            arms[arms["step_n"] > 0].sort_values(["pattern", "density"], ascending=False)
        )
        if rows:
            where = data.label(key, short=True) or f"{key[2]} on {data.images(key)}"
            yield Strip(f"Trained: {where}")
        for row in rows:
            ends = (row["step_speedup"], row["step_low"], row["step_high"])
            yield Strip(
                style.percent(1 - row["density"]), TRAINED, *ends, accuracy_points(data, row)
            )


def _draw(figure: FigureBase, height_in: float, rows: Sequence[Strip]) -> None:
    right = RIGHT_IN + (0.75 if any(row.kind == TRAINED for row in rows) else 0)
    width = style.WIDTH_IN - LEFT_IN - right
    axes = place(figure, height_in, LEFT_IN, BOTTOM_IN, width, height_in - TOP_IN - BOTTOM_IN)
    axes.grid(axis="y", visible=False)
    ends = [end for row in rows for end in (row.value, row.low, row.high)]
    style.speedup_axis(axes.xaxis, ends)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    for y, row in enumerate(rows):
        if row.kind:
            _point(axes, y, row)
        else:
            _heading(axes, y, row.name)
    places = [y for y, row in enumerate(rows) if row.kind]
    axes.set_yticks(places, [rows[y].name for y in places])
    axes.tick_params(axis="y", length=0)
    axes.set_ylabel("sparsity", va="center")
    axes.yaxis.set_label_coords((0.12 - LEFT_IN) / width, 0.5)
    axes.set_xlabel("speed-up over dense (×, logarithmic)")


def _point(axes: Axes, y: int, row: Strip) -> None:
    colour = style.OURS_COLOUR
    if not math.isnan(row.low):
        axes.plot([row.low, row.high], [y, y], color=colour, linewidth=1.6, alpha=0.55)
    axes.plot(row.value, y, marker="o", color=colour, markersize=5)
    text = style.times(row.value) + (f"  {row.beside}" if row.beside else "")
    axes.annotate(
        text, (1.0, y), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", va="center", fontsize=style.LEAST_PT,
    )  # fmt: skip


def _heading(axes: Axes, y: int, name: str) -> None:
    """Write what the rows below are, over the whole width."""
    room = (style.WIDTH_IN - 0.35) * 72
    axes.annotate(
        style.clipped(name, room, style.LEAST_PT), (0.0, y), xycoords=("axes fraction", "data"),
        xytext=(-LEFT_IN * 72 + 24, 0), textcoords="offset points", va="center",
        fontsize=style.LEAST_PT, color=style.FAINT,
        bbox={"facecolor": style.PAPER, "edgecolor": "none", "pad": 1.0},
    )  # fmt: skip
