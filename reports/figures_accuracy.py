"""Speed-up against accuracy: both axes from the same networks' own runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, cast

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D

from bench.accuracy_table import ACCURACY_CONTEXT, DENSE_ARM
from bench.frames import Record, groups, records
from bench.pareto import pareto
from reports import commands, style
from reports.data import ReportData, named_arms, pick
from reports.figures_quality import LOOKS
from reports.findings_accuracy import accuracy_finding, front_finding, iso_finding
from reports.labels import Box, Segment, Spot, leader, place_labels
from reports.picture import Picture, caption, place

HEIGHT_IN, KEY_IN = 4.4, 0.36
LEFT_IN, BOTTOM_IN, RIGHT_IN = 0.65, 0.5, 0.15
LABEL_PT, LINE_PT, WIDEST_PT = 8.0, 9.6, 105.0
ARM_LOOKS = LOOKS | {"thin": (style.FAINT, "-.", "")}
HALO = {"facecolor": style.PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.2}
FRONT = {"color": style.FAINT, "linewidth": 3.0, "alpha": 0.35}
Look = tuple[str, str, bool]  # colour, dashes, filled marker


def accuracy_pictures(data: ReportData) -> list[Picture]:
    """Return a figure for each context in which an arm has both an accuracy and a step speed-up."""
    pictures = []
    for number, key in enumerate(data.arm_contexts(), 1):
        arms = pick(data.summary, ACCURACY_CONTEXT, key)
        arms = arms[(arms["n"] > 0) & (arms["step_n"] > 0)]
        if arms.empty:
            continue
        arms = named_arms(arms)
        title = " · ".join([data.names[key[0]], data.images(key), key[2]])
        if sum(k[:3] == key[:3] for k in data.arm_contexts()) > 1:
            title = data.label(key, short=True)
        found = [accuracy_finding(data, key), *iso_finding(data, key), front_finding(arms)]
        pictures.append(
            Picture(
                f"accuracy-speedup-{number}",
                f"Speed-up against accuracy: {title}",
                caption(
                    " ".join(found),
                    "A point is the mean over seeds of one arm at one density: last-epoch "
                    "accuracy, and the speed-up of the network's own whole training steps; bars "
                    "are 95 % intervals over seeds, the band is dense's; a bar may go on beyond "
                    "the axes. Up and to the right is better: nothing beats the points on the "
                    "front on both axes, by means.",
                    commands.training(data, key),
                ),
                HEIGHT_IN,
                partial(draw_accuracy, arms=arms),
            )
        )
    return pictures


def draw_accuracy(figure: FigureBase, arms: pd.DataFrame) -> None:
    """Draw accuracy in percent over step speed-up; dense stands at 1 with a band.

    Args:
        arms: rows of the summary with a column ``name``, of one context.
    """
    names = sorted(set(arms["name"]), key=lambda n: (n != DENSE_ARM, n))
    looks = _looks(names)
    densities = sorted(set(arms.loc[arms["arm"] != DENSE_ARM, "density"]), reverse=True)
    markers = {d: style.MARKERS[i % len(style.MARKERS)] for i, d in enumerate(densities)}
    width, height = style.WIDTH_IN - LEFT_IN - RIGHT_IN, HEIGHT_IN - BOTTOM_IN - KEY_IN - 0.1
    axes = place(figure, HEIGHT_IN, LEFT_IN, BOTTOM_IN, width, height)
    ends = [*arms["step_speedup"], *arms["step_low"], *arms["step_high"]]
    style.speedup_axis(axes.xaxis, ends)
    axes.set_ylim(*_accuracy_limits(arms))
    _draw_front(axes, arms)
    for row in records(arms):
        marker = "*" if row["arm"] == DENSE_ARM else markers[row["density"]]
        _draw_point(axes, row, looks[row["name"]], marker)
    for (name,), group in groups(arms, ["name"]):
        line = group.sort_values("density")
        colour, dashes, _ = looks[name]
        axes.plot(line["step_speedup"], 100 * line["accuracy"], dashes, color=colour, linewidth=0.9)
    axes.set_xlabel("speed-up of a whole training step over dense (×)")
    axes.set_ylabel("accuracy of the last epoch (%)")
    unlabelled = _label(axes, arms, looks, (72 * width, 72 * height))
    _key(figure, markers, {name: looks[name] for name in unlabelled})


def _looks(names: Sequence[str]) -> dict[str, Look]:
    """Return how each name is drawn: an arm as in the other figures, its twins dashed or open."""
    arms = [n.split(",")[0] for n in names]
    unknown = [a for a in dict.fromkeys(arms) if a not in ARM_LOOKS and a != DENSE_ARM]
    others = style.colours(unknown)
    found: dict[str, tuple[str, str]] = {}
    for name, arm in sorted(zip(names, arms, strict=True), key=lambda pair: _twin(pair[0], names)):
        colour, dash = ARM_LOOKS[arm][:2] if arm in ARM_LOOKS else (others.get(arm, style.INK), "-")
        start = style.DASHES.index(dash)
        free = [*style.DASHES[start:], *style.DASHES[:start]]
        left = [d for d in free if (colour, d) not in found.values()]
        found[name] = (colour, dash if not _twin(name, names) else (left or free[1:])[0])
    return {n: (*found[n], found[n][1] == "-" or n == DENSE_ARM) for n in names}


def _twin(name: str, names: Sequence[str]) -> int:
    """Return the number of ``name`` among the names of its arm."""
    arm = name.split(",")[0]
    return [n for n in names if n.split(",")[0] == arm].index(name)


def _accuracy_limits(arms: pd.DataFrame) -> tuple[float, float]:
    """Return the ends of the axis in percent: every mean, and intervals as far as they let see.

    The interval of two seeds may be twenty times as wide as all means together.
    """
    means = 100 * arms["accuracy"]
    ends = 100 * pd.concat([arms["accuracy_low"], arms["accuracy_high"], arms["accuracy"]])
    half = (50 * (arms["accuracy_high"] - arms["accuracy_low"])).median()
    reach = max(means.max() - means.min(), 0.0 if math.isnan(half) else min(half, 5.0), 0.1)
    low = max(ends.min(), means.min() - reach)
    high = min(ends.max(), means.max() + reach, max(100.0, means.max()))
    margin = 0.06 * max(high - low, 0.1)
    return low - margin, high + margin


def _draw_front(axes: Axes, arms: pd.DataFrame) -> None:
    """Draw the border of what the means dominate, as stairs to the edges of the axes."""
    front = pareto(arms)
    front = front[front["on_front"]].sort_values("step_speedup")
    x, y = front["step_speedup"].tolist(), (100 * front["accuracy"]).tolist()
    if x:
        x, y = [axes.get_xlim()[0], *x, x[-1]], [y[0], *y, axes.get_ylim()[0]]
        axes.plot(x, y, drawstyle="steps-pre", zorder=1.6, **cast(Any, FRONT))


def _draw_point(axes: Axes, row: Record, look: Look, marker: str) -> None:
    x, y = row["step_speedup"], 100 * row["accuracy"]
    low, high = 100 * row["accuracy_low"], 100 * row["accuracy_high"]
    colour, _, filled = look
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
        markerfacecolor=colour if filled else style.PAPER,
        elinewidth=0.8, linestyle="none", zorder=3, **bars,
    )  # fmt: skip


def _label(axes: Axes, arms: pd.DataFrame, looks: dict[str, Look], area: Spot) -> list[str]:
    """Write each name beside its sparsest point, led to it where there was no room nearer.

    Returns the names that found no room.
    """
    rows = records(arms)
    ends = [min((r for r in rows if r["name"] == n), key=lambda r: r["density"]) for n in looks]
    texts = [style.wrap(name, WIDEST_PT, LABEL_PT) for name in looks]
    sizes = [
        (max(style.width_pt(line, LABEL_PT) for line in lines) + 2, LINE_PT * len(lines))
        for lines in texts
    ]
    spots = [_spot(axes, area, r["step_speedup"], r["accuracy"]) for r in ends]
    marks = [_spot(axes, area, r["step_speedup"], r["accuracy"]) for r in rows]
    boxes = place_labels(spots, sizes, area, marks, list(_segments(axes, area, arms)))
    for box, spot, lines, (colour, *_) in zip(boxes, spots, texts, looks.values(), strict=True):
        if box is not None:
            _write(axes, area, box, spot, "\n".join(lines), style.lettering(colour))
    return [name for name, box in zip(looks, boxes, strict=True) if box is None]


def _write(axes: Axes, area: Spot, box: Box, spot: Spot, text: str, colour: str) -> None:
    axes.text(
        box.left / area[0], (box.bottom + box.top) / 2 / area[1], text, fontsize=LABEL_PT,
        color=colour, va="center", transform=axes.transAxes, zorder=5, linespacing=1.0, bbox=HALO,
    )  # fmt: skip
    line = leader(box, spot)
    if line:
        (x, y), (to_x, to_y) = line
        axes.plot(
            [x / area[0], to_x / area[0]], [y / area[1], to_y / area[1]], color=colour,
            linewidth=0.5, transform=axes.transAxes, zorder=2.5,
        )  # fmt: skip


def _spot(axes: Axes, area: Spot, speedup: float, accuracy: float) -> Spot:
    """Return the place of a point in points from the axes' lower left corner."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x = math.log(speedup / left) / math.log(right / left)
    return area[0] * x, area[1] * (100 * accuracy - bottom) / (top - bottom)


def _segments(axes: Axes, area: Spot, arms: pd.DataFrame) -> Iterator[Segment]:
    """Yield bars and curves as labels see them."""
    for row in records(arms):
        x, y = row["step_speedup"], row["accuracy"]
        if not math.isnan(row["accuracy_low"]):
            ends = (row["accuracy_low"], row["accuracy_high"])
            yield (_spot(axes, area, x, ends[0]), _spot(axes, area, x, ends[1]))
        if not math.isnan(row["step_low"]):
            ends = (row["step_low"], row["step_high"])
            yield (_spot(axes, area, ends[0], y), _spot(axes, area, ends[1], y))
    for _, group in groups(arms, ["name"]):
        line = group.sort_values("density")[["step_speedup", "accuracy"]]
        spots = [_spot(axes, area, x, y) for x, y in line.itertuples(index=False, name=None)]
        yield from pairwise(spots)
    one = _spot(axes, area, 1.0, 0.0)[0]
    yield (one, 0.0), (one, area[1])  # the line of 1x


def _key(figure: FigureBase, markers: dict[float, str], unlabelled: dict[str, Look]) -> None:
    """Write above the axes what the markers' shapes are, the front, and arms without a label."""
    handles = [
        Line2D(
            [], [], color=style.FAINT, linestyle="none", marker=marker, markersize=6,
            label=f"{style.percent(1 - density)} sparse",
        )
        for density, marker in markers.items()
    ]  # fmt: skip
    handles.append(Line2D([], [], label="Pareto front of the means", **cast(Any, FRONT)))
    handles += [
        Line2D([], [], color=colour, linestyle=cast(Any, dashes), label=name)
        for name, (colour, dashes, _) in unlabelled.items()
    ]
    figure.legend(
        handles=handles, loc="upper left", ncols=3, columnspacing=1.2, handletextpad=0.5,
        bbox_to_anchor=(LEFT_IN / style.WIDTH_IN, 1.0), borderaxespad=0.3, borderpad=0.0,
    )  # fmt: skip
