"""Break-even sparsities as a picture: a row a layer, its interval, arrows for always and never."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from reports import style
from reports.picture import Picture, caption, place

MOST_ROWS = 36
LEAST_IN = 0.85  # high: the name of the rows stands upright beside them
ROW_IN, TOP_IN, BOTTOM_IN, LEFT_IN, RIGHT_IN = 0.2, 0.1, 0.45, 1.9, 0.75


@dataclass(frozen=True)
class Span:
    """One row. ``answer`` is found, always or never; sparsities are fractions.

    Attributes:
        low, high: surely slower up to here, surely faster from here on.
        least, most: what was measured.
    """

    name: str
    answer: str
    sparsity: float | None
    low: float
    high: float
    least: float
    most: float


def break_even_picture(
    name: str, title: str, spans: Sequence[Span], how: str, measured: str
) -> Picture:
    """Return the picture of the first rows, as many as a page holds."""
    shown = spans[:MOST_ROWS]
    height = TOP_IN + BOTTOM_IN + max(ROW_IN * len(shown), LEAST_IN)
    more = "" if len(shown) == len(spans) else f" {len(spans) - len(shown)} more are not drawn."
    return Picture(
        name,
        title,
        caption(
            finding(spans),
            f"A point is the break-even sparsity, {how}; the bar runs from the largest sparsity "
            "that is surely slower to the least that is surely faster; an arrow to the left: "
            "faster wherever it was measured, to the right: nowhere." + more,
            measured,
        ),
        height,
        partial(_draw, height_in=height, spans=shown),
    )


def finding(spans: Sequence[Span]) -> str:
    """Return the extremes of those that were found, and the counts of the others."""
    found = sorted((s for s in spans if s.sparsity is not None), key=lambda s: s.sparsity or 0)
    parts = []
    if found:
        first, last = found[0], found[-1]
        told = f"{style.percent(first.sparsity or 0)} ({first.name})"
        if len(found) > 1:
            told += f" to {style.percent(last.sparsity or 0)} ({last.name})"
        parts.append(f"Break-even at {told}")
    for answer, words in (("always", "always faster"), ("never", "never faster")):
        count = sum(s.answer == answer for s in spans)
        if count:
            parts.append(f"{count} {words} within what was measured")
    return "; ".join(parts)[:1].upper() + "; ".join(parts)[1:] + "."


def _draw(figure: FigureBase, *, height_in: float, spans: Sequence[Span]) -> None:
    width = style.WIDTH_IN - LEFT_IN - RIGHT_IN
    axes = place(figure, height_in, LEFT_IN, BOTTOM_IN, width, height_in - TOP_IN - BOTTOM_IN)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 100)
    axes.set_ylim(len(spans) - 0.4, -0.6)
    for y, span in enumerate(spans):
        _row(axes, y, span)
    names = [style.clipped(s.name, (LEFT_IN - 0.35) * 72, 8) for s in spans]
    axes.set_yticks(range(len(spans)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylabel("layer, block")
    axes.set_xlabel("sparsity (% of weights dropped)")


def _row(axes: Axes, y: int, span: Span) -> None:
    colour = style.OURS_COLOUR
    axes.plot([100 * span.low, 100 * span.high], [y, y], color=colour, linewidth=1.6, alpha=0.55)
    if span.sparsity is not None:
        axes.plot(100 * span.sparsity, y, "o", color=colour, markersize=5)
        text = style.percent(span.sparsity)
    elif span.answer == "always":
        axes.plot(100 * span.least, y, "<", color=colour, markersize=5, clip_on=False)
        text = "always"
    else:
        axes.plot(100 * span.most, y, ">", color=style.PALETTE[1], markersize=5, clip_on=False)
        text = "never"
    axes.annotate(
        text, (1.0, y), xycoords=("axes fraction", "data"), xytext=(6, 0),
        textcoords="offset points", va="center", fontsize=style.LEAST_PT,
    )  # fmt: skip
