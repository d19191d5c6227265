"""How everything looks: colours, fonts, numbers, axes, and text measured before it is set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex, to_rgb
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
DASHES = ("-", "--", ":", "-.")
INK, FAINT, RULE, PAPER = "#1b1b1f", "#5d5d66", "#d0d0d8", "#fefefe"
# Okabe and Ito's palette (jfly.uni-koeln.de/color), less its yellow, which white paper swallows.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
OURS_COLOUR, DENSE_COLOUR = PALETTE[0], INK
DIVERGING = "PuOr"  # told apart by every common colour blindness
FAMILY = "DejaVu Sans"  # shipped with matplotlib: the same letters on every machine
A4_IN = (8.27, 11.69)
TEXT_IN = 6.87  # A4 less margins of 0.7 inch
# Of a figure: its smallest letters, of 8 points, are still 5 points high in a column of 85 mm,
# and 8 pixels on a phone of 390.
WIDTH_IN = 5.3
LEAST_PT = 8.0
PNG_DPI = 300

RC: dict[Any, Any] = {
    "font.family": FAMILY,
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titley": 1.0,  # no ticks above: looking for some is a tenth of drawing
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,  # a layer may be called $x$
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "hatch.linewidth": 0.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 4.5,
    "savefig.facecolor": PAPER,
    "pdf.fonttype": 42,  # whole letters, so that text can be searched and copied
    "svg.fonttype": "path",
    "svg.hashsalt": "hrbp",  # the same data gives the same bytes
}


@contextmanager
def look() -> Iterator[None]:
    """Draw within as the style says, whatever the caller's settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


def times(value: float) -> str:
    """Return a speed-up as ``1.84×``; ``—`` for NaN."""
    if math.isnan(value):
        return "—"
    return f"{value:.2f}×" if value < 100 else f"{value:.0f}×"


def interval(low: float, high: float) -> str:
    """Return ``1.20× to 2.61×``; ``—`` for NaN."""
    return "—" if math.isnan(low) or math.isnan(high) else f"{times(low)} to {times(high)}"


def percent(fraction: float) -> str:
    """Return a fraction as ``87.5 %``, at most two decimals."""
    return "—" if math.isnan(fraction) else f"{round(100 * fraction, 2):g} %"


def accuracy(fraction: float) -> str:
    """Return an accuracy in percent, two decimals, without the sign."""
    return "—" if math.isnan(fraction) else f"{100 * fraction:.2f}"


def points(fraction: float) -> str:
    """Return a difference of accuracies in percentage points, signed: ``+0.42``."""
    return "—" if math.isnan(fraction) else f"{100 * fraction:+.2f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Return a time with three digits in s, ms or µs."""
    if math.isnan(seconds):
        return "—"
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 0.9995:  # three digits of less would read 1e+03 of the next unit
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def counted(number: int, noun: str) -> str:
    """Return ``1 cell`` or ``2 cells``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def listed(items: Iterable[str]) -> str:
    """Return ``a, b and c``."""
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last


@lru_cache(maxsize=4)
def _face(bold: bool) -> FT2Font:
    weight = "bold" if bold else "normal"
    return get_font(findfont(FontProperties(family=FAMILY, weight=weight)))


@lru_cache(maxsize=1)
def _letters() -> frozenset[int]:
    return frozenset(_face(False).get_charmap())  # 0.5 ms, and every wrapped text asks


@lru_cache(maxsize=8192)
def _advance(letter: str, bold: bool) -> float:
    face = _face(bold)
    face.set_size(100, 72)
    return face.load_char(ord(letter)).linearHoriAdvance / 65536 / 100


def width_pt(text: str, size_pt: float, bold: bool = False) -> float:
    """Return the width of one line in points."""
    return size_pt * sum(_advance(letter, bold) for letter in text)


def printable(text: object) -> str:
    """Return one line of text that the font can set: others become ``?``, breaks blanks."""
    known = _letters()
    line = " ".join(str(text).split())
    return "".join(c if ord(c) in known else "?" for c in line)


def _cut(word: str) -> tuple[str, str]:
    """Return a word in two, after its last joint where the second half has one."""
    joint = max(word.rfind(sign) for sign in "_-/.") + 1
    return (word[:joint], word[joint:]) if joint > len(word) / 2 else (word, "")


def wrap(text: str, width: float, size_pt: float, bold: bool = False) -> list[str]:
    """Return ``text`` as lines of at most ``width`` points; a word too long for one is cut."""
    lines = [""]
    for word in printable(text).split(" "):
        candidate = f"{lines[-1]} {word}" if lines[-1] else word
        if width_pt(candidate, size_pt, bold) <= width:
            lines[-1] = candidate
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and width_pt(lines[-1] + letter, size_pt, bold) > width:
                stem, rest = _cut(lines[-1])
                lines[-1:] = [stem, rest]
            lines[-1] += letter
    return lines


def clipped(text: object, width: float, size_pt: float) -> str:
    """Return ``text`` cut to ``width`` points, with an ellipsis where something is gone."""
    line = printable(text)
    if width_pt(line, size_pt) <= width:
        return line
    while line and width_pt(line + "…", size_pt) > width:
        line = line[:-1]
    return line + "…"


def lettering(colour: str, ink: str = INK) -> str:
    """Return the colour mixed with ink, so that letters in it can be read on paper."""
    pairs = zip(to_rgb(colour), to_rgb(ink), strict=True)
    red, green, blue = (0.6 * own + 0.4 * other for own, other in pairs)
    return to_hex((red, green, blue))


def colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour a name: ours and dense always the same ones, the others in order."""
    fixed = {"dense": DENSE_COLOUR, "block_sparse": OURS_COLOUR, "hrbp2": OURS_COLOUR}
    rest = [c for c in PALETTE if c not in fixed.values()]
    others = [n for n in names if n not in fixed]
    return {n: fixed[n] for n in names if n in fixed} | {
        n: rest[i % len(rest)] for i, n in enumerate(others)
    }


_LADDERS = (
    *(tuple(2.0 ** (step * k) for k in range(-10, 11)) for step in (1, 2, 3, 4, 5, 6)),
    tuple(m * 10.0**e for e in (-2, -1, 0, 1, 2) for m in (1, 1.5, 2, 3, 5, 7)),
    *(
        tuple(round(step * k, 3) for k in range(1, round(4 / step) + 1))
        for step in (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
    ),
)


def speedup_axis(
    axis: Axis, values: Iterable[float], most: int = 9, room_pt: float = math.inf
) -> None:
    """Make ``axis`` a base-2 logarithmic axis of speed-ups that shows ``values`` and 1×.

    It has three ticks at least, where there is a round number for each, and ``most`` at most; two
    where the labels of three would touch in ``room_pt`` points.
    """
    there = [math.log2(v) for v in values if math.isfinite(v) and v > 0]
    low, high = min([*there, 0.0]), max([*there, 0.0])
    margin = max(0.06 * (high - low), 0.02)
    limits = 2 ** (low - margin), 2 ** (high + margin)
    ladders = [[t for t in ladder if limits[0] <= t <= limits[1]] for ladder in _LADDERS]
    fitting = [t for t in ladders if t and len(t) <= most and _apart(t, limits, room_pt)]
    ticks = max(fitting, key=lambda t: min(len(t), 3), default=ladders[0][:most])
    axes: Axes = axis.axes
    if axis is axes.xaxis:
        axes.set_xscale("log", base=2)
        axes.set_xlim(*limits)
        axes.axvline(1, color=INK, linewidth=1.0, zorder=1.5)
    else:
        axes.set_yscale("log", base=2)
        axes.set_ylim(*limits)
        axes.axhline(1, color=INK, linewidth=1.0, zorder=1.5)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}×"))
    axis.set_minor_locator(NullLocator())


def _apart(ticks: list[float], limits: tuple[float, float], room_pt: float) -> bool:
    """Return whether labels at the ticks have 4 points between them in ``room_pt``."""
    if math.isinf(room_pt):
        return True
    span = math.log(limits[1] / limits[0])
    places = [room_pt * math.log(tick / limits[0]) / span for tick in ticks]
    halves = [width_pt(f"{tick:g}×", LEAST_PT) / 2 for tick in ticks]
    return all(
        b - a >= left + right + 4
        for (a, left), (b, right) in pairwise(zip(places, halves, strict=True))
    )


def sparsity_axis(axes: Axes, densities: Iterable[float], width_in: float) -> None:
    """Make the x axis sparsity: the logarithm of density, reversed, so that 1/density is straight.

    Labels that would touch in ``width_in`` inches are left out; grid lines stay.
    """
    ordered = sorted(set(densities), reverse=True)
    axes.set_xscale("log", base=2)
    axes.set_xlim(ordered[0] * 1.25, ordered[-1] / 1.25)
    span = math.log2(ordered[0] / ordered[-1]) + 2 * math.log2(1.25)
    labels: list[str] = []
    last = -math.inf
    for density in ordered:
        place = width_in * math.log2(ordered[0] / density) / span
        text = percent(1 - density)
        gap = width_pt(text, 8) / 72 + 0.08
        labels.append(text if place - last >= gap else "")
        last = place if labels[-1] else last
    axes.xaxis.set_major_locator(FixedLocator(ordered))
    axes.set_xticks(ordered, labels)
    axes.xaxis.set_minor_locator(NullLocator())
