"""What a picture is, and where its axes stand: a name, a caption and a function that draws it.

A drawing function gets an empty figure (or a part of a page) of the size that it asked for, in
inches, and places its axes itself: nothing depends on a renderer, so the PDF page, the PNG and
the SVG are one drawing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D

from bench.table import ALL, PASSES
from reports import style
from reports.commands import REPORT

PANELS = (*PASSES, ALL)
PANEL_TITLES = {
    "fprop": "fprop (forward)",
    "dgrad": "dgrad (gradient of the input)",
    "wgrad": "wgrad (gradient of the weights)",
    ALL: "forward + backward (all three)",
}
NOT_MEASURED = "not measured"
Spot = tuple[float, float]


@dataclass(frozen=True)
class Picture:
    """One figure.

    Attributes:
        name: file stem. caption: the finding and the command that made it.
        height_in: inches; the width is ``style.WIDTH_IN``.
        draw: fills an empty figure of that size.
    """

    name: str
    title: str
    caption: str
    height_in: float
    draw: Callable[[FigureBase], None]

    def standalone(self, *, titled: bool = False) -> Figure:
        """Return the figure alone, drawn; ``titled`` adds a strip with the title above it."""
        lines = style.wrap(self.title, (style.WIDTH_IN - 0.45) * 72, 9, bold=True)
        strip_in = 0.16 * len(lines) + 0.15 if titled else 0.0
        height_in = self.height_in + strip_in
        figure = Figure(figsize=(style.WIDTH_IN, height_in))
        if not titled:
            self.draw(figure)
            return figure
        spec = figure.add_gridspec(2, 1, height_ratios=[strip_in, self.height_in])
        self.draw(figure.add_subfigure(spec[1, 0]))
        place = 0.1 / style.WIDTH_IN, 1 - 0.09 / height_in
        figure.text(*place, "\n".join(lines), fontsize=9, fontweight="bold", va="top")
        return figure


def place(
    figure: FigureBase, height_in: float, left: float, bottom: float, width: float, height: float
) -> Axes:
    """Return axes at a place given in inches from the lower left corner."""
    total = style.WIDTH_IN
    axes = figure.add_axes((left / total, bottom / height_in, width / total, height / height_in))
    if not isinstance(axes, Axes):
        raise TypeError(f"expected Axes, got {type(axes).__name__}")
    return axes


def grid(
    figure: FigureBase,
    height_in: float,
    *,
    left: float,
    top: float,
    bottom: float,
    right: float = 0.1,
) -> Iterator[Axes]:
    """Yield the axes of four panels, two a row; margins in inches."""
    rows, columns, gap = 2, 2, 0.78
    width = (style.WIDTH_IN - left * columns - right) / columns
    height = (height_in - top - bottom - gap * (rows - 1)) / rows
    for place_no in range(4):
        row, column = divmod(place_no, columns)
        y = bottom + (rows - 1 - row) * (height + gap)
        yield place(figure, height_in, left + column * (width + left), y, width, height)


def segments(axes: Axes, pieces: Iterable[Sequence[Spot]], **looks: Any) -> None:
    """Draw separate lines of two points or more as one artist; limits are the caller's.

    Of 9,000 intervals a LineCollection made 1.8 MB of SVG, and took five times as long.
    """
    gap = (math.nan, math.nan)
    spots = [spot for piece in pieces for spot in (*piece, gap)]
    if not spots:
        return
    x, y = zip(*spots, strict=True)
    axes.add_artist(Line2D(x, y, **looks))


def name_rows(axes: Axes, what: str, left_in: float) -> None:
    """Say what the rows are, lying at the height of the panel's title, ``left_in`` left of it."""
    axes.set_ylabel(what, rotation=0, ha="left", va="baseline")
    point = axes.figure.dpi / 72
    width, height = axes.bbox.width / point, axes.bbox.height / point
    # the title stands 6 points above
    axes.yaxis.set_label_coords(4 / width - 72 * left_in / width, 1 + 6 / height)


def empty_panel(axes: Axes, text: str) -> None:
    """Say in the middle of the axes why nothing is drawn."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.text(0.5, 0.5, text, ha="center", va="center", color=style.FAINT, transform=axes.transAxes)


def caption(finding: str, reading: str, measured: str) -> str:
    """Return a caption: what is found, how to read it, and what measured and drew it.

    Args:
        measured: the command behind the numbers, of :mod:`reports.commands`.
    """
    return f"{finding} {reading} Measured by: {measured}. Drawn by: {REPORT}."


def block_order(block: str) -> tuple[int, ...]:
    """Return the extents of ``32x16``, to sort by."""
    return tuple(int(n) for n in block.split("x"))
