"""Folders side by side as pictures: one row a layer, a block and sparsity, an arm or a network.

A row holds a point with its interval for each folder, one under another in the folders' order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bench.table import ALL
from reports import style
from reports.compare import SharedCell, Span, mean_ratio, mean_speedup, single
from reports.picture import PANELS, Picture, empty_panel, name_rows, place

COMMAND = "python -m bench report DIR DIR --compare"
OVER_DENSE = "Speed-up over each folder's own dense"
LEFT_IN, RIGHT_IN, GAP_IN, BOTTOM_IN, TITLE_IN = 1.95, 0.12, 0.14, 0.52, 0.28
POINT_IN, ROW_GAP_IN, LEGEND_LINE_IN = 0.125, 0.09, 0.17
MOST_IN = 7.9  # of the rows of one picture: with title and caption it fits a page
MOST_PICTURED = 48  # rows of a kind that are drawn, of more those furthest apart
MOST_ALONE = 24  # cases that have a row each; of more, means a layer and a block and sparsity
Row = tuple[str, Mapping[str, Sequence[Span | None]]]  # label, panel -> a span a folder


@dataclass(frozen=True)
class Dots:
    """What a picture shows.

    Attributes:
        labels: of the folders. rows: from top to bottom.
        panels: (key in a row, title), side by side. unit: below each. what: a row is.
        speedups: the axis is a logarithmic one of speed-ups; a linear one of percent otherwise.
    """

    labels: Sequence[str]
    rows: Sequence[Row]
    panels: Sequence[tuple[str, str]]
    unit: str
    what: str
    speedups: bool = True

    @property
    def step_in(self) -> float:
        """Inches of one row."""
        return POINT_IN * len(self.labels) + ROW_GAP_IN

    @property
    def legend_in(self) -> float:
        """Inches of the legend, one line a folder."""
        return LEGEND_LINE_IN * len(self.labels) + 0.1

    @property
    def height_in(self) -> float:
        """Inches of the whole picture."""
        return self.legend_in + TITLE_IN + BOTTOM_IN + self.step_in * len(self.rows)


def pictures(
    name: str, title: str, told: str, dots: Dots, pages: Iterator[int] | None = None
) -> Iterator[Picture]:
    """Yield the picture, in several where it has more rows than a page holds.

    Args:
        told: the caption: what is found and how to read it.
    """
    numbers = pages or count(1)
    pages_needed = math.ceil(len(dots.rows) / max(int(MOST_IN / dots.step_in), 1))
    most = math.ceil(len(dots.rows) / pages_needed)
    parts = [dots.rows[i : i + most] for i in range(0, len(dots.rows), most)]
    for part, rows in enumerate(parts, 1):
        some = replace(dots, rows=rows)
        suffix = f" ({part} of {len(parts)})" if len(parts) > 1 else ""
        caption = f"{told} Made by: {COMMAND}"
        draw = partial(draw_dots, dots=some, ends=_ends(dots.rows))
        yield Picture(f"{name}-{next(numbers)}", title + suffix, caption, some.height_in, draw)


def _ends(rows: Sequence[Row]) -> list[float]:
    """Return every number that is drawn, so that all parts of a picture have one axis."""
    spans = [s for _, panels in rows for found in panels.values() for s in found if s is not None]
    return [value for span in spans for value in span if not math.isnan(value)]


def draw_dots(figure: FigureBase, dots: Dots, ends: Sequence[float]) -> None:
    """Draw the panels, and the legend above them."""
    height, columns = dots.height_in, len(dots.panels)
    width = (style.WIDTH_IN - LEFT_IN - RIGHT_IN - GAP_IN * (columns - 1)) / columns
    tall = dots.step_in * len(dots.rows)
    for number, (key, title) in enumerate(dots.panels):
        axes = place(figure, height, LEFT_IN + number * (width + GAP_IN), BOTTOM_IN, width, tall)
        axes.set_title(title, loc="left")
        axes.set_ylim(len(dots.rows) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        found = [(y, panels.get(key, ())) for y, (_, panels) in enumerate(dots.rows)]
        if not any(span for _, spans in found for span in spans):
            empty_panel(axes, "not shared")
        else:
            _axis(axes.xaxis, ends, dots.speedups, 3 + 6 // columns, 72 * width)
            axes.set_xlabel(dots.unit)
            for y, spans in found:
                _draw_row(axes, y, spans, dots)
            for y in range(1, len(dots.rows)):
                axes.axhline(y - 0.5, color=style.RULE, linewidth=0.5)
        _label_rows(axes, dots, named=number == 0)
    handles = [Line2D([], [], linewidth=1.4, **look(i)) for i in range(len(dots.labels))]
    texts = [_legend_text(label) for label in dots.labels]
    figure.legend(
        handles, texts, loc="upper left", bbox_to_anchor=(0.01, 1), labelspacing=0.25,
        borderaxespad=0.1, handlelength=2.2,
    )  # fmt: skip


def _legend_text(label: str) -> str:
    text = style.clipped(label, (style.WIDTH_IN - 0.8) * 72, 8)
    return f"\u200a{text}" if text.startswith("_") else text  # matplotlib hides names of this kind


def _axis(axis: Axis, ends: Sequence[float], speedups: bool, most: int, room_pt: float) -> None:
    if speedups:
        style.speedup_axis(axis, ends, most=most, room_pt=room_pt)
        return
    low, high = min(ends), max(ends)
    margin = max(0.06 * (high - low), 0.002)
    axis.axes.set_xlim(low - margin, high + margin)
    axis.set_major_locator(MaxNLocator(8))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.4g}"))


def look(number: int) -> dict[str, Any]:
    """Return colour and marker of a folder; twelve folders differ in their markers alone."""
    colours = style.PALETTE
    return {
        "color": colours[number % len(colours)],
        "marker": style.MARKERS[number % len(style.MARKERS)],
    }


def _draw_row(axes: Axes, y: int, spans: Sequence[Span | None], dots: Dots) -> None:
    step = POINT_IN / dots.step_in
    for number, span in enumerate(spans):
        if span is None or math.isnan(span[0]):
            continue
        value, low, high = span
        at = y + (number - (len(spans) - 1) / 2) * step
        style_of = look(number)
        if not math.isnan(low):
            axes.plot([low, high], [at, at], color=style_of["color"], linewidth=1.3)
        axes.plot(value, at, markersize=4, **style_of)


def _label_rows(axes: Axes, dots: Dots, *, named: bool) -> None:
    size = style.LEAST_PT
    texts = [style.clipped(label, (LEFT_IN - 0.15) * 72, size) for label, _ in dots.rows]
    axes.set_yticks(range(len(dots.rows)), texts if named else [""] * len(texts), fontsize=size)
    if named:
        name_rows(axes, dots.what, LEFT_IN)


def speedup_pictures(
    cells: Sequence[SharedCell],
    labels: Sequence[str],
    settings: Sequence[str],
    alike: bool = True,
) -> Iterator[Picture]:
    """Yield the pictures of the shared cells; none mixes two values of one of the settings.

    Args:
        alike: the cells are the same case everywhere, so that a ratio means something.
    """
    contexts: dict[tuple[str, ...], list[SharedCell]] = {}
    for cell in cells:
        contexts.setdefault(tuple(cell[n] for n in settings), []).append(cell)
    numbers = count(1)
    for context, found in contexts.items():
        where = " · ".join(context)
        for title, what, told, rows in _tellings(found):
            drawn, left = _furthest(rows)
            panels = [(p, "all three" if p == ALL else p) for p in PANELS]
            dots = Dots(labels, drawn, panels, "speed-up", what)
            finding = _finding(found, labels) if alike else "The folders' settings differ."
            more = f" {left} more rows are not drawn: they lie nearer together." if left else ""
            caption = f"{finding} {told}{more}"
            yield from pictures("compare-speedup", f"{title}: {where}", caption, dots, numbers)


def _furthest(rows: list[Row]) -> tuple[list[Row], int]:
    """Return the rows, of too many those whose folders lie furthest apart; how many are not in."""
    if len(rows) <= MOST_PICTURED:
        return rows, 0
    chosen = sorted(rows, key=_apart, reverse=True)[:MOST_PICTURED]
    kept = {id(row) for row in chosen}
    return [row for row in rows if id(row) in kept], len(rows) - len(chosen)


def _apart(row: Row) -> float:
    values = [[span[0] for span in spans if span is not None] for spans in row[1].values()]
    return max(math.log(max(found) / min(found)) for found in values)


def _tellings(cells: Sequence[SharedCell]) -> Iterator[tuple[str, str, str, list[Row]]]:
    """Yield title, what a row is, reading, rows: a row a case; means where there are many."""
    alone = _rows(cells, case_text)
    if len(alone) <= MOST_ALONE:
        reading = "A bar is the 95 % interval of the cell; of all three passes, its corners."
        yield f"{OVER_DENSE}, cell by cell", "layer, block, sparsity", reading, alone
        return
    reading = (
        "A point is the geometric mean over the n shared cases of a row, its bar runs from the "
        "mean of their lower ends to that of their upper ends, so it is wider than 95 %."
    )
    yield f"{OVER_DENSE}, by layer", "layer", reading, _rows(cells, layer_text)
    rows = _rows(sorted(cells, key=_tile), tile_text)
    yield f"{OVER_DENSE}, by block and sparsity", "block, sparsity", reading, rows


def _tile(cell: SharedCell) -> tuple[int, float]:
    return int(cell["block"].split("x")[0]), -cell["density"]


def case_text(cell: SharedCell) -> str:
    """Return layer, block and sparsity."""
    return f"{cell['layer']}, {tile_text(cell)}"


def layer_text(cell: SharedCell) -> str:
    """Return the layer's name in the first folder."""
    return str(cell["layer"])


def tile_text(cell: SharedCell) -> str:
    """Return block and sparsity."""
    return f"{cell['block']}, {style.percent(1 - cell['density'])}"


def _rows(cells: Sequence[SharedCell], name: Callable[[SharedCell], str]) -> list[Row]:
    found: dict[tuple[str, str, Any], dict[str, list[SharedCell]]] = {}
    for cell in cells:
        # two shapes may have one layer's name, two seeds one case's text
        shape = "" if name is tile_text else cell["shape"]
        seed = cell["recipe_seed"] if name is case_text else None
        found.setdefault((name(cell), shape, seed), {}).setdefault(cell["pass"], []).append(cell)
    return [
        (
            key[0] + ("" if name is case_text else f" (n = {max(map(len, passes.values()))})"),
            {p: [mean_speedup(part, i) for i in range(len(part[0].rows))]
             for p, part in passes.items()},
        )
        for key, passes in found.items()
    ]  # fmt: skip


def _finding(cells: Sequence[SharedCell], labels: Sequence[str]) -> str:
    alone = single(cells)
    told = []
    for number, label in enumerate(labels[1:], 1):
        value, low, high = mean_ratio(alone, number)
        reach = style.interval(low, high)
        told.append(f"{label} {style.times(value)} that of {labels[0]} (95 %: {reach})")
    return f"Mean ratio of speed-ups over {style.counted(len(alone), 'cell')}: {'; '.join(told)}."
