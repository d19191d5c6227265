"""Rooflines: rates against operations a byte, under the ceilings measured in the same run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.frames import groups, records
from bench.records import OURS
from bench.table import CONTEXT, PASSES
from reports import commands, style
from reports.data import Key, ReportData, pick
from reports.picture import (
    NOT_MEASURED,
    PANEL_TITLES,
    Picture,
    caption,
    empty_panel,
    grid,
    segments,
)

TOP_IN, BOTTOM_IN, LEFT_IN = 0.55, 0.45, 0.72
PANEL_IN = 1.65  # high
LEGEND_COLUMNS = 4
MARKS = {"fprop": "o", "dgrad": "s", "wgrad": "^"}


def roofline_picture(data: ReportData, key: Key, number: int) -> Picture | None:
    """Return the picture of a context; None where no cell has a floor to be held against."""
    rows = pick(data.rows, CONTEXT, key)
    rows = rows[(rows["status"] == "ok") & rows["attainment"].notna() & (rows["least_bytes"] > 0)]
    if rows.empty:
        return None
    near = pick(data.attainment, CONTEXT, key)
    ceiling = records(pick(data.ceilings, CONTEXT, key))[0]
    legend_in = 0.18 * math.ceil(rows["impl"].nunique() / LEGEND_COLUMNS)
    height = 2 * PANEL_IN + 0.78 + TOP_IN - 0.3 + legend_in + BOTTOM_IN
    roof = (float(ceiling["flops_per_s"]), float(ceiling["bytes_per_s"]))
    return Picture(
        f"roofline-{number}",
        f"Roofline: {data.label(key)}",
        caption(
            finding(near),
            "A point is one cell: the operations that its implementation does, by its time "
            "(bar: 95 % interval) and by the least bytes that a pass must move. Lines are the "
            "measured ceilings of matrix rate and copy; in mode hot or sustained data may lie in "
            "caches, and points above the slope. Attainment: geometric mean, bar from least to "
            "most.",
            commands.sweep(key),
        ),
        height,
        partial(_draw, height_in=height, rows=rows, near=near, roof=roof),
    )


def finding(near: pd.DataFrame) -> str:
    """Return our attainment in each pass."""
    mine = {r["pass"]: r for r in records(near[near["impl"] == OURS]) if r["cells"]}
    if not mine:
        return f"No cell of {OURS} has a least time to be held against."
    told = [f"{name} {100 * mine[name]['attainment']:.0f} %" for name in PASSES if name in mine]
    return f"Of what the ceilings allow {OURS} attains in {style.listed(told)} (means)."


def _draw(
    figure: FigureBase, *, height_in: float, rows: pd.DataFrame, near: pd.DataFrame,
    roof: tuple[float, float],
) -> None:  # fmt: skip
    impls = sorted(set(rows["impl"]), key=lambda name: (name != OURS, name))
    looks = style.colours(impls)
    top = height_in - 2 * PANEL_IN - 0.78 - BOTTOM_IN
    panels = grid(figure, height_in, left=LEFT_IN, top=top, bottom=BOTTOM_IN, right=0.2)
    x = (rows["flops"] / rows["least_bytes"]).to_numpy(dtype=float)
    name_of_unit, unit = ("TFLOP/s", 1e12) if roof[0] >= 1e13 else ("GFLOP/s", 1e9)
    for name, axes in zip((*PASSES, ""), panels, strict=True):
        if not name:
            _attainment(axes, near, impls, looks)
            continue
        axes.set_title(PANEL_TITLES[name], loc="left")
        part = rows[rows["pass"] == name]
        if part.empty:
            empty_panel(axes, NOT_MEASURED)
            continue
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(x.min() / 1.4, x.max() * 1.4)
        rates = rows["flops"] / rows["high_s"], rows["flops"] / rows["low_s"]
        axes.set_ylim(rates[0].min() / unit / 1.4, max(roof[0], rates[1].max()) / unit * 1.6)
        _points(axes, part, looks, unit)
        _roof(axes, roof, unit)
        axes.set_xlabel("operations a byte (FLOP/B)")
        axes.set_ylabel(f"rate ({name_of_unit})")
        for axis in (axes.xaxis, axes.yaxis):
            _plain(axis)
    _legend(figure, impls, looks)


def _points(axes: Axes, part: pd.DataFrame, looks: dict[str, str], unit: float) -> None:
    for (impl, name), group in groups(part, ["impl", "pass"]):
        flops = group["flops"].to_numpy(dtype=float)
        x = flops / group["least_bytes"].to_numpy(dtype=float)
        low, high = (flops / unit / group[end].to_numpy(dtype=float) for end in ("high_s", "low_s"))
        colour = looks[str(impl)]
        bars = [((at, a), (at, b)) for at, a, b in zip(x, low, high, strict=True)]
        segments(axes, bars, color=colour, linewidth=0.7, alpha=0.7)
        y = flops / unit / group["median_s"].to_numpy(dtype=float)
        axes.plot(x, y, MARKS[str(name)], color=colour, markersize=2.8, alpha=0.8)


def _roof(axes: Axes, roof: tuple[float, float], unit: float) -> None:
    """Draw both ceilings, the copy's as far as it lies below the other."""
    flops, moved = (each / unit for each in roof)
    low, high = axes.get_xlim()
    axes.plot([low, high], [flops, flops], color=style.INK, linewidth=1.0)
    if not math.isnan(moved):
        x = np.geomspace(low, high, 64)
        y = x * moved
        axes.plot(x[y <= flops], y[y <= flops], color=style.INK, linewidth=1.0, linestyle="--")


def _attainment(
    axes: Axes, near: pd.DataFrame, impls: Sequence[str], looks: dict[str, str]
) -> None:
    """Draw a row an implementation, a mark a pass."""
    axes.set_title("● fprop   ■ dgrad   ▲ wgrad", loc="left")
    axes.set_xlim(0, 100 * max(1.0, float(near["most"].max())))
    axes.set_ylim(len(impls) - 0.4, -0.6)
    for row in records(near[near["cells"] > 0]):
        y = impls.index(row["impl"]) + 0.27 * (PASSES.index(row["pass"]) - 1)
        colour = looks[row["impl"]]
        axes.plot([100 * row["least"], 100 * row["most"]], [y, y], color=colour, linewidth=0.9)
        axes.plot(100 * row["attainment"], y, MARKS[row["pass"]], color=colour, markersize=3.6)
    axes.set_yticks(range(len(impls)), [""] * len(impls))
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("attainment (% of the ceiling)")
    axes.set_ylabel("implementation")


def _plain(axis: Axis) -> None:
    """Label decades, and parts of them where there are fewer than two; no powers of ten."""
    axes, low_high = axis.axes, axis.get_view_interval()
    decades = math.log10(low_high[1] / low_high[0])
    axis.set_major_locator(
        LogLocator(subs=(1.0,) if decades > 2.2 else (1.0, 3.0) if decades > 1 else (1.0, 2.0, 5.0))
    )
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.6g}"))
    axis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)


def _legend(figure: FigureBase, impls: Sequence[str], looks: dict[str, str]) -> None:
    handles = [
        Line2D([], [], color=looks[n], marker="o", linestyle="none", markersize=4, label=n)
        for n in impls
    ]
    figure.legend(
        handles=handles, loc="upper left", ncols=LEGEND_COLUMNS, columnspacing=1.2,
        handletextpad=0.2, borderaxespad=0.1, labelspacing=0.2, bbox_to_anchor=(0.02, 1.0),
    )  # fmt: skip
