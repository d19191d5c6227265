"""The pictures of the kernels, context by context; speed-up against sparsity is drawn here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from bench.frames import Record, groups, records, stacked
from bench.records import OURS, REFERENCE_IMPL
from bench.table import ALL, CONTEXT
from reports import commands, findings, style
from reports.data import Key, ReportData, pick
from reports.figures_layers import layer_pictures
from reports.figures_means import draw_heat, draw_implementations, heat_height_in, slots_height_in
from reports.picture import (
    NOT_MEASURED,
    PANEL_TITLES,
    PANELS,
    Picture,
    caption,
    empty_panel,
    grid,
    segments,
)

ENDS = ["speedup", "speedup_low", "speedup_high"]
LINES_IN, LEFT_IN, LABEL_PT = 4.0, 0.68, 8.0
PANEL_IN = 1.92  # wide, of the grid
FAINT_LINE: dict[str, Any] = {"color": style.FAINT, "linewidth": 0.5, "alpha": 0.4}


def kernel_pictures(data: ReportData) -> list[Picture]:
    """Return the figures of every context that has a speed-up, context by context."""
    pictures: list[Picture] = []
    for number, key in enumerate(data.contexts(), 1):
        pictures += _context_pictures(data, key, number)
    return pictures


def _context_pictures(data: ReportData, key: Key, number: int) -> Iterator[Picture]:
    cover = pick(data.coverage, CONTEXT, key)
    if not cover["cells"].any():
        return
    ours = _layer_speedups(data, key)
    if len(ours):
        yield _lines_picture(data, key, ours, number)
        yield from layer_pictures(data, key, ours[ours["pass"] == ALL], number)
        yield _heat_picture(data, key, cover, number)
    if set(cover["impl"]) - {OURS, REFERENCE_IMPL}:
        yield _implementations_picture(data, key, cover, number)


def _lines_picture(data: ReportData, key: Key, ours: pd.DataFrame, number: int) -> Picture:
    cover = pick(data.coverage, [*CONTEXT, "impl", "block"], (*key, OURS, ALL))
    return Picture(
        f"speedup-sparsity-{number}",
        f"Speed-up against sparsity: {data.label(key)}",
        caption(
            findings.layers_finding(data, key),
            f"The strong line is the geometric mean of {OURS} over layers and blocks; a faint one "
            "is one layer and block, its bars 95 % intervals, and the fastest and the slowest at "
            "the highest sparsity are named; the dotted line is the ratio of multiplications, "
            "1 / density.",
            commands.sweep(key),
        ),
        LINES_IN,
        partial(_draw_lines, ours=ours, means=cover),
    )


def _heat_picture(data: ReportData, key: Key, cover: pd.DataFrame, number: int) -> Picture:
    tiles = cover[(cover["impl"] == OURS) & (cover["block"] != ALL)]
    height = heat_height_in(tiles)
    return Picture(
        f"block-sparsity-{number}",
        f"Block against sparsity: {data.label(key)}",
        caption(
            findings.heat_finding(data, key),
            f"A tile is the geometric mean speed-up of {OURS} over the layers measured, n of "
            "them; purple is faster than dense, orange slower, hatched not measured.",
            commands.sweep(key),
        ),
        height,
        partial(draw_heat, height_in=height, tiles=tiles),
    )


def _implementations_picture(
    data: ReportData, key: Key, cover: pd.DataFrame, number: int
) -> Picture:
    bars = cover[(cover["block"] == ALL) & (cover["impl"] != REFERENCE_IMPL)]
    height = slots_height_in(bars)
    return Picture(
        f"implementations-{number}",
        f"Every implementation: {data.label(key)}",
        caption(
            findings.baseline_finding(data, key),
            "A point is a geometric mean over layers and blocks at one sparsity, its bar the "
            "range from the slowest to the fastest, the number at the right how many there are.",
            commands.sweep(key),
        ),
        height,
        partial(draw_implementations, height_in=height, bars=bars),
    )


def _layer_speedups(data: ReportData, key: Key) -> pd.DataFrame:
    """Return our speed-ups of single passes and of all three, those that exist."""
    parts = [
        pick(frame, [*CONTEXT, "impl"], (*key, OURS))
        for frame in (data.rows, data.totals.assign(**{"pass": ALL}))
    ]
    columns = ["layer", "shape", "block", "recipe_seed", "density", "pass"]
    return stacked(parts, [*columns, *ENDS]).dropna(subset="speedup")


def _draw_lines(figure: FigureBase, ours: pd.DataFrame, means: pd.DataFrame) -> None:
    panels = grid(figure, LINES_IN, left=LEFT_IN, top=0.3, bottom=0.45)
    for name, axes in zip(PANELS, panels, strict=True):
        axes.set_title(PANEL_TITLES[name], loc="left")
        part = ours[ours["pass"] == name]
        if part.empty:
            empty_panel(axes, NOT_MEASURED)
            continue
        style.speedup_axis(axes.yaxis, [v for end in ENDS for v in ours[end]])
        _draw_panel(axes, part, set(ours["density"]))
        _draw_mean(axes, means[(means["pass"] == name) & (means["cells"] > 0)])
        _name_extremes(axes, part)


def _draw_panel(axes: Axes, part: pd.DataFrame, densities: set[float]) -> None:
    style.sparsity_axis(axes, densities, PANEL_IN)
    ideal = sorted(densities)
    axes.plot(ideal, [1 / d for d in ideal], color=style.FAINT, linestyle=":", linewidth=0.9)
    lines, bars = [], []
    found = list(groups(part, ["layer", "block", "shape", "recipe_seed"]))
    for number, (_, group) in enumerate(found):
        line = group.sort_values("density")
        # side by side, so that equal speed-ups do not hide each other
        aside = 2 ** (0.14 * (0.5 - number / max(len(found) - 1, 1)))
        x = line["density"].to_numpy() * aside
        lines.append(list(zip(x, line["speedup"], strict=True)))
        for place, low, high in zip(x, line["speedup_low"], line["speedup_high"], strict=True):
            bars.append(((place, low), (place, high)))
    segments(axes, lines, **FAINT_LINE)
    segments(axes, bars, **FAINT_LINE)
    if len(found) > 1 or len(part) == 1:
        points = [spot for line in lines for spot in line]
        axes.plot(*zip(*points, strict=True), ".", color=style.FAINT, markersize=2, alpha=0.5)
    axes.set_xlabel("sparsity (% of weights dropped)")
    axes.set_ylabel("speed-up over dense (×)")


def _draw_mean(axes: Axes, means: pd.DataFrame) -> None:
    line = means.sort_values("density")
    axes.plot(
        line["density"].to_numpy(), line["speedup"].to_numpy(), color=style.OURS_COLOUR,
        marker="o", linewidth=1.8, markersize=4.5, zorder=3,
    )  # fmt: skip


def _name_extremes(axes: Axes, part: pd.DataFrame) -> None:
    """Name the fastest above and the slowest below everything, led to at the highest sparsity."""
    low, high = axes.get_ylim()
    span = math.log(high / low)
    axes.set_ylim(low * math.exp(-0.1 * span), high * math.exp(0.1 * span))  # room for names
    least = part["density"].min()
    ordered = records(part[part["density"] == least].sort_values(["speedup", "layer", "block"]))
    ends = [("most", ordered[-1], 0.985, "top")]
    if len(ordered) > 1:
        ends.append(("least", ordered[0], 0.015, "bottom"))
    for word, row, height, side in ends:
        text = style.clipped(f"{word}: {_short(row)}", PANEL_IN * 72, LABEL_PT)
        axes.text(
            1.0, height, text, transform=axes.transAxes, ha="right", va=side, fontsize=LABEL_PT,
            zorder=4,
        )  # fmt: skip
        start = height + (0.08 if side == "bottom" else -0.08)
        axes.annotate(
            "", (least, row["speedup"]), xytext=(least, start),
            textcoords=axes.get_xaxis_transform(), zorder=3.5,
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": style.INK, "shrinkB": 0},
        )  # fmt: skip
        axes.plot(least, row["speedup"], ".", color=style.INK, markersize=4, zorder=3.5)


def _short(row: Record) -> str:
    return f"{row['layer']}, {row['block']}"
