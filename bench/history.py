"""What a history of stored results is made of: revisions, series, steps. Floor 1: no torch."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

from bench.change_points import NOTHING, Segmented

NOT_SLOWER, SLOWER, ALONE = 0, 1, 4
SPEEDUP, TIME = "speedup", "time"
NEAR = 1  # folders between a pass's step and a cell's that count as one
Numbers = tuple[float, ...]


def change_text(size: float) -> str:
    """Return ``slower by 8.1 %`` for a logarithm: calls take 1.081 times as long.

    ``faster by 8.1 %`` is the way back: they took 1.081 times as long.
    """
    return f"{'slower' if size > 0 else 'faster'} by {100 * math.expm1(abs(size)):.1f} %"


@dataclass(frozen=True)
class Revision:
    """One folder of a history.

    Attributes:
        folder: as given. commits: of its cells, in order; "" where unknown.
        label: the short commit, ``+`` for uncommitted changes; the folder's name where commits
            do not tell the folders apart.
        software: soft facts that differ from the folder before, as text.
    """

    folder: str
    commits: tuple[str, ...]
    label: str
    software: str = ""


@dataclass(frozen=True)
class TrendStep:
    """A step of a series, by positions in its history.

    Attributes:
        position: the first folder after it. last_before: the last folder before it.
        size: logarithm of time after ÷ time before; above 0 is slower.
        low, high: its 95 % interval.
        standing: slower, and the last folder still is, by the least step at least.
        cells: (label, size) of the cells that stepped there in its direction, largest first.
    """

    position: int
    last_before: int
    size: float
    low: float
    high: float
    standing: bool
    cells: tuple[tuple[str, float], ...] = ()

    @property
    def text(self) -> str:
        """``slower by 8.1 %`` or ``faster by 8.1 %``."""
        return change_text(self.size)


@dataclass(frozen=True)
class Series:
    """One line of a history.

    Attributes:
        name: the pass, of a mean; else the cell's label. conv_pass: the pass, or "all".
        cell_id: "" for a mean; under "all" it names the three cells together.
        kind: "speedup" (over dense, in the same rounds) or "time" (seconds).
        values, lows, highs: one a folder, with a 95 % interval; NaN where there is a gap.
        cells: cells in it. failed, absent: their gaps: not ok, or no line at all.
        left_out: cells that the mean leaves out: of another kind, or not connected with the rest.
        found: noise and levels over the folders that have a value. steps: in order.
    """

    name: str
    conv_pass: str
    cell_id: str
    kind: str
    values: Numbers
    lows: Numbers
    highs: Numbers
    cells: int = 1
    failed: int = 0
    absent: int = 0
    left_out: int = 0
    found: Segmented = NOTHING
    steps: tuple[TrendStep, ...] = ()

    @property
    def logs(self) -> list[float]:
        """Logarithms, one a folder, up is slower: of the time, or of 1 / speed-up."""
        sign = -1 if self.kind == SPEEDUP else 1
        return [sign * math.log(value) for value in self.values]

    @property
    def places(self) -> list[int]:
        """Positions of the folders that have a value."""
        return [i for i, value in enumerate(self.values) if not math.isnan(value)]

    @property
    def changes(self) -> list[float]:
        """Against the folder with a value before, as logarithms, up is slower; NaN for none."""
        found = [math.nan] * len(self.values)
        logs, places = self.logs, self.places
        for before, after in itertools.pairwise(places):
            found[after] = logs[after] - logs[before]
        return found

    @property
    def levels(self) -> list[float]:
        """The level of each folder's segment, in the unit of ``values``; NaN in gaps."""
        sign = -1 if self.kind == SPEEDUP else 1
        found = [math.nan] * len(self.values)
        for place, level in zip(self.places, self.found.levels, strict=False):
            found[place] = math.exp(sign * level)
        return found


@dataclass(frozen=True)
class History:
    """What is alike: one machine and one context.

    Attributes:
        machine: its hard facts. context: suite, device, dtype, layout, mode, pattern.
        revisions: the folders that have such cells, in the order given.
        passes: means by pass, "all" (the three together) last.
        cells: the series of every cell that two folders have at least.
        single: cells that fewer have.
    """

    machine: dict[str, Any]
    context: dict[str, str]
    revisions: tuple[Revision, ...]
    passes: dict[str, Series]
    cells: tuple[Series, ...]
    single: int

    @property
    def title(self) -> str:
        """Machine and context in one line."""
        return " · ".join([str(self.machine["device_name"]), *self.context.values()])

    @property
    def lone(self) -> list[tuple[Series, TrendStep]]:
        """Steps of cells where their pass has none in that direction."""
        return [
            (series, step)
            for series in self.cells
            for step in series.steps
            if not any(
                abs(step.position - other.position) <= NEAR and step.size * other.size > 0
                for other in self.passes[series.conv_pass].steps
            )
        ]

    def since(self, series: Series, step: TrendStep) -> str:
        """Return ``fprop: slower by 8.1 % (6.0 to 10.2 %) since abc1234, in 12 of 15 cells``."""
        sign = math.copysign(1, step.size)
        low, high = sorted(100 * math.expm1(sign * end) for end in (step.low, step.high))
        gap = step.position - step.last_before > 1
        before = f", after {self.revisions[step.last_before].label}" if gap else ""
        where = f", in {len(step.cells)} of {series.cells} cells" if not series.cell_id else ""
        return (
            f"{series.name}: {step.text} ({low:.1f} to {high:.1f} %) "
            f"since {self.revisions[step.position].label}{before}{where}"
        )


@dataclass(frozen=True)
class Trend:
    """Every history of an implementation, those of most folders first."""

    impl: str
    histories: tuple[History, ...]
    notes: list[str] = field(default_factory=list)

    @property
    def standing(self) -> list[tuple[History, Series, TrendStep]]:
        """The steps of passes to slower that were not undone."""
        return [
            (history, series, step)
            for history in self.histories
            for series in history.passes.values()
            for step in series.steps
            if step.standing
        ]

    @property
    def exit_code(self) -> int:
        """0 no step to slower or each undone, 1 one stands, 4 no two folders are comparable."""
        if not self.histories:
            return ALONE
        return SLOWER if self.standing else NOT_SLOWER
