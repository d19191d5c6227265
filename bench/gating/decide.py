"""Trial after trial until every cell is decided, or time is over. Floor 1: no torch.

Every cell gets the screen's trials. A cell whose slow-down is neither suspected there nor
possible above what the trials can see is cleared; the others get fresh trials and are judged by
those alone, so that whoever was picked out for a bad draw is not judged by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from bench.gating.evidence import holm, weigh
from bench.gating.readings import Reading, Trial, judge_outcomes, lacks_api
from bench.gating.rule import Rule
from bench.stats import is_bimodal
from bench.verdict import VerdictKind

LEAST_TIMED = 3  # trials of the screen; the others were throttled
Tell = Callable[[int, int, str], None]


class Source(Protocol):
    """Makes trials: a machine, or the rehearsal's pool of them."""

    def take(self, names: Sequence[str]) -> Trial:
        """Return a trial of these cells."""
        ...

    def affords(self, cells: int, trials: int = 1) -> bool:
        """Return whether there is time for so many more of so many cells."""
        ...


class BudgetTooSmall(ValueError):
    """There is no time for the screen."""


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
class _Cell:
    """A cell on its way."""

    screen: list[Reading] = field(default_factory=list)
    fresh: list[Reading] = field(default_factory=list)
    throttled: int = 0
    suspect: bool = False
    looked: int = 0
    finding: Finding | None = None
    _row: tuple[tuple[bool, int], dict[str, float]] | None = None

    def add(self, reading: Reading) -> None:
        """Take a reading, or the verdict that it is."""
        if reading.base is not None or reading.head is not None:
            self.finding = _by_outcome(reading)
        elif not reading.timed:
            self.throttled += 1
        else:
            (self.fresh if self.suspect else self.screen).append(reading)

    def row(self, rule: Rule) -> dict[str, float]:
        """Return what the trials that it is judged by say."""
        key = (self.suspect, len(self.judged))
        if self._row is None or self._row[0] != key:
            self._row = key, _weighed(self.judged, rule)
        return self._row[1]

    @property
    def judged(self) -> list[Reading]:
        """The trials that it is judged by."""
        return self.fresh if self.suspect else self.screen


def decide(
    names: Sequence[str], source: Source, rule: Rule, tell: Tell = lambda *_: None
) -> dict[str, Finding]:
    """Return a finding for every cell, in the order of ``names``.

    Raises:
        BudgetTooSmall: no time for the screen.
    """
    cells = {name: _Cell() for name in names}
    for made in range(rule.screen):
        left = [name for name, cell in cells.items() if cell.finding is None]
        if left and not source.affords(len(left), rule.screen - made):
            raise BudgetTooSmall(
                f"expected time for the screen's {rule.screen} trials of {len(left)} cells, got a "
                f"budget that is too small for it, seen after {made}"
            )
        tell(made, rule.screen, f"screen: {len(left)} cells")
        _take(cells, left, source)
        _suspect_early(cells, rule)
    for cell in cells.values():
        _screen(cell, rule)
    while left := _open(cells, rule):
        if not source.affords(len(left)):
            break
        most = max(len(cells[n].judged) for n in left)
        tell(most, rule.looks[-1], f"{_counted(cells, left)}")
        before = {name: len(cells[name].judged) for name in left}
        _take(cells, left, source)
        if all(len(cells[n].judged) == before[n] and not cells[n].finding for n in left):
            break  # nothing but heat
        _look(cells, rule)
    return {name: cell.finding or _at_the_end(cell, rule) for name, cell in cells.items()}


def _take(cells: dict[str, _Cell], names: Sequence[str], source: Source) -> None:
    if not names:
        return
    for name, reading in source.take(names).items():
        cells[name].add(reading)


def _suspect_early(cells: dict[str, _Cell], rule: Rule) -> None:
    """Suspect whoever is so slow that a few trials show it, and look at those that were."""
    for cell in cells.values():
        if cell.finding is None and not cell.suspect and len(cell.screen) == rule.early:
            cell.suspect = cell.row(rule)["p"] < rule.early_p
    # who may still be suspected at the screen's end counts as a test
    _judge_due(cells, rule, sum(c.finding is None and not c.suspect for c in cells.values()))


def _screen(cell: _Cell, rule: Rule) -> None:
    """Let a cell that cannot be cleared be suspected: from now on fresh trials count."""
    if cell.finding is None and not cell.suspect:
        cell.suspect = len(cell.screen) < LEAST_TIMED or not _clear(cell.row(rule), rule)


def _open(cells: dict[str, _Cell], rule: Rule) -> list[str]:
    """Return the cells that more trials are wanted of."""
    found = []
    for name, cell in cells.items():
        if cell.finding is not None:
            continue
        if cell.suspect:
            wanted = cell.looked < len(rule.looks)
        else:
            seen = cell.row(rule)["margin"]
            wanted = seen > rule.see and len(cell.screen) < rule.most
        if wanted:
            found.append(name)
    return found


def _look(cells: dict[str, _Cell], rule: Rule) -> None:
    """Suspect those that got worse, and judge the suspected that have come to a look."""
    for cell in cells.values():
        _screen(cell, rule)
    _judge_due(cells, rule)


def _judge_due(cells: dict[str, _Cell], rule: Rule, others: int = 0) -> None:
    """Judge who has come to a look; ``others`` may become suspects yet."""
    suspects = [c for c in cells.values() if c.suspect and (c.finding is None or c.fresh)]
    due = [c for c in suspects if _is_due(c, rule)]
    if not due:
        return
    # who has not come to a look yet counts as one more test
    p = [c.row(rule)["p"] if len(c.fresh) >= rule.looks[0] else 1.0 for c in suspects]
    adjusted = holm(np.array(p + [1.0] * others))[: len(p)]
    for cell, value in zip(suspects, adjusted, strict=True):
        if not any(cell is each for each in due):
            continue
        cell.looked += 1
        row = cell.row(rule)
        if _slower(cell, row, float(value), rule):
            cell.finding = _finding(
                cell, row, VerdictKind.FAIL, _said_slower(cell, row, float(value))
            )
        elif row["high"] < row["margin"] <= rule.worst_margin:
            cell.finding = _finding(cell, row, VerdictKind.PASS, _said_fast(row))


def _is_due(cell: _Cell, rule: Rule) -> bool:
    """Return whether a cell is at a look; after the last one there is none."""
    left = rule.looks[cell.looked :]
    return cell.finding is None and bool(left) and len(cell.fresh) >= left[0]


def _slower(cell: _Cell, row: dict[str, float], p: float, rule: Rule) -> bool:
    return (
        p < rule.alpha * rule.spent[cell.looked - 1]
        and row["effect"] >= rule.least_margin
        and _seconds(cell.judged)[1] - _seconds(cell.judged)[0] >= rule.least_s
    )


def _clear(row: dict[str, float], rule: Rule) -> bool:
    return row["p"] >= rule.flag_p and row["high"] < row["margin"] <= rule.worst_margin


def _at_the_end(cell: _Cell, rule: Rule) -> Finding:
    """Return the finding on a cell that was not judged before time was over."""
    if len(cell.judged) < 2:
        heat = f"throttled in {cell.throttled} trials" if cell.throttled else "no time was left"
        known = cell.screen if len(cell.screen) >= 2 else None
        reason = f"{heat}; {len(cell.judged)} trials are no evidence"
        if known is None:
            return Finding(VerdictKind.INCONCLUSIVE, reason)
        row = _weighed(known, rule)
        return _finding(cell, row, VerdictKind.INCONCLUSIVE, f"suspected in the screen; {reason}")
    row = cell.row(rule)
    if not cell.suspect and _clear(row, rule):
        return _finding(cell, row, VerdictKind.PASS, _said_fast(row))
    return _finding(cell, row, VerdictKind.INCONCLUSIVE, _said_undecided(cell, row, rule))


def _by_outcome(reading: Reading) -> Finding:
    if lacks_api(reading.base, reading.head):
        assert reading.base is not None
        return Finding(
            VerdictKind.INCOMPARABLE, f"base lacks what the suite calls: {reading.base[1]}"
        )
    return Finding(*judge_outcomes(reading.base, reading.head))


def _weighed(readings: Sequence[Reading], rule: Rule) -> dict[str, float]:
    """Return one cell's evidence as plain numbers."""
    d = np.array([[r.d for r in readings]], dtype=np.float64)
    a = np.array([[r.a for r in readings]], dtype=np.float64)
    found = weigh(d, a, rule)
    names = ("effect", "low", "high", "margin", "noise", "p")
    return {name: float(getattr(found, name)[0]) for name in names}


def _finding(cell: _Cell, row: dict[str, float], kind: VerdictKind, reason: str) -> Finding:
    judged = cell.judged if len(cell.judged) >= 2 else cell.screen
    base_s, head_s = _seconds(judged)
    numbers = {n: row[n] for n in ("effect", "low", "high", "margin", "p")}
    often = sum("bimodal" in r.flags for r in judged) > len(judged) / 2
    flags = dict.fromkeys(["bimodal within most trials"] if often else [])
    if len(judged) >= 10 and is_bimodal(np.exp([r.d for r in judged if r.d is not None])):
        flags["trials in two clusters"] = None
    told = reason + "".join(f"; {flag}" for flag in flags)
    if cell.throttled:
        told += f"; {cell.throttled} trials left out: throttled"
    return Finding(
        kind, told, **numbers, trials=len(judged), fresh=cell.suspect and judged is cell.fresh,
        base_s=base_s, head_s=head_s, d=tuple(r.d for r in judged if r.d is not None),
    )  # fmt: skip


def _seconds(readings: Sequence[Reading]) -> tuple[float, float]:
    base = [r.base_s for r in readings if r.base_s is not None]
    head = [r.head_s for r in readings if r.head_s is not None]
    return float(np.median(base)), float(np.median(head))


def _said_slower(cell: _Cell, row: dict[str, float], p: float) -> str:
    return (
        f"slower by {_percent(row['effect'])} ({_percent(row['low'])} to {_percent(row['high'])}), "
        f"p = {p:.1g} over {len(cell.fresh)} fresh trials"
    )


def _said_fast(row: dict[str, float]) -> str:
    seen = f"a slow-down of {_percent(row['margin'])} would show"
    return f"at most {_percent(row['high'])} slower; {seen}"


def _said_undecided(cell: _Cell, row: dict[str, float], rule: Rule) -> str:
    between = f"{_percent(row['low'])} to {_percent(row['high'])}"
    if row["margin"] > rule.worst_margin:
        return (
            f"too noisy: {len(cell.judged)} trials cannot see less than {_percent(row['margin'])} "
            f"({between})"
        )
    return f"neither slower nor as fast: {between} after {len(cell.judged)} trials"


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %"


def _counted(cells: dict[str, _Cell], names: Sequence[str]) -> str:
    suspects = sum(cells[n].suspect for n in names)
    return f"confirm: {suspects} cells suspected, {len(names) - suspects} to be seen better"
