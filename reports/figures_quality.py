"""Retained score as pictures: against density, block and balance; and the time it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.frames import groups, records
from bench.quality.plan import REAL, SYNTHETIC
from reports import commands, style
from reports.picture import Picture, caption, place

SURVIVE = (
    "aligned", "shuffled", "grouped", "sorted", "dsb_kernel", "hrbp2", "hrbp", "hrbp2_pp", "hrbp_pp"
)  # fmt: skip
BOUNDS = ("unstructured", "channel")
LOOKS: dict[str, tuple[str, str, str]] = {  # colour, dash, marker
    "hrbp2": (style.PALETTE[0], "-", "o"),
    "hrbp2_pp": (style.PALETTE[0], "--", "o"),
    "hrbp": (style.PALETTE[1], "-", "s"),
    "hrbp_pp": (style.PALETTE[1], "--", "s"),
    "sorted": (style.PALETTE[2], "-", "^"),
    "dsb_kernel": (style.PALETTE[3], "-", "D"),
    "aligned": (style.PALETTE[4], "-", "v"),
    "shuffled": (style.PALETTE[4], ":", "v"),
    "grouped": (style.PALETTE[5], ":", "P"),
    "elementwise": (style.PALETTE[2], "--", "X"),
    "dsb": (style.PALETTE[3], "--", "D"),
    "ovw": (style.PALETTE[5], "--", "<"),
    "structure_lth": (style.PALETTE[4], "-.", ">"),
    "two_four": (style.FAINT, "-", "*"),
    "unstructured": (style.INK, ":", "p"),
    "channel": (style.INK, "-.", "h"),
}
BALANCES = ("none", "filters", "both")
LEGEND_IN, PANEL_IN, GAP_IN = 0.9, 1.2, 0.68
MEAN_HEIGHT_IN, MEAN_PANEL_IN = 3.65, 2.0
MEAN_LEFT_IN = 0.65  # numbers of four digits, and the label


def quality_pictures(rows: pd.DataFrame) -> list[Picture]:
    """Return the figures of what is there, maybe none."""
    ok = rows[rows["status"] == "ok"]
    if ok.empty:
        return []
    plain = ok[ok["balance"] == "none"]
    pictures = [*_density_pictures(plain), *_block_pictures(plain), *_balance_pictures(ok)]
    return [*pictures, _time_picture(plain)]


def _there(rows: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    found = set(rows["method"])
    return [m for m in methods if m in found]


def _rivals(rows: pd.DataFrame) -> list[str]:
    """Return the masks without blocks in dgrad, two of ours beside them."""
    others = [m for m in LOOKS if m not in SURVIVE and m not in BOUNDS]
    found = _there(rows, others)
    return [*_there(rows, ("hrbp2", "hrbp2_pp", "hrbp_pp")), *found] if found else []


def _density_pictures(rows: pd.DataFrame) -> Iterator[Picture]:
    densities = rows.groupby("block")["density"].nunique()
    if densities.max() < 2:
        return
    block = int(max(densities[densities == densities.max()].index, key=lambda b: -abs(b - 32)))
    part = rows[rows["block"] == block]
    names = [n for n in (*SYNTHETIC, *REAL) if n in set(part["scores"])]
    names += sorted(set(part["scores"]) - set(names))
    lines = -(-len(names) // 2)
    height = LEGEND_IN + lines * (PANEL_IN + GAP_IN)
    for stem, what, methods in (
        ("blocks", "blocks that survive dgrad", [*_there(part, SURVIVE), *_there(part, BOUNDS)]),
        ("rivals", "masks that do not, beside ours", _rivals(part)),
    ):
        if methods:
            yield Picture(
                f"quality-density-{stem}",
                f"Retained score against density, blocks of {block}: {what}",
                caption(
                    _retained(part, methods),
                    "The same stored weights for every method of a panel (structure_lth misses its "
                    "budget). Unstructured is the upper bound, channel the structured lower bound.",
                    commands.QUALITY,
                ),
                height,
                partial(_draw_density, height, part, names, methods),
            )


def _retained(rows: pd.DataFrame, methods: Sequence[str]) -> str:
    """Return the means of the best and the worst method at the lowest density that all have."""
    part = rows[rows["method"].isin(methods)]
    there = part.groupby("density")["method"].nunique()
    density = float(min(there[there == there.max()].index))
    means = part[part["density"] == density].groupby("method")["retained"].mean()
    best, worst = str(means.idxmax()), str(means.idxmin())
    return (
        f"At sparsity {style.percent(1 - density)} {best} retains {means[best]:.2f} of all score, "
        f"{worst} {means[worst]:.2f} (means over layers)."
    )


def _draw_density(
    height: float, rows: pd.DataFrame, names: list[str], methods: list[str], figure: FigureBase
) -> None:
    width = (style.WIDTH_IN - 2 * 0.55 - 0.1) / 2
    densities = sorted(set(rows["density"]))
    for number, name in enumerate(names):
        row, column = divmod(number, 2)
        bottom = height - LEGEND_IN - (row + 1) * (PANEL_IN + GAP_IN) + 0.5
        axes = place(figure, height, 0.5 + column * (width + 0.6), bottom, width, PANEL_IN)
        axes.set_title(name, loc="left")
        part = rows[rows["scores"] == name]
        for method in methods:
            mine = part[part["method"] == method].sort_values("density")
            _line(axes, method, mine["density"].tolist(), mine["retained"].tolist())
        style.sparsity_axis(axes, densities, width)
        axes.set_ylabel("retained score (share)" if column == 0 else "")
        axes.set_xlabel("sparsity (% dropped)" if number >= len(names) - 2 else "")
    _legend(figure, methods)


def _line(axes: Axes, method: str, x: Sequence[float], y: Sequence[float]) -> None:
    colour, dash, marker = LOOKS[method]
    axes.plot(x, y, color=colour, linestyle=dash, marker=marker, markersize=3.2, linewidth=1.0)


def _legend(figure: FigureBase, methods: Sequence[str]) -> None:
    looks: list[dict[str, Any]] = [
        dict(zip(("color", "linestyle", "marker"), LOOKS[m], strict=True)) for m in methods
    ]
    handles = [Line2D([], [], markersize=4, **look) for look in looks]
    figure.legend(
        handles, list(methods), loc="upper center", ncols=4, columnspacing=1.2, handlelength=2.2
    )


def _block_pictures(rows: pd.DataFrame) -> Iterator[Picture]:
    blocks = sorted(set(rows["block"]))
    table = rows.pivot_table(index=["scores", "density", "method"], columns="block",
                             values="retained").dropna()  # fmt: skip
    if len(blocks) < 2 or table.empty:
        return
    flat = table.reset_index()
    common = flat.groupby(["scores", "density"])["method"].nunique()
    # ++ methods and masks reach densities that others cannot: the same layers for all
    whole = common[common == common.max()].index
    flat = flat[pd.MultiIndex.from_frame(flat[["scores", "density"]]).isin(whole)]
    counts = flat.groupby("density")["scores"].nunique()
    density = float(min(counts[counts == counts.max()].index))
    part = flat[flat["density"] == density]
    panels = [
        ("blocks in all passes", [*_there(part, SURVIVE), *_there(part, BOUNDS)]),
        ("masks", _rivals(part)),
    ]
    yield Picture(
        "quality-block",
        f"Retained score against block size, density {density:g}",
        caption(
            _by_block(part, blocks, panels[0][1]),
            f"Means over {part['scores'].nunique()} layers that can have every block.",
            commands.QUALITY,
        ),
        MEAN_HEIGHT_IN,
        partial(_draw_means, part, blocks, [p for p in panels if p[1]], "block (weights a side)"),
    )


def _by_block(part: pd.DataFrame, blocks: Sequence[int], methods: Sequence[str]) -> str:
    """Return what the best method of the smallest blocks retains there, and in the largest."""
    means = part[part["method"].isin(methods)].groupby("method")[list(blocks)].mean()
    best = str(means[blocks[0]].idxmax())
    ends = (f"{means[size][best]:.2f} in blocks of {size}" for size in (blocks[0], blocks[-1]))
    return f"{best} retains {style.listed(ends)}: smaller blocks retain more, and run slower."


def _by_balance(part: pd.DataFrame, methods: Sequence[str]) -> str:
    """Return what the first method retains under each balance."""
    means = part[part["method"] == methods[0]].groupby("balance")["retained"].mean()
    told = (f"{means[b]:.2f} ({b})" for b in BALANCES if b in means.index)
    return f"{methods[0]} retains {style.listed(told)}: balance costs score."


def _draw_means(
    rows: pd.DataFrame, steps: Sequence[int], panels: list[tuple[str, list[str]]], label: str,
    figure: FigureBase,
) -> None:  # fmt: skip
    width = _mean_width()
    drawn: list[str] = []
    for number, (title, methods) in enumerate(panels):
        axes = _mean_panel(figure, number, width)
        axes.set_title(title, loc="left")
        axes.set_xscale("log", base=2)
        for method in methods:
            mine = rows[rows["method"] == method]
            _line(axes, method, list(steps), [float(mine[step].mean()) for step in steps])
        axes.xaxis.set_major_locator(FixedLocator(list(steps)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(list(steps), [str(s) for s in steps])
        axes.set_xlabel(label)
        axes.set_ylabel("retained score (share)" if number == 0 else "")
        drawn += [m for m in methods if m not in drawn]
    _legend(figure, drawn)


def _balance_pictures(rows: pd.DataFrame) -> Iterator[Picture]:
    keys = ["scores", "block", "density"]
    balanced = rows[rows["balance"] != "none"][keys].drop_duplicates()
    part = rows.merge(balanced, on=keys)
    methods = [m for m in LOOKS if set(part[part["method"] == m]["balance"]) == set(BALANCES)]
    if not methods:
        return
    (block, density), *_ = balanced[["block", "density"]].itertuples(index=False, name=None)
    yield Picture(
        "quality-balance",
        f"Retained score against balance, blocks of {block}, density {density:g}",
        caption(
            _by_balance(part, methods),
            "Balance buys equal work in every group. Means over the layers of each kind.",
            commands.QUALITY,
        ),
        MEAN_HEIGHT_IN,
        partial(_draw_balance, part, methods),
    )


def _mean_width() -> float:
    return (style.WIDTH_IN - 2 * MEAN_LEFT_IN - 0.1) / 2


def _mean_panel(figure: FigureBase, number: int, width: float) -> Axes:
    left = MEAN_LEFT_IN + number * (width + MEAN_LEFT_IN)
    return place(figure, MEAN_HEIGHT_IN, left, 0.5, width, MEAN_PANEL_IN)


def _draw_balance(rows: pd.DataFrame, methods: list[str], figure: FigureBase) -> None:
    width = _mean_width()
    for number, (title, real) in enumerate((("synthetic", False), ("networks and files", True))):
        axes = _mean_panel(figure, number, width)
        axes.set_title(title, loc="left")
        part = rows[rows["scores"].isin(SYNTHETIC) != real]
        for method in methods:
            means = part[part["method"] == method].groupby("balance")["retained"].mean()
            found = [b for b in BALANCES if b in means.index]
            _line(axes, method, [BALANCES.index(b) for b in found], [means[b] for b in found])
        axes.set_xticks(range(len(BALANCES)), list(BALANCES))
        axes.set_xlabel("balance (kind)")
        axes.set_ylabel("retained score (share)" if number == 0 else "")
    _legend(figure, methods)


def _time_picture(rows: pd.DataFrame) -> Picture:
    methods = [m for m in LOOKS if m in set(rows["method"])]
    height = 0.75 + 0.2 * len(methods)
    return Picture(
        "quality-time",
        "Time of a regrouping",
        caption(
            _by_time(rows),
            "A mark is one layer at one block and density, wall clock on a CPU. Quick methods look "
            "at norms alone, the searches try many groupings.",
            commands.QUALITY,
        ),
        height,
        partial(_draw_time, height, rows, methods),
    )


def _by_time(rows: pd.DataFrame) -> str:
    """Return the medians of the quickest and the slowest method, and the longest time."""
    medians = rows.groupby("method")["regroup_s"].median()
    ends = (str(medians.idxmin()), str(medians.idxmax()))
    told = (f"{style.duration(float(medians[name]))} ({name})" for name in ends)
    longest = style.duration(float(rows["regroup_s"].max()))
    return f"Medians from {' to '.join(told)}; the longest took {longest}."


def _draw_time(height: float, rows: pd.DataFrame, methods: list[str], figure: FigureBase) -> None:
    axes = place(figure, height, 1.35, 0.5, style.WIDTH_IN - 1.5, height - 0.6)
    for (method,), part in groups(rows, ["method"]):
        y = methods.index(method)
        values = [row["regroup_s"] for row in records(part)]
        axes.plot(values, [y] * len(values), linestyle="", marker="|", markersize=7,
                  color=LOOKS[method][0])  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.set_xlabel("time of a regrouping (s)")
    axes.set_ylabel("method")
