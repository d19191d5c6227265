"""A cell on its way through the gate, and what is said of it in the end. Floor 0: no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.gating.evidence import weigh
from bench.gating.readings import Reading, Trial, judge_outcomes, lacks_api
from bench.gating.rule import Rule
from bench.gating.unrest import without
from bench.stats import is_bimodal
from bench.verdict import VerdictKind


@dataclass(frozen=True)
class Finding:
    """What was found of a cell; effects are ratios head / base less one.

    Attributes:
        effect, low, high, margin, p: see ``evidence``; None without times. d: of each trial.
        trials: those that it was judged by. fresh: whether after the screen.
        base_s, head_s: median seconds a call.
    """

    kind: VerdictKind
    reason: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    p: float | None = None
    trials: int = 0
    fresh: bool = False
    base_s: float | None = None
    head_s: float | None = None
    d: tuple[float, ...] = ()


@dataclass
class Course:
    """A cell on its way."""

    screen: list[Reading] = field(default_factory=list)
    fresh: list[Reading] = field(default_factory=list)
    throttled: int = 0
    restless: int = 0
    suspect: bool = False
    looked: int = 0
    finding: Finding | None = None
    _row: tuple[tuple[bool, int], dict[str, float]] | None = None

    def add(self, reading: Reading) -> None:
        """Take a reading, or the verdict that it is."""
        if reading.base is not None or reading.head is not None:
            self.finding = by_outcome(reading)
        elif not reading.timed:
            self.throttled += 1
        else:
            (self.fresh if self.suspect else self.screen).append(reading)

    def drop(self, trial: Trial) -> None:
        """Forget a trial in which base differed from itself."""
        kept = without(self.screen, trial), without(self.fresh, trial)
        self.restless += sum(map(len, (self.screen, self.fresh))) - sum(map(len, kept))
        self.screen, self.fresh = kept
        self._row = None

    def row(self, rule: Rule) -> dict[str, float]:
        """Return what the trials that it is judged by say."""
        key = (self.suspect, len(self.judged))
        if self._row is None or self._row[0] != key:
            self._row = key, weighed(self.judged, rule)
        return self._row[1]

    @property
    def judged(self) -> list[Reading]:
        """The trials that it is judged by."""
        return self.fresh if self.suspect else self.screen


def by_outcome(reading: Reading) -> Finding:
    """Return the finding on a cell that is not ok on both sides."""
    if lacks_api(reading.base, reading.head):
        assert reading.base is not None
        return Finding(
            VerdictKind.INCOMPARABLE, f"base lacks what the suite calls: {reading.base[1]}"
        )
    return Finding(*judge_outcomes(reading.base, reading.head))


def weighed(readings: Sequence[Reading], rule: Rule) -> dict[str, float]:
    """Return one cell's evidence as plain numbers."""
    d = np.array([[r.d for r in readings]], dtype=np.float64)
    a = np.array([[r.a for r in readings]], dtype=np.float64)
    found = weigh(d, a, rule)
    names = ("effect", "low", "high", "margin", "noise", "p")
    return {name: float(getattr(found, name)[0]) for name in names}


def conclude(cell: Course, row: dict[str, float], kind: VerdictKind, reason: str) -> Finding:
    """Return the finding with the numbers, and what there is to say of its trials."""
    judged = cell.judged if len(cell.judged) >= 2 else cell.screen
    base_s, head_s = seconds_of(judged)
    numbers = {n: row[n] for n in ("effect", "low", "high", "margin", "p")}
    often = sum("bimodal" in r.flags for r in judged) > len(judged) / 2
    flags = dict.fromkeys(["bimodal within most trials"] if often else [])
    if len(judged) >= 10 and is_bimodal(np.exp([r.d for r in judged if r.d is not None])):
        flags["trials in two clusters"] = None
    told = reason + "".join(f"; {flag}" for flag in flags)
    if cell.throttled:
        told += f"; {cell.throttled} trials left out: throttled"
    if cell.restless:
        told += f"; {cell.restless} trials left out: base differed from itself"
    return Finding(
        kind, told, **numbers, trials=len(judged), fresh=cell.suspect and judged is cell.fresh,
        base_s=base_s, head_s=head_s, d=tuple(r.d for r in judged if r.d is not None),
    )  # fmt: skip


def seconds_of(readings: Sequence[Reading]) -> tuple[float, float]:
    """Return (base's, head's) median seconds a call."""
    base = [r.base_s for r in readings if r.base_s is not None]
    head = [r.head_s for r in readings if r.head_s is not None]
    return float(np.median(base)), float(np.median(head))


def said_slower(cell: Course, row: dict[str, float], p: float) -> str:
    """Say how much slower, and how sure that is."""
    return (
        f"slower by {_percent(row['effect'])} ({_percent(row['low'])} to {_percent(row['high'])}), "
        f"p = {p:.1g} over {len(cell.fresh)} fresh trials"
    )


def said_fast(row: dict[str, float]) -> str:
    """Say what it is at most, and what a look at it would not have missed."""
    seen = f"a slow-down of {_percent(row['margin'])} would show"
    return f"at most {_percent(row['high'])} slower; {seen}"


def said_undecided(cell: Course, row: dict[str, float], rule: Rule) -> str:
    """Say why it stayed undecided."""
    between = f"{_percent(row['low'])} to {_percent(row['high'])}"
    if row["margin"] > rule.worst_margin:
        return (
            f"too noisy: {len(cell.judged)} trials cannot see less than {_percent(row['margin'])} "
            f"({between})"
        )
    return f"neither slower nor as fast: {between} after {len(cell.judged)} trials"


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %"
