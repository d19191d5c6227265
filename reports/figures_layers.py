"""Forward + backward layer by layer: a row a layer, a panel a block, a mark a sparsity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D

from bench.frames import groups, records
from bench.records import OURS
from bench.stats import geometric_mean
from reports import commands, findings, style
from reports.data import Key, ReportData
from reports.picture import Picture, block_order, caption, place, segments

MOST_LAYERS = 32  # a picture: it stands on one page
MOST_BLOCKS = 3  # panels side by side
ROW_IN, TOP_IN, BOTTOM_IN, RIGHT_IN, GAP_IN = 0.17, 0.46, 0.45, 0.1, 0.14
NAME_IN = 1.3
ENDS = ["speedup", "speedup_low", "speedup_high"]


def layer_pictures(data: ReportData, key: Key, ours: pd.DataFrame, number: int) -> list[Picture]:
    """Return the pictures of a context; none where no layer has all three passes.

    Args:
        ours: our speed-ups over all three passes.
    """
    layers = sorted(set(ours["layer"]), key=_order(ours))
    blocks = sorted(set(ours["block"]), key=block_order)
    parts = [
        (layers[at : at + MOST_LAYERS], blocks[across : across + MOST_BLOCKS])
        for across in range(0, len(blocks), MOST_BLOCKS)
        for at in range(0, len(layers), MOST_LAYERS)
    ]
    return [
        _picture(data, key, ours, f"layers-{number}" + (f"-{i}" if i > 1 else ""), *part)
        for i, part in enumerate(parts, 1)
    ]


def _picture(
    data: ReportData, key: Key, ours: pd.DataFrame, name: str, layers: list[str], blocks: list[str]
) -> Picture:
    part = ours[ours["layer"].isin(layers) & ours["block"].isin(blocks)]
    height = TOP_IN + BOTTOM_IN + ROW_IN * len(layers)
    return Picture(
        name,
        f"Layer by layer, forward + backward: {data.label(key)}",
        caption(
            findings.layers_finding(data, key),
            f"A mark is {OURS} on one layer at one sparsity, its bar the 95 % interval (wider, "
            "for it adds the three passes' intervals); no mark: not measured.",
            commands.sweep(key),
        ),
        height,
        partial(_draw, height_in=height, ours=part, layers=layers, blocks=blocks,
                ends=[v for end in ENDS for v in ours[end]]),
    )  # fmt: skip


def _order(ours: pd.DataFrame) -> Callable[[str], tuple[float, str]]:
    """Return the sorting key of layers: the fastest first, by their mean logarithm."""
    means = {
        str(layer): geometric_mean(group["speedup"].to_numpy())
        for (layer,), group in groups(ours, ["layer"])
    }
    return lambda layer: (-means[layer], layer)


def _draw(
    figure: FigureBase, *, height_in: float, ours: pd.DataFrame, layers: Sequence[str],
    blocks: Sequence[str], ends: Sequence[float],
) -> None:  # fmt: skip
    densities = sorted(set(ours["density"]), reverse=True)
    looks = {
        d: (style.PALETTE[i % len(style.PALETTE)], style.MARKERS[i % len(style.MARKERS)])
        for i, d in enumerate(densities)
    }
    width = (style.WIDTH_IN - NAME_IN - RIGHT_IN - GAP_IN * (len(blocks) - 1)) / len(blocks)
    for number, block in enumerate(blocks):
        left = NAME_IN + number * (width + GAP_IN)
        axes = place(figure, height_in, left, BOTTOM_IN, width, height_in - TOP_IN - BOTTOM_IN)
        axes.set_title(f"block {block}", loc="left")
        style.speedup_axis(axes.xaxis, ends, most=9, room_pt=72 * width)
        axes.set_ylim(len(layers) - 0.4, -0.6)
        _marks(axes, ours[ours["block"] == block], list(layers), looks)
        shown = [style.clipped(name, (NAME_IN - 0.3) * 72, 8) for name in layers]
        axes.set_yticks(range(len(layers)), shown if number == 0 else [""] * len(layers))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("speed-up over dense (×)" if width > 1.4 else "speed-up (×)")
        axes.set_ylabel("layer" if number == 0 else "")
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", label=style.percent(1 - d))
        for d, (colour, marker) in looks.items()
    ]
    figure.legend(
        handles=handles, loc="upper left", ncols=7, title="", columnspacing=1.2,
        handletextpad=0.2, borderaxespad=0.1, bbox_to_anchor=(NAME_IN / style.WIDTH_IN, 1.0),
    )  # fmt: skip
    figure.text(
        NAME_IN / style.WIDTH_IN,
        1 - 0.06 / height_in,
        "sparsity:",
        va="top",
        ha="right",
        fontsize=style.LEAST_PT,
    )


def _marks(
    axes: Axes, part: pd.DataFrame, layers: list[str], looks: dict[float, tuple[str, str]]
) -> None:
    for (density,), group in groups(part, ["density"]):
        colour, marker = looks[float(density)]
        rows = records(group)
        # a layer may be there in several shapes or seeds: each has a mark
        y = [layers.index(row["layer"]) for row in rows]
        ends = [(row["speedup_low"], row["speedup_high"]) for row in rows]
        bars = [((low, at), (high, at)) for at, (low, high) in zip(y, ends, strict=True)]
        segments(axes, bars, color=colour, linewidth=1.2)
        axes.plot([r["speedup"] for r in rows], y, marker, color=colour, markersize=4.2)
