"""A history as a picture: a panel a pass, points with intervals, levels, and steps with labels."""

from __future__ import annotations

import itertools
import math
import re
import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import FixedLocator, NullLocator

from bench.change_points import LEAST_RUNS
from bench.history import SPEEDUP, History, Series, Trend, TrendStep
from bench.records import OURS
from reports import style
from reports.picture import PANEL_TITLES, Picture, place

LEFT_IN, RIGHT_IN = 0.72, 0.12
PANEL_IN, TITLE_IN, ROW_IN, GAP_IN = 1.25, 0.24, 0.13, 0.12
LABEL_PT = CAPTION_PT = TICK_PT = style.LEAST_PT
TICK_GAP_PT = 10.0  # between the middles of two upright labels
LONGEST_PT = 110.0  # of a revision's label
LEAST_SPAN = math.log(1.08)  # of a panel: a calm series is to look calm
NAMED = 4  # steps that the caption names; folders that the command does
SLOWER, FASTER = style.PALETTE[1], style.PALETTE[2]


def pictures(trend: Trend, folders: Sequence[Path], *, alone: bool = True) -> list[Picture]:
    """Return one picture a history: ``trend``, ``trend-2``, ...

    Args:
        folders: as the command got them, for the caption.
        alone: the caption stands in the picture, too, for it has no page around it.
    """
    found = []
    for number, history in enumerate(trend.histories, 1):
        caption = _caption(history, _command(trend, folders))
        inside = caption if alone else ""
        height = _height_in(history, inside)
        found.append(
            Picture(
                "trend" if number == 1 else f"trend-{number}",
                f"{trend.impl} over {style.counted(len(history.revisions), 'folder')}: "
                f"{history.title}",
                caption,
                height,
                partial(_draw, height_in=height, history=history, caption=inside),
            )
        )
    return found


def write(found: Sequence[Picture], out: Path) -> list[Path]:
    """Write each picture as PNG and SVG into a folder and return the paths.

    The same trend gives the same bytes; pictures of more histories than there are now go.
    """
    written = []
    with style.look():
        for picture in found:
            figure = picture.standalone(titled=True)
            for kind, nothing in (("png", "Software"), ("svg", "Date")):
                path = out / f"{picture.name}.{kind}"
                figure.savefig(path, dpi=style.PNG_DPI, metadata={nothing: None})
                written.append(path)
    for stale in set(out.glob("trend-*.*")) - set(written):
        if re.fullmatch(r"trend-\d+\.(png|svg)", stale.name):
            stale.unlink()
    return written


def _command(trend: Trend, folders: Sequence[Path]) -> str:
    names = [shlex.quote(str(folder)) for folder in folders]
    if len(names) > NAMED:
        names = [names[0], "…", names[-1], f"({len(names)} folders)"]
    impl = "" if trend.impl == OURS else f" --impl {trend.impl}"
    return f"python -m bench trend {' '.join(names)}{impl}"


def _caption(history: History, command: str) -> str:
    means = history.passes.values()
    steps = [history.since(series, step) for series in means for step in series.steps]
    finding = "No pass stepped."
    if steps:
        more = f", and {len(steps) - NAMED} more" if len(steps) > NAMED else ""
        finding = f"{'; '.join(steps[:NAMED])}{more}."
    elif all(len(series.places) < LEAST_RUNS for series in means):
        finding = f"Fewer than {LEAST_RUNS} folders show changes and no steps."
    what = "speed-up over dense in the same rounds"
    if any(series.kind != SPEEDUP for series in means):
        what = "quantity at the axis"
    return (
        f"{finding} A point is the geometric mean over cells of the {what}, in one folder; bars "
        "are 95 % intervals, level lines lie between steps, dashed lines are steps to slower, "
        "dotted ones to faster; a cross at the foot is a gap; + is for uncommitted changes. "
        f"Made by: {command}"
    )


def _width_in() -> float:
    return style.WIDTH_IN - LEFT_IN - RIGHT_IN


def _caption_lines(caption: str) -> list[str]:
    return style.wrap(caption, (style.WIDTH_IN - 0.3) * 72, CAPTION_PT)


def _caption_in(caption: str) -> float:
    return len(_caption_lines(caption)) * CAPTION_PT * 1.25 / 72 + 0.1 if caption else 0.05


def _height_in(history: History, caption: str) -> float:
    panels = sum(_panel_in(history, series) for series in history.passes.values())
    return panels + _foot_in(history) + _caption_in(caption)


def _panel_in(history: History, series: Series) -> float:
    """Return the inches that a panel takes with its title and its rows of step labels."""
    rows = max((row for _, row, _ in _labels(history, series)), default=-1) + 1
    return GAP_IN + TITLE_IN + ROW_IN * rows + PANEL_IN


def _names(history: History) -> list[str]:
    return [style.clipped(r.label, LONGEST_PT, TICK_PT) for r in history.revisions]


def _upright(history: History) -> bool:
    """Return whether the revisions' labels must stand upright to have room."""
    room = _width_in() * 72 / len(history.revisions)
    return max(style.width_pt(name, TICK_PT) for name in _names(history)) + 5 > room


def _foot_in(history: History) -> float:
    """Return the inches below the last panel: revisions and the axis' label."""
    tall = TICK_PT
    if _upright(history):
        tall = max(style.width_pt(name, TICK_PT) for name in _names(history))
    return (tall + 8) / 72 + 0.26


def _line_at(step: TrendStep) -> float:
    """Return where a step's line stands: between the folders that it lies between."""
    return (step.last_before + step.position) / 2


def _labels(history: History, series: Series) -> Iterator[tuple[TrendStep, int, float]]:
    """Yield (step, row, middle in points from the panel's left) so that no labels overlap."""
    width = _width_in() * 72
    ends: list[float] = []
    for step in series.steps:
        own = style.width_pt(step.text, LABEL_PT) + 6
        middle = width * (_line_at(step) + 0.5) / len(history.revisions)
        middle = min(max(middle, own / 2), width - own / 2)
        left = middle - own / 2
        row = next((i for i, end in enumerate(ends) if end <= left), len(ends))
        ends[row : row + 1] = [left + own]
        yield step, row, middle


def _draw(figure: FigureBase, height_in: float, history: History, caption: str) -> None:
    top = height_in
    names = list(history.passes)
    for name, series in history.passes.items():
        tall = _panel_in(history, series)
        axes = place(figure, height_in, LEFT_IN, top - tall, _width_in(), PANEL_IN)
        top -= tall
        _draw_panel(axes, history, series)
        title = f"{PANEL_TITLES[name]}, {style.counted(series.cells, 'cell')}"
        axes.annotate(
            title, (0, 1), xycoords="axes fraction", fontsize=9, va="top",
            xytext=(0, (tall - PANEL_IN - GAP_IN) * 72), textcoords="offset points",
        )  # fmt: skip
        _name_revisions(axes, history, shown=name == names[-1])
    if not caption:
        return
    lines = "\n".join(_caption_lines(caption))
    figure.text(
        0.1 / style.WIDTH_IN, 0.05 / height_in, lines, fontsize=CAPTION_PT, va="bottom",
        color=style.FAINT, linespacing=1.2,
    )  # fmt: skip


def _draw_panel(axes: Axes, history: History, series: Series) -> None:
    places = series.places
    values, lows, highs = (
        [numbers[i] for i in places] for numbers in (series.values, series.lows, series.highs)
    )
    factor = _value_axis(axes, series.kind, [*values, *lows, *highs])
    axes.plot(
        range(len(series.values)), [factor * v for v in series.values], color=style.OURS_COLOUR,
        linewidth=0.6, alpha=0.6,
    )  # fmt: skip
    bars = [
        [factor * max(v - low, 0) for v, low in zip(values, lows, strict=True)],
        [factor * max(high - v, 0) for v, high in zip(values, highs, strict=True)],
    ]
    axes.errorbar(
        places, [factor * v for v in values], yerr=bars, color=style.OURS_COLOUR, fmt="o",
        markersize=3.2, capsize=2, elinewidth=0.8,
    )  # fmt: skip
    gaps = sorted(set(range(len(series.values))) - set(places))
    axes.plot(
        gaps, [0.06] * len(gaps), "x", color=style.FAINT, markersize=4,
        transform=axes.get_xaxis_transform(),
    )  # fmt: skip
    _draw_levels(axes, series, factor)
    for step, row, middle in _labels(history, series):
        _draw_step(axes, step, row, middle)


def _draw_levels(axes: Axes, series: Series, factor: float) -> None:
    levels = series.levels
    edges = [0, *(step.position for step in series.steps), len(levels)]
    for start, end in itertools.pairwise(edges):
        inside = [i for i in series.places if start <= i < end and not math.isnan(levels[i])]
        if inside:
            level = factor * levels[inside[0]]
            ends = [inside[0] - 0.4, inside[-1] + 0.4]
            axes.plot(ends, [level, level], color=style.INK, linewidth=1.0, zorder=1.9)


def _draw_step(axes: Axes, step: TrendStep, row: int, middle: float) -> None:
    colour, dashes = (SLOWER, "--") if step.size > 0 else (FASTER, ":")
    axes.axvline(_line_at(step), color=colour, linestyle=dashes, linewidth=1.2, zorder=1.8)
    axes.annotate(
        step.text, (0, 1), xycoords="axes fraction", textcoords="offset points",
        xytext=(middle, 3 + row * ROW_IN * 72), ha="center", va="bottom", fontsize=LABEL_PT,
        color=style.INK,
    )  # fmt: skip


def _name_revisions(axes: Axes, history: History, *, shown: bool) -> None:
    """Put a grid line at each folder and, at the last panel, the labels that have room."""
    count = len(history.revisions)
    axes.set_xlim(-0.5, count - 0.5)
    axes.xaxis.set_major_locator(FixedLocator(range(count)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", length=2, labelsize=TICK_PT)
    if not shown:
        axes.set_xticklabels([""] * count)
        return
    stride = 1
    if _upright(history):
        stride = max(math.ceil(TICK_GAP_PT * count / (_width_in() * 72)), 1)
    names = [name if i % stride == 0 else "" for i, name in enumerate(_names(history))]
    axes.set_xticklabels(names, rotation=90 if _upright(history) else 0)
    axes.set_xlabel("revision (commit or folder, in the order given)")


def _value_axis(axes: Axes, kind: str, values: Sequence[float]) -> float:
    """Make y a logarithmic axis of speed-ups or times that shows the values; return its unit."""
    factor, unit = 1.0, "×"
    if kind != SPEEDUP:
        factor, unit = next(
            ((f, u) for f, u in ((1, "s"), (1e3, "ms")) if f * max(values) >= 1), (1e6, "µs")
        )
    logs = [math.log(factor * value) for value in values]
    low, high = min(logs), max(logs)
    margin = max(0.08 * (high - low), (LEAST_SPAN - (high - low)) / 2)
    low, high = math.exp(low - margin), math.exp(high + margin)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    ticks = _ticks(low, high)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    sign = unit if kind == SPEEDUP else ""
    axes.set_yticklabels([f"{tick:.6g}{sign}" for tick in ticks])
    axes.set_ylabel("speed-up" if kind == SPEEDUP else f"time ({unit})")
    return factor


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers between two ends: evenly spaced, or 1, 2, 5 where the ends are far."""
    powers = range(math.floor(math.log10(low)) - 3, math.ceil(math.log10(high)) + 1)
    if high / low > 8:
        ladder = [m * 10.0**p for p in powers for m in (1, 2, 5)]
        found = [tick for tick in ladder if low <= tick <= high]
        return found[:: math.ceil(len(found) / most)]
    for step in (m * 10.0**p for p in powers for m in (1, 2, 5)):
        first, last = math.ceil(low / step), math.floor(high / step)
        if last - first < most:
            return [step * i for i in range(first, last + 1)]
    return [low, high]
