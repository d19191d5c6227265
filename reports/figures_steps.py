"""Whole training steps as pictures: speed-ups with their intervals, and where the time goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bench.frames import Record, records
from bench.step_table import (
    BACKWARD,
    DGRAD,
    ELEMENTWISE,
    FPROP,
    KINDS,
    NORM,
    OPTIMIZER,
    OTHER,
    PERMUTATION,
    SIDES,
    UNATTRIBUTED,
    WGRAD,
)
from reports import commands, style
from reports.picture import Picture, caption, place

COLOURS = {  # the convolutions in shades of one colour: they are one kind of work
    FPROP: "#0072B2",
    DGRAD: "#3E97CB",
    WGRAD: "#86BFE2",
    BACKWARD: "#5FA9D5",
    NORM: style.PALETTE[1],
    ELEMENTWISE: style.PALETTE[2],
    OPTIMIZER: style.PALETTE[3],
    PERMUTATION: style.INK,
    OTHER: style.FAINT,
    UNATTRIBUTED: style.RULE,
}
ROW_IN, LEFT_IN, RIGHT_IN, TOP_IN, BOTTOM_IN = 0.42, 0.75, 0.6, 0.34, 0.48
BAR_IN, NAME_IN, LEGEND_IN = 0.2, 0.22, 0.75
MOST = 14  # comparisons a picture: it stands on one page


def step_pictures(rows: pd.DataFrame, shares: pd.DataFrame) -> list[Picture]:
    """Return the pictures of what is there, maybe none; more where one page is too short.

    Args:
        rows: of ``bench.step_table.step_rows``, with a column ``label``. shares: its share_rows.
    """
    timed = records(rows[rows["speedup"].notna()])
    pictures = [
        _speedups(number, timed[at : at + MOST])
        for number, at in enumerate(range(0, len(timed), MOST), 1)
    ]
    for (model, batch), group in rows[rows["speedup"].notna()].groupby(["model", "batch"]):
        there = [r for r in records(group) if (shares["run_id"] == r["run_id"]).any()]
        for at in range(0, len(there), MOST // 2):
            part = there[at : at + MOST // 2]
            name = f"steps-shares-{model}-{batch}" + (f"-{at}" if at else "")
            pictures.append(_taken_apart(name, f"{model}, batch {batch}", part, shares))
    return pictures


def _speedups(number: int, rows: Sequence[Record]) -> Picture:
    height = TOP_IN + BOTTOM_IN + ROW_IN * len(rows)
    return Picture(
        f"steps-speedup-{number}",
        "Whole training steps: dense over block-sparse",
        caption(
            finding(rows),
            "A point is the geometric mean over trials of fresh processes that took turns, its bar "
            "the 95 % interval over trials; open where it is noisy. The tick is Amdahl's bound: "
            "what shrinking the convolutions that became sparse to their density would give.",
            commands.first_of([commands.step(row) for row in rows]),
        ),
        height,
        partial(_draw_speedups, height_in=height, rows=rows),
    )


def finding(rows: Sequence[Record]) -> str:
    """Return how many steps are faster, and the extremes."""
    faster = sum(row["speedup_low"] > 1 for row in rows)
    slower = sum(row["speedup_high"] < 1 for row in rows)
    best, worst = (pick(rows, key=lambda r: r["speedup"]) for pick in (max, min))
    told = f"{style.times(best['speedup'])} ({best['label']})"
    if len(rows) > 1:
        told = f"most {told}; least {style.times(worst['speedup'])} ({worst['label']})"
    return (
        f"{faster} of {style.counted(len(rows), 'comparison')} faster than dense beyond the "
        f"interval, {slower} slower: {told}."
    )


def _draw_speedups(figure: FigureBase, *, height_in: float, rows: Sequence[Record]) -> None:
    axes = _axes(figure, height_in, TOP_IN, BOTTOM_IN)
    names = ("speedup", "speedup_low", "speedup_high", "amdahl_bound")
    style.speedup_axis(axes.xaxis, [row[name] for row in rows for name in names])
    for y, row in enumerate(rows):
        low, high = row["speedup_low"], row["speedup_high"]
        colour = style.OURS_COLOUR
        if not math.isnan(low):
            axes.plot([low, high], [y, y], color=colour, linewidth=1.6)
        face = style.PAPER if row["noisy"] else colour
        axes.plot(row["speedup"], y, marker="o", color=colour, markerfacecolor=face, markersize=6)
        if not math.isnan(row["amdahl_bound"]):
            axes.plot(row["amdahl_bound"], y, marker="|", color=style.PALETTE[1], markersize=12,
                      markeredgewidth=1.6)  # fmt: skip
        axes.annotate(
            style.times(row["speedup"]), (1.0, y), xycoords=("axes fraction", "data"),
            xytext=(4, 0), textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip
    for y, row in enumerate(rows):
        _name(axes, y - 0.3, row["label"])
    axes.set_ylim(len(rows) - 0.6, -0.6)
    _ticks(axes, list(range(len(rows))), [style.percent(1 - row["density"]) for row in rows])
    axes.set_ylabel("sparsity")
    axes.set_xlabel("speed-up of a whole training step over dense (×)")
    handles = [
        Line2D([], [], color=style.OURS_COLOUR, marker="o", label="measured, 95 %"),
        Line2D([], [], color=style.PALETTE[1], marker="|", linestyle="", markersize=10,
               markeredgewidth=1.6, label="Amdahl's bound"),
    ]  # fmt: skip
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)


def _taken_apart(
    name: str, what: str, rows: Sequence[Record], shares: pd.DataFrame
) -> Picture:  # fmt: skip
    height = LEGEND_IN + BOTTOM_IN + (2 * BAR_IN + NAME_IN) * len(rows)
    return Picture(
        name,
        f"Where the time of a step goes: {what}",
        caption(
            _shares_finding(rows, shares),
            "A bar is the median step as it was timed, split by torch.profiler's shares: own time "
            "of operators on a CPU, kernels on CUDA. Unattributed is time in which none ran.",
            commands.first_of([commands.step(row) for row in rows]),
        ),
        height,
        partial(_draw_shares, height_in=height, rows=rows, shares=shares),
    )


def _shares_finding(rows: Sequence[Record], shares: pd.DataFrame) -> str:
    row = max(rows, key=lambda r: r["speedup"])
    mine = shares[shares["run_id"] == row["run_id"]]
    told = []
    for side in SIDES:
        part = mine[(mine["side"] == side) & mine["kind"].str.startswith("convolution")]
        told.append(
            f"{style.duration(part['seconds'].sum())} ({100 * part['share'].sum():.0f} %) {side}"
        )
    return f"Convolutions take {' and '.join(told)} ({row['label']})."


def _draw_shares(
    figure: FigureBase, *, height_in: float, rows: Sequence[Record], shares: pd.DataFrame
) -> None:
    axes = _axes(figure, height_in, LEGEND_IN, BOTTOM_IN)
    seen: dict[str, None] = {}
    labels, places = [], []
    for number, row in enumerate(rows):
        for offset, side in enumerate(SIDES):
            y = number * (2 * BAR_IN + NAME_IN) + offset * BAR_IN
            end = _bar(axes, y, shares[(shares["run_id"] == row["run_id"])
                                       & (shares["side"] == side)], seen)  # fmt: skip
            _beside(axes, style.duration(end / 1e3), end, y)
            labels.append(side)
            places.append(y)
        _name(axes, number * (2 * BAR_IN + NAME_IN) - 0.95 * BAR_IN, row["own_label"])
    axes.set_xlim(0, axes.get_xlim()[1] * 1.06)
    axes.set_ylim(places[-1] + BAR_IN * 0.75, -BAR_IN - 0.5 * NAME_IN)
    _ticks(axes, places, labels)
    axes.set_xlabel("one training step (ms)")
    axes.set_ylabel("side")
    handles = [Patch(**_look(k), label=k) for k in (*KINDS, UNATTRIBUTED) if k in seen]
    figure.legend(
        handles=handles, loc="upper left", ncols=3, bbox_to_anchor=(0.01, 1),
        fontsize=style.LEAST_PT, columnspacing=1.2, handlelength=1.2,
    )  # fmt: skip


def _beside(axes: Axes, text: str, x: float, y: float) -> None:
    place_of: dict[str, Any] = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
    axes.annotate(text, (x, y), fontsize=style.LEAST_PT, **place_of)


def _bar(axes: Axes, y: float, part: pd.DataFrame, seen: dict[str, None]) -> float:
    """Draw one stacked bar; return its end in ms."""
    at = 0.0
    for kind in (*KINDS, UNATTRIBUTED):
        width = 1e3 * float(part.loc[part["kind"] == kind, "seconds"].sum())
        if width > 0:
            axes.barh(y, width, left=at, height=0.86 * BAR_IN, linewidth=0.4, **_look(kind))
            seen[kind] = None
        at += width
    return at


def _look(kind: str) -> dict[str, Any]:
    look: dict[str, Any] = {"facecolor": COLOURS[kind], "edgecolor": style.PAPER}
    return look | ({"hatch": "////"} if kind == BACKWARD else {})  # two kinds in one


def _axes(figure: FigureBase, height_in: float, top_in: float, bottom_in: float) -> Axes:
    width = style.WIDTH_IN - LEFT_IN - RIGHT_IN
    axes = place(figure, height_in, LEFT_IN, bottom_in, width, height_in - top_in - bottom_in)
    axes.grid(axis="y", visible=False)
    return axes


def _name(axes: Axes, y: float, text: str) -> None:
    """Write what a row is above it, from the left edge of the axes."""
    room = (style.WIDTH_IN - LEFT_IN - 0.1) * 72
    axes.annotate(
        style.clipped(text, room, style.LEAST_PT), (0, y), xycoords=("axes fraction", "data"),
        xytext=(4, 0), textcoords="offset points", va="center", fontsize=style.LEAST_PT,
        color=style.FAINT, bbox={"facecolor": style.PAPER, "edgecolor": "none", "pad": 0.6},
        zorder=2.2,
    )  # fmt: skip


def _ticks(axes: Axes, places: Sequence[float], labels: Sequence[Any]) -> None:
    axes.set_yticks(list(places), [str(text) for text in labels])
    axes.tick_params(axis="y", length=0)
