"""A gate's verdicts as a picture: each cell's head over base, its interval, what would show."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from reports import commands, style
from reports.picture import Picture, caption, place

MOST_CELLS = 48  # of a page; the slowest ones
LOOKS = {  # colour, marker
    "pass": (style.PALETTE[0], "o"),
    "fail": (style.PALETTE[1], "X"),
    "inconclusive": (style.PALETTE[4], "D"),
}
ROW_IN, LEFT_IN, TOP_IN, BOTTOM_IN = 0.17, 2.55, 0.32, 0.45


def gate_picture(verdicts: list[dict[str, Any]], about: dict[str, Any]) -> Picture | None:
    """Return the picture; None where no cell has times."""
    timed = [v for v in verdicts if v["ratio"] is not None and v["kind"] in LOOKS]
    if not timed:
        return None
    shown = sorted(timed, key=lambda v: -v["ratio"])[:MOST_CELLS]
    height = TOP_IN + BOTTOM_IN + ROW_IN * len(shown)
    failed = sum(v["kind"] == "fail" for v in timed)
    finding = (
        f"{failed} of {style.counted(len(timed), 'cell')} slower"
        if failed
        else f"none of {style.counted(len(timed), 'cell')} is slower"
    )
    more = (
        f" The {MOST_CELLS} slowest of {len(timed)} are shown." if len(timed) > MOST_CELLS else ""
    )
    return Picture(
        "gate",
        f"Head over base, cell by cell: {finding}",
        caption(
            f"{finding[0].upper()}{finding[1:]}.",
            "A point is the median trial with its interval (each side 95 %); a tick is the "
            f"smallest slow-down that would have shown.{more}",
            commands.gate(about),
        ),
        height,
        partial(_draw, height_in=height, rows=shown),
    )


def _draw(figure: FigureBase, *, height_in: float, rows: list[dict[str, Any]]) -> None:
    width = style.WIDTH_IN - LEFT_IN - 0.15
    axes = place(figure, height_in, LEFT_IN, BOTTOM_IN, width, height_in - TOP_IN - BOTTOM_IN)
    ends = [e for v in rows for e in (v["low"], v["high"], 1 + (v["margin"] or 0))]
    reach = max(0.04, *(abs(math.log(e)) for e in ends if e > 0)) * 1.08
    axes.set_xscale("log")
    axes.set_xlim(math.exp(-reach), math.exp(reach))
    axes.axvline(1.0, color=style.INK, linewidth=0.8)
    for y, verdict in enumerate(rows):
        colour, marker = LOOKS[verdict["kind"]]
        axes.plot([verdict["low"], verdict["high"]], [y, y], color=colour, linewidth=1.4)
        axes.plot(verdict["ratio"], y, color=colour, marker=marker, markersize=4.5)
        if verdict["margin"] is not None:
            axes.plot(1 + verdict["margin"], y, color=style.FAINT, marker="|", markersize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)))
    names = [style.clipped(_name(v["label"]), (LEFT_IN - 0.35) * 72, style.LEAST_PT) for v in rows]
    axes.set_yticklabels(names)
    axes.set_ylabel("cell")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{100 * (x - 1):+.0f} %".replace("+0 %", "0 %"))
    )
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda x, _: ""))
    axes.set_xticks(_ticks(reach))
    axes.set_xlabel("head slower than base by (% of base's time)")
    kinds = list(dict.fromkeys(v["kind"] for v in rows))
    handles = [
        Line2D([], [], color=LOOKS[k][0], marker=LOOKS[k][1], linewidth=1.4, label=k) for k in kinds
    ]
    axes.legend(
        handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.1
    )


def _ticks(reach: float) -> list[float]:
    """Return ratios at round shares, at most some nine of them."""
    span = math.exp(reach) - 1
    step = next((s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5) if span / s <= 4.5), 10)
    low, high = math.exp(-reach), math.exp(reach)
    found = [1 + step * i for i in range(-9, 10)]
    return [t for t in found if low < t < high]


def _name(label: str) -> str:
    """Leave out what all cells of a gate share: suite, device and mode stand in the text."""
    place, *rest = label.split(" ")
    return " ".join([place.split("/", 1)[-1], *rest[:1], *rest[3:-2]])
