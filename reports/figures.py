"""The pictures of the kernels, context by context; speed-up against sparsity is drawn here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D

from bench.frames import groups, stacked
from bench.records import OURS, REFERENCE_IMPL
from bench.table import ALL, CONTEXT
from reports import findings, style
from reports.data import Key, ReportData, pick
from reports.figures_means import draw_heat, draw_implementations, implementation_slots
from reports.picture import (
    NOT_MEASURED,
    PANEL_TITLES,
    PANELS,
    Picture,
    block_order,
    caption,
    empty_panel,
    grid,
)

Look = dict[str, Any]
ENDS = ["speedup", "speedup_low", "speedup_high"]
LEGEND_LINE_IN, LEGEND_COLUMNS = 0.17, 3


def kernel_pictures(data: ReportData) -> list[Picture]:
    """Return the three figures of every context that has a speed-up, context by context."""
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
        yield _heat_picture(data, key, cover, number)
    yield _implementations_picture(data, key, cover, number)


def _lines_picture(data: ReportData, key: Key, ours: pd.DataFrame, number: int) -> Picture:
    height = 5.8 + _legend_in(ours)
    return Picture(
        f"speedup-sparsity-{number}",
        f"Speed-up against sparsity: {data.label(key)}",
        caption(
            findings.layers_finding(data, key),
            f"A line is one layer and block of {OURS}; bars are 95 % intervals; points of one "
            "sparsity stand side by side; the dotted line is the ratio of multiplications, "
            "1 / density.",
        ),
        height,
        partial(_draw_lines, height_in=height, ours=ours),
    )


def _heat_picture(data: ReportData, key: Key, cover: pd.DataFrame, number: int) -> Picture:
    tiles = cover[(cover["impl"] == OURS) & (cover["block"] != ALL)]
    height = 1.75 + 2 * max(0.9, 0.52 * tiles["block"].nunique())
    return Picture(
        f"block-sparsity-{number}",
        f"Block against sparsity: {data.label(key)}",
        caption(
            findings.heat_finding(data, key),
            f"A tile is the geometric mean speed-up of {OURS} over the layers measured, n of "
            "them; purple is faster than dense, orange slower, hatched not measured.",
        ),
        height,
        partial(draw_heat, height_in=height, tiles=tiles),
    )


def _implementations_picture(
    data: ReportData, key: Key, cover: pd.DataFrame, number: int
) -> Picture:
    bars = cover[(cover["block"] == ALL) & (cover["impl"] != REFERENCE_IMPL)]
    height = 1.15 + 0.2 * max(max(implementation_slots(bars).values()) + 1, 4)
    return Picture(
        f"implementations-{number}",
        f"Every implementation: {data.label(key)}",
        caption(
            findings.baseline_finding(data, key),
            "A point is a geometric mean over layers and blocks at one sparsity, its bar the "
            "range from the slowest to the fastest, the number at the right how many there are.",
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


def _series(ours: pd.DataFrame) -> dict[tuple[str, str], Look]:
    """Return the look of each (layer, block): a colour and marker a layer, a dash a block."""
    layers, blocks = _looks(ours)
    pairs = set(zip(ours["layer"], ours["block"], strict=True))
    return {
        (layer, block): layers[layer] | {"linestyle": blocks[block]}
        for layer in layers
        for block in blocks
        if (layer, block) in pairs
    }


def _looks(ours: pd.DataFrame) -> tuple[dict[str, Look], dict[str, str]]:
    """Return colour and marker of each layer, and the dashes of each block."""
    layers: dict[str, Look] = {
        name: {
            "color": style.PALETTE[i % len(style.PALETTE)],
            "marker": style.MARKERS[i % len(style.MARKERS)],
        }
        for i, name in enumerate(sorted(set(ours["layer"])))
    }
    blocks = sorted(set(ours["block"]), key=block_order)
    return layers, {b: style.DASHES[i % len(style.DASHES)] for i, b in enumerate(blocks)}


def _handles(ours: pd.DataFrame) -> list[Line2D]:
    """Return the legend's lines: every layer, then every block."""
    layers, blocks = _looks(ours)
    return [
        *(
            Line2D([], [], label=style.clipped(name, 150, 8), linestyle="none", **look)
            for name, look in layers.items()
        ),
        *(
            Line2D([], [], label=f"block {name}", linestyle=cast(Any, dashes), color=style.INK)
            for name, dashes in blocks.items()
        ),
    ]


def _legend_in(ours: pd.DataFrame) -> float:
    """Return the inches that the legend takes."""
    return LEGEND_LINE_IN * math.ceil(len(_handles(ours)) / LEGEND_COLUMNS) + 0.2


def _draw_lines(figure: FigureBase, height_in: float, ours: pd.DataFrame) -> None:
    panels = grid(figure, height_in, left=0.68, top=0.3, bottom=_legend_in(ours) + 0.45)
    for name, axes in zip(PANELS, panels, strict=True):
        axes.set_title(PANEL_TITLES[name], loc="left")
        part = ours[ours["pass"] == name]
        if part.empty:
            empty_panel(axes, NOT_MEASURED)
            continue
        style.speedup_axis(axes.yaxis, [v for name in ENDS for v in ours[name]])
        _draw_panel(axes, part, _series(ours), set(ours["density"]))
    figure.legend(
        handles=_handles(ours), loc="lower center", ncols=LEGEND_COLUMNS, handlelength=3.2,
        borderaxespad=0.2, labelspacing=0.3, columnspacing=1.5,
    )  # fmt: skip


def _draw_panel(
    axes: Axes,
    part: pd.DataFrame,
    series: dict[tuple[str, str], Look],
    densities: set[float],
) -> None:
    style.sparsity_axis(axes, densities, 2.7)
    ideal = sorted(densities)
    axes.plot(ideal, [1 / d for d in ideal], color=style.FAINT, linestyle=":", linewidth=0.9)
    order = list(series)
    small: Look = {"linewidth": 0.7, "markersize": 3} if len(order) > 12 else {}
    for (layer, block, _, _), group in groups(part, ["layer", "block", "shape", "recipe_seed"]):
        line = group.sort_values("density")
        # side by side, so that equal speed-ups do not hide each other
        aside = 2 ** (0.14 * (0.5 - order.index((layer, block)) / max(len(order) - 1, 1)))
        bars = [line["speedup"] - line["speedup_low"], line["speedup_high"] - line["speedup"]]
        axes.errorbar(
            (line["density"] * aside).to_numpy(), line["speedup"].to_numpy(),
            yerr=[b.clip(lower=0).to_numpy() for b in bars],
            capsize=2, elinewidth=0.8, **small, **series[layer, block],
        )  # fmt: skip
    axes.set_xlabel("sparsity (share of weights dropped)")
    axes.set_ylabel("speed-up over dense")
