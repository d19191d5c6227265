"""Speed-up against accuracy: both axes from the same networks' own runs."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, cast

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D

from bench.accuracy_table import ACCURACY_CONTEXT, DENSE_ARM
from bench.frames import groups, records
from reports import findings, style
from reports.data import ReportData, named_arms, pick
from reports.picture import Picture, caption, place

HEIGHT_IN = 4.3
LEGEND_IN = 1.8


def accuracy_pictures(data: ReportData) -> list[Picture]:
    """Return a figure for each context in which an arm has both an accuracy and a step speed-up."""
    pictures = []
    for number, key in enumerate(data.arm_contexts(), 1):
        arms = pick(data.summary, ACCURACY_CONTEXT, key)
        arms = arms[(arms["n"] > 0) & (arms["step_n"] > 0)]
        if arms.empty:
            continue
        title = " · ".join([data.names[key[0]], *key[1:3]])
        if sum(k[:3] == key[:3] for k in data.arm_contexts()) > 1:
            title = data.label(key, short=True)
        pictures.append(
            Picture(
                f"accuracy-speedup-{number}",
                f"Speed-up against accuracy: {title}",
                caption(
                    findings.accuracy_finding(data, key),
                    "A point is the mean over seeds of one arm at one density: last-epoch "
                    "accuracy, and the speed-up of the network's own whole training steps; bars "
                    "are 95 % intervals over seeds. Up and to the right is better.",
                ),
                HEIGHT_IN,
                partial(draw_accuracy, arms=arms),
            )
        )
    return pictures


def draw_accuracy(figure: FigureBase, arms: pd.DataFrame) -> None:
    """Draw accuracy in percent over step speed-up; dense stands at 1 with a band."""
    arms = named_arms(arms)
    names = sorted(set(arms["name"]), key=lambda n: (n != DENSE_ARM, n))
    colours = style.colours([n.split(",")[0] for n in names])
    densities = sorted(set(arms.loc[arms["arm"] != DENSE_ARM, "density"]), reverse=True)
    markers = {d: style.MARKERS[i % len(style.MARKERS)] for i, d in enumerate(densities)}
    axes = place(figure, HEIGHT_IN, 0.65, 0.5, style.WIDTH_IN - LEGEND_IN - 0.75, HEIGHT_IN - 0.65)
    ends = [*arms["step_speedup"], *arms["step_low"], *arms["step_high"]]
    style.speedup_axis(axes.xaxis, ends)
    looks = {n: (colours[n.split(",")[0]], style.DASHES[_twin(n, names)]) for n in names}
    for row in records(arms):
        marker = "*" if row["arm"] == DENSE_ARM else markers[row["density"]]
        _draw_point(axes, row, looks[row["name"]][0], marker)
    for (name,), group in groups(arms, ["name"]):
        line = group.sort_values("density")
        colour, dashes = looks[name]
        axes.plot(line["step_speedup"], 100 * line["accuracy"], dashes, color=colour, linewidth=0.9)
    axes.set_xlabel("speed-up of a whole training step over dense")
    axes.set_ylabel("accuracy of the last epoch (%)")
    _legend(figure, looks, markers)


def _twin(name: str, names: list[str]) -> int:
    """Return the number of ``name`` among the names of its arm, as an index of dashes."""
    arm = name.split(",")[0]
    twins = [n for n in names if n.split(",")[0] == arm]
    return twins.index(name) % len(style.DASHES)


def _draw_point(axes: Axes, row: dict[str, Any], colour: str, marker: str) -> None:
    x, y = row["step_speedup"], 100 * row["accuracy"]
    low, high = 100 * row["accuracy_low"], 100 * row["accuracy_high"]
    dense = row["arm"] == DENSE_ARM
    if dense and not math.isnan(low):
        axes.axhspan(low, high, color=colour, alpha=0.08, linewidth=0)
    bars: dict[str, Any] = {}
    if not math.isnan(low):
        bars["yerr"] = [[y - low], [high - y]]
    if not dense and not math.isnan(row["step_low"]):
        bars["xerr"] = [[x - row["step_low"]], [row["step_high"] - x]]
    axes.errorbar(
        x, y, color=colour, marker=marker, markersize=10 if dense else 6, capsize=2,
        elinewidth=0.8, linestyle="none", zorder=3, **bars,
    )  # fmt: skip


def _legend(
    figure: FigureBase, looks: dict[str, tuple[str, str]], markers: dict[float, str]
) -> None:
    """Write arms and densities right of the axes."""
    left = 1 - (LEGEND_IN - 0.05) / style.WIDTH_IN
    width = (LEGEND_IN - 0.6) * 72
    arms = [
        Line2D(
            [], [], color=colour, linestyle=cast(Any, dashes),
            label="\n".join(style.wrap(name, width, 8)),
            marker="*" if name == DENSE_ARM else "", markersize=9,
        )
        for name, (colour, dashes) in looks.items()
    ]  # fmt: skip
    shapes = [
        Line2D(
            [], [], color=style.FAINT, linestyle="none", marker=marker, markersize=6,
            label=f"{style.percent(1 - density)} sparse",
        )
        for density, marker in markers.items()
    ]  # fmt: skip
    top = 1 - 0.15 / HEIGHT_IN
    figure.legend(handles=arms, title="arm", loc="upper left", bbox_to_anchor=(left, top),
                  alignment="left")  # fmt: skip
    lines = sum(1 + str(arm.get_label()).count("\n") for arm in arms)
    below = top - (0.4 + 0.06 * len(arms) + 0.13 * lines) / HEIGHT_IN
    figure.legend(handles=shapes, title="sparsity", loc="upper left",
                  bbox_to_anchor=(left, below), alignment="left")  # fmt: skip
