"""Joules a call and a step, where a counter or a power reading could be had."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from bench.frames import Record, groups, records
from bench.records import OURS, REFERENCE_IMPL
from bench.step_table import step_rows
from bench.table import CASE, CONTEXT
from reports import commands, style
from reports.data import ReportData, pick
from reports.parts import Block, Paragraph, Table
from reports.picture import Picture, caption, place
from reports.steps import labelled

LEAST_IN = 0.85  # high: the name of the rows stands upright beside them
ROW_IN, TOP_IN, BOTTOM_IN, LEFT_IN, RIGHT_IN = 0.2, 0.1, 0.45, 2.55, 0.15
MOST_ROWS = 36
Pair = tuple[str, float, float]  # what, dense's joules, ours


def energy_blocks(data: ReportData) -> Iterator[Block]:
    """Yield the section; nothing where no joule was recorded."""
    steps = list(step_pairs(data))
    if steps:
        measured = commands.first_of([commands.step(r) for r in records(step_rows(data.steps))])
        yield from _blocks("energy-steps", "a whole training step", steps, measured)
    for number, key in enumerate(data.contexts(), 1):
        calls = list(_calls(data, key))
        if calls:
            command = commands.sweep(key) + " --energy"
            what = f"a call: {data.label(key)}"
            yield from _blocks(f"energy-calls-{number}", what, calls, command)
    yield from _recorded(steps or any(data.rows["energy_j"].notna()))


def _recorded(there: object) -> Iterator[Block]:
    if there:
        yield Paragraph(
            "Idle power is taken off. Each figure is one window of five seconds or more, so it "
            "has no interval; the device's counter and its power over time may differ by a "
            "factor, and the counter counts where there is one."
        )


def step_pairs(data: ReportData) -> Iterator[Pair]:
    """Yield joules a step of each comparison that has them, dense and sparse."""
    rows = labelled(step_rows(data.steps))
    for row in records(rows):
        pair = (row["dense_energy_j"], row["sparse_energy_j"])
        if not any(map(math.isnan, pair)):
            yield (row["label"], *pair)


def _calls(data: ReportData, key: tuple[object, ...]) -> Iterator[Pair]:
    rows = pick(data.rows, CONTEXT, key).dropna(subset="energy_j")
    for (layer, _, density, block, _, name), group in groups(rows, [*CASE, "pass"]):
        joules = dict(zip(group["impl"], group["energy_j"], strict=True))
        if {OURS, REFERENCE_IMPL} <= joules.keys():
            label = f"{layer}, {block}, {style.percent(1 - density)}, {name}"
            yield label, float(joules[REFERENCE_IMPL]), float(joules[OURS])


def _blocks(name: str, what: str, pairs: Sequence[Pair], measured: str) -> Iterator[Block]:
    shown = sorted(pairs, key=lambda p: p[2] / p[1])[:MOST_ROWS]
    height = TOP_IN + BOTTOM_IN + max(ROW_IN * len(shown), LEAST_IN)
    more = "" if len(shown) == len(pairs) else f" The {len(shown)} lowest ratios are drawn."
    yield Picture(
        name,
        f"Energy of {what}",
        caption(
            finding(pairs),
            "A bar from dense's joules (ring) to ours (point); one window each, no interval."
            + more,
            measured,
        ),
        height,
        partial(_draw, height_in=height, pairs=shown),
    )
    rows = [(p, f"{d:.3g}", f"{s:.3g}", style.times(d / s)) for p, d, s in shown]
    yield Table(("what", "dense (J)", "ours (J)", "dense over ours"), tuple(rows), (3, 1, 1, 1.2))


def finding(pairs: Sequence[Pair]) -> str:
    """Return how many take fewer joules than dense, and the extremes."""
    fewer = sum(ours < dense for _, dense, ours in pairs)
    best = max(pairs, key=lambda p: p[1] / p[2])
    worst = min(pairs, key=lambda p: p[1] / p[2])
    told = f"most {style.times(best[1] / best[2])} ({best[0]})"
    if len(pairs) > 1:
        told += f", least {style.times(worst[1] / worst[2])} ({worst[0]})"
    return f"{fewer} of {len(pairs)} take fewer joules than dense; dense over ours: {told}."


def _draw(figure: FigureBase, *, height_in: float, pairs: Sequence[Pair]) -> None:
    width = style.WIDTH_IN - LEFT_IN - RIGHT_IN
    axes = place(figure, height_in, LEFT_IN, BOTTOM_IN, width, height_in - TOP_IN - BOTTOM_IN)
    axes.grid(axis="y", visible=False)
    for y, (_, dense, ours) in enumerate(pairs):
        _row(axes, y, dense, ours)
    axes.set_xlim(0, 1.06 * max(max(d, s) for _, d, s in pairs))
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    names = [style.clipped(p, (LEFT_IN - 0.35) * 72, style.LEAST_PT) for p, _, _ in pairs]
    axes.set_yticks(range(len(pairs)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylabel("what was run")
    axes.set_xlabel("energy less idle power (J)")


def _row(axes: Axes, y: int, dense: float, ours: float) -> None:
    axes.plot([dense, ours], [y, y], color=style.OURS_COLOUR, linewidth=1.6, alpha=0.55)
    axes.plot(dense, y, "o", color=style.DENSE_COLOUR, markerfacecolor=style.PAPER, markersize=5)
    axes.plot(ours, y, "o", color=style.OURS_COLOUR, markersize=5)


def why_absent(lines: Sequence[Record]) -> str:
    """Return why whole steps have no joules, as their lines say; "" where none says."""
    for line in lines:
        for side in (line.get("energy") or {}).values():
            reasons = (side or {}).get("absent") or {}
            if reasons:
                return "; ".join(f"{name}: {why}" for name, why in sorted(reasons.items()))
    return ""
