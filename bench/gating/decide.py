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

from bench.gating.course import (
    Course,
    Finding,
    conclude,
    said_fast,
    said_slower,
    said_undecided,
    seconds_of,
    weighed,
)
from bench.gating.evidence import holm
from bench.gating.readings import Trial
from bench.gating.rule import Rule
from bench.gating.unrest import wild
from bench.verdict import VerdictKind

LEAST_TIMED = 3  # trials of the screen; the others were throttled
HOT = 3  # trials in a row that were nothing but throttled end the run
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


def decide(
    names: Sequence[str], source: Source, rule: Rule, tell: Tell = lambda *_: None
) -> dict[str, Finding]:
    """Return a finding for every cell, in the order of ``names``.

    Raises:
        BudgetTooSmall: no time for the screen.
    """
    run = _Run({name: Course() for name in names}, source, rule)
    cells = run.cells
    for made in range(rule.screen):
        left = [name for name, cell in cells.items() if cell.finding is None]
        if left and not source.affords(len(left), rule.screen - made):
            raise BudgetTooSmall(
                f"expected time for the screen's {rule.screen} trials of {len(left)} cells, got a "
                f"budget that is too small for it, seen after {made}"
            )
        tell(made, rule.screen, f"screen: {len(left)} cells")
        run.take(left)
        _suspect_early(cells, rule)
    run.replace_wild(tell)
    run.hot = 0
    for cell in cells.values():
        _screen(cell, rule)
    while (left := _open(cells, rule)) and run.hot < HOT:
        if not source.affords(len(left)):
            break
        most = max(len(cells[n].judged) for n in left)
        tell(most, rule.looks[-1], f"{_counted(cells, left)}")
        run.take(left)
        _look(cells, rule)
    return {name: cell.finding or _at_the_end(cell, rule) for name, cell in cells.items()}


@dataclass
class _Run:
    """All cells on their way; ``hot`` trials in a row had no times but throttled ones."""

    cells: dict[str, Course]
    source: Source
    rule: Rule
    trials: list[Trial] = field(default_factory=list)
    hot: int = 0

    def take(self, names: Sequence[str]) -> None:
        """Take a trial of these cells, and leave it out if it is a wild one."""
        if not names:
            return
        trial = self.source.take(names)
        for name, reading in trial.items():
            self.cells[name].add(reading)
        told = any(r.timed or self.cells[n].finding for n, r in trial.items())
        self.hot = 0 if told else self.hot + 1
        self.trials.append(trial)
        if len(self.trials) > self.rule.screen and len(self.trials) - 1 in wild(self.trials):
            self._drop(trial)

    def replace_wild(self, tell: Tell) -> None:
        """Take other trials in the place of those of the screen that turn out to be wild."""
        out = wild(self.trials)
        for number in out:
            self._drop(self.trials[number])
        for made, _ in enumerate(out):
            left = [name for name, cell in self.cells.items() if cell.finding is None]
            if not left or not self.source.affords(len(left)):
                return
            tell(self.rule.screen + made, self.rule.screen, f"screen, again: {len(left)} cells")
            self.take(left)

    def _drop(self, trial: Trial) -> None:
        for name in trial:
            if self.cells[name].finding is None:
                self.cells[name].drop(trial)


def _suspect_early(cells: dict[str, Course], rule: Rule) -> None:
    """Suspect whoever is so slow that a few trials show it, and look at those that were."""
    for cell in cells.values():
        if cell.finding is None and not cell.suspect and len(cell.screen) == rule.early:
            cell.suspect = cell.row(rule)["p"] < rule.early_p
    # who may still be suspected at the screen's end counts as a test
    _judge_due(cells, rule, sum(c.finding is None and not c.suspect for c in cells.values()))


def _screen(cell: Course, rule: Rule) -> None:
    """Let a cell that cannot be cleared be suspected: from now on fresh trials count."""
    if cell.finding is None and not cell.suspect:
        cell.suspect = len(cell.screen) < LEAST_TIMED or not _clear(cell.row(rule), rule)


def _open(cells: dict[str, Course], rule: Rule) -> list[str]:
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


def _look(cells: dict[str, Course], rule: Rule) -> None:
    """Suspect those that got worse, and judge the suspected that have come to a look."""
    for cell in cells.values():
        _screen(cell, rule)
    _judge_due(cells, rule)


def _judge_due(cells: dict[str, Course], rule: Rule, others: int = 0) -> None:
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
            cell.finding = conclude(
                cell, row, VerdictKind.FAIL, said_slower(cell, row, float(value))
            )
        elif row["high"] < row["margin"] <= rule.worst_margin:
            cell.finding = conclude(cell, row, VerdictKind.PASS, said_fast(row))


def _is_due(cell: Course, rule: Rule) -> bool:
    """Return whether a cell is at a look; after the last one there is none."""
    left = rule.looks[cell.looked :]
    return cell.finding is None and bool(left) and len(cell.fresh) >= left[0]


def _slower(cell: Course, row: dict[str, float], p: float, rule: Rule) -> bool:
    return (
        p < rule.alpha * rule.spent[cell.looked - 1]
        and row["effect"] >= rule.least_margin
        and seconds_of(cell.judged)[1] - seconds_of(cell.judged)[0] >= rule.least_s
    )


def _clear(row: dict[str, float], rule: Rule) -> bool:
    return row["p"] >= rule.flag_p and row["high"] < row["margin"] <= rule.worst_margin


def _at_the_end(cell: Course, rule: Rule) -> Finding:
    """Return the finding on a cell that was not judged before time was over."""
    if len(cell.judged) < 2:
        heat = f"throttled in {cell.throttled} trials" if cell.throttled else "no time was left"
        known = cell.screen if len(cell.screen) >= 2 else None
        reason = f"{heat}; {len(cell.judged)} trials are no evidence"
        if known is None:
            return Finding(VerdictKind.INCONCLUSIVE, reason)
        row = weighed(known, rule)
        return conclude(cell, row, VerdictKind.INCONCLUSIVE, f"suspected in the screen; {reason}")
    row = cell.row(rule)
    if not cell.suspect and _clear(row, rule):
        return conclude(cell, row, VerdictKind.PASS, said_fast(row))
    return conclude(cell, row, VerdictKind.INCONCLUSIVE, said_undecided(cell, row, rule))


def _counted(cells: dict[str, Course], names: Sequence[str]) -> str:
    suspects = sum(cells[n].suspect for n in names)
    return f"confirm: {suspects} cells suspected, {len(names) - suspects} to be seen better"
