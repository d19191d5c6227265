"""Geometric means as pictures: block against sparsity, and every implementation."""

from __future__ import annotations

import math

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import FigureBase
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator

from bench.frames import Record, records
from bench.records import OURS
from bench.table import ALL
from reports import style
from reports.picture import (
    NOT_MEASURED,
    PANEL_TITLES,
    PANELS,
    block_order,
    empty_panel,
    grid,
    name_rows,
    place,
)

NAME_PT = 72  # room for an implementation's name
PANEL_PT = 132.0  # wide, a panel of the grid
SLOT_LEFT_IN, SLOT_TOP_IN, SLOT_BOTTOM_IN, SLOT_GAP_IN = 1.72, 0.28, 0.45, 0.1


def heat_height_in(tiles: pd.DataFrame) -> float:
    """Return the height of :func:`draw_heat`."""
    return 1.6 + 2 * max(0.7, 0.36 * tiles["block"].nunique())


def draw_heat(figure: FigureBase, height_in: float, tiles: pd.DataFrame) -> None:
    blocks = sorted(set(tiles["block"]), key=block_order)
    densities = sorted(set(tiles["density"]), reverse=True)
    logs = [abs(math.log2(v)) for v in tiles["speedup"].dropna()]
    reach = max([*logs, 0.25])
    norm = Normalize(-reach, reach)
    room = PANEL_PT / len(densities) - 2
    for name, axes in zip(
        PANELS, grid(figure, height_in, left=0.72, top=0.3, bottom=0.5), strict=True
    ):
        axes.set_title(PANEL_TITLES[name], loc="left")
        axes.grid(False)
        axes.set_xlim(0, len(densities))
        axes.set_ylim(len(blocks), 0)
        found = {(r["block"], r["density"]): r for r in records(tiles[tiles["pass"] == name])}
        for y, block in enumerate(blocks):
            for x, density in enumerate(densities):
                row = found.get((block, density))
                cells = int(row["cells"]) if row is not None else 0
                value = float(row["speedup"]) if row is not None and cells else math.nan
                _draw_tile(axes, (x, y), value, cells, norm, room)
        axes.set_xticks([i + 0.5 for i in range(len(densities))])
        shown = [style.percent(1 - d) for d in densities]
        if max(style.width_pt(text, style.LEAST_PT) for text in shown) > room - 3:
            shown = [text.removesuffix(" %") for text in shown]
        axes.set_xticklabels(shown)
        axes.set_yticks([i + 0.5 for i in range(len(blocks))], blocks)
        axes.tick_params(length=0)
        axes.set_xlabel("sparsity (% of weights dropped)")
        axes.set_ylabel("block (filters x channels)")


def _draw_tile(
    axes: Axes, corner: tuple[int, int], value: float, cells: int, norm: Normalize, room_pt: float
) -> None:
    size = style.LEAST_PT
    middle = (corner[0] + 0.5, corner[1] + 0.5)
    if math.isnan(value):
        axes.add_patch(
            Rectangle(corner, 1, 1, facecolor="#ececf0", edgecolor="#b4b4bd", hatch="////", lw=0.4)
        )
        return
    shade = matplotlib.colormaps[style.DIVERGING](norm(math.log2(value)))
    red, green, blue, _ = shade
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=shade, edgecolor=style.PAPER, lw=1))
    shapes = (style.times(value), f"{value:.1f}×", f"{value:.0f}×")
    told = next((s for s in shapes if style.width_pt(s, size) <= room_pt), "")
    count = f"n = {cells}"
    text = f"{told}\n{count}" if style.width_pt(count, size) <= room_pt else told
    axes.text(
        *middle, text, ha="center", va="center", fontsize=size, linespacing=1.05,
        color="#ffffff" if dark else "#000000",
    )  # fmt: skip


def slots_height_in(bars: pd.DataFrame) -> float:
    """Return the height of :func:`draw_implementations`."""
    tall = 0.18 * max(max(implementation_slots(bars).values()) + 1, 4)
    return tall + SLOT_TOP_IN + SLOT_BOTTOM_IN


def draw_implementations(figure: FigureBase, height_in: float, bars: pd.DataFrame) -> None:
    slots = implementation_slots(bars)
    impls = list(dict.fromkeys(impl for impl, _ in slots))
    looks = style.colours(impls)
    width = (style.WIDTH_IN - SLOT_LEFT_IN - 0.12 - 3 * SLOT_GAP_IN) / 4
    ends = [*bars["speedup_min"].dropna(), *bars["speedup_max"].dropna(), 1.0]
    room = (max(ends) / min(ends)) ** 0.25  # for the counts at the right edge
    for i, name in enumerate(PANELS):
        left = SLOT_LEFT_IN + i * (width + SLOT_GAP_IN)
        inside = height_in - SLOT_TOP_IN - SLOT_BOTTOM_IN
        axes = place(figure, height_in, left, SLOT_BOTTOM_IN, width, inside)
        axes.set_title(name if name != ALL else "all three", loc="left")
        part = bars[(bars["pass"] == name) & (bars["cells"] > 0)]
        axes.set_ylim(max(slots.values()) + 0.7, -0.7)
        axes.set_xlabel("speed-up (×)")
        if part.empty:
            empty_panel(axes, NOT_MEASURED)
        else:
            style.speedup_axis(axes.xaxis, [*ends, max(ends) * room], most=3, room_pt=72 * width)
            for found in records(part):
                place_y = slots[found["impl"], found["density"]]
                _draw_bar(axes, found, place_y, looks[found["impl"]])
        _label_slots(axes, slots, named=i == 0)
        if i == 0:
            name_rows(axes, "implementation, sparsity", SLOT_LEFT_IN)


def implementation_slots(bars: pd.DataFrame) -> dict[tuple[str, float], float]:
    """Return the height of each (implementation, density): ours first, a gap between them.

    An implementation without any speed-up has one height, under density NaN.
    """
    slots: dict[tuple[str, float], float] = {}
    y = 0.0
    for impl in sorted(set(bars["impl"]), key=lambda n: (n != OURS, n)):
        there = bars[(bars["impl"] == impl) & (bars["cells"] > 0)]
        for density in sorted(set(there["density"]), reverse=True) or [math.nan]:
            slots[impl, density] = y
            y += 1
        y += 0.5
    return slots


def _label_slots(axes: Axes, slots: dict[tuple[str, float], float], *, named: bool) -> None:
    """Draw a grid line a height; with ``named``, write sparsity and implementation left of it."""
    axes.yaxis.set_major_locator(FixedLocator(list(slots.values())))
    axes.tick_params(axis="y", length=0)
    texts = ["no time" if math.isnan(d) else style.percent(1 - d) for _, d in slots]
    axes.set_yticklabels(texts if named else [""] * len(slots))
    heights: dict[str, list[float]] = {}
    for (impl, _), y in slots.items():
        heights.setdefault(impl, []).append(y)
    for impl, places in heights.items() if named else ():
        lines = style.wrap(impl, NAME_PT, 8)
        if len(lines) > len(places):  # one line where one fits
            lines = [style.clipped(impl, NAME_PT, 8)]
        axes.annotate(
            "\n".join(lines), (0, min(places)), xycoords=("axes fraction", "data"),
            xytext=(-SLOT_LEFT_IN * 72 + 4, 4), textcoords="offset points", va="top", fontsize=8,
            fontweight="bold" if impl == OURS else "normal",
        )  # fmt: skip


def _draw_bar(axes: Axes, row: Record, y: float, colour: str) -> None:
    """Draw one geometric mean, its range, and at the right edge how many there are."""
    axes.plot([row["speedup_min"], row["speedup_max"]], [y, y], color=colour, linewidth=1.4)
    axes.plot(row["speedup"], y, color=colour, marker="o" if row["impl"] == OURS else "s")
    axes.annotate(
        str(row["cells"]), (1, y), xycoords=("axes fraction", "data"), xytext=(-2, 0),
        textcoords="offset points", ha="right", va="center", color=style.FAINT,
        fontsize=style.LEAST_PT, bbox={"facecolor": style.PAPER, "edgecolor": "none", "pad": 0.8},
    )  # fmt: skip
