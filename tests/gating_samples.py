"""Trials made up for the tests of the gate's decisions: nothing was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import special

from bench.gating.decide import Finding, decide
from bench.gating.readings import Reading, Trial
from bench.gating.rehearsal import Pool
from bench.gating.rule import Rule

RULE = Rule()
LATE = replace(RULE, early_p=0.0)  # nobody is suspected before the screen is over
FOUR = replace(LATE, looks=(4,), spent=(1.0,))  # one look, after four fresh trials
ERROR_OF_FOUR = 0.5  # of ``steady``'s spread: sqrt((4 + 0.75 * 4) / 7 / 4)
UNLIMITED = 1e9  # seconds
Says = Callable[[int], Reading]  # number of a cell's trial -> what it says


def timed(d: float, a: float = 0.0, **changes: Any) -> Reading:
    """Return a trial with times, of a call that takes a millisecond."""
    return replace(Reading(d, a, base_s=1e-3, head_s=1e-3 * float(np.exp(d))), **changes)


def steady(effect: float, spread: float = 0.002, **changes: Any) -> Says:
    """Return what a cell says that is slower by ``effect``: above it, below it, and so on."""
    middle = float(np.log1p(effect))

    def says(number: int) -> Reading:
        off = -spread if number % 2 else spread
        return timed(middle + off, -off, **changes)

    return says


def then(count: int, first: Says, later: Says) -> Says:
    """Return what a cell says that changes after so many of its trials."""
    return lambda number: first(number) if number < count else later(number - count)


def listed(readings: Sequence[Reading]) -> Says:
    """Return what a cell says that goes through these again and again."""
    return lambda number: readings[number % len(readings)]


def hot(number: int) -> Reading:
    """Return a trial that heat spoilt: twenty times as slow, if one believed it."""
    return timed(3.0, throttled=True)


def with_p(p: float, spread: float = 0.02) -> Says:
    """Return what a cell says that has this p after four trials, and is 3 % slower or more."""
    middle = np.log1p(RULE.tolerance) - ERROR_OF_FOUR * spread * special.stdtrit(7, p)
    assert np.expm1(middle) >= RULE.least_margin
    return steady(float(np.expm1(middle)), spread)


BAD = steady(0.10, 0.04)  # clear in the screen, and not yet after the first trials of it


def suspected(later: Says) -> Says:
    """Return what a cell says that has a bad screen, and is ``later`` from then on."""
    return then(RULE.screen, BAD, later)


class Script:
    """A source that was written down: ``affordable`` trials of one cell each are paid for."""

    def __init__(self, cells: Mapping[str, Says], affordable: float = float("inf")) -> None:
        self.cells, self.affordable, self.paid = cells, affordable, 0
        self.asked: list[tuple[str, ...]] = []
        self.priced: list[tuple[int, int]] = []
        self.seen: Counter[str] = Counter()

    def take(self, names: Sequence[str]) -> Trial:
        """Return the next trial of these cells."""
        self.asked.append(tuple(names))
        self.paid += len(names)
        found = {name: self.cells[name](self.seen[name]) for name in names}
        self.seen.update(names)
        return found

    def affords(self, cells: int, trials: int = 1) -> bool:
        """Return whether so many more are paid for."""
        assert cells > 0
        assert trials > 0
        self.priced.append((cells, trials))
        return self.paid + cells * trials <= self.affordable


def decided(
    cells: Mapping[str, Says], rule: Rule = RULE, affordable: float = float("inf")
) -> tuple[dict[str, Finding], Script]:
    """Return the findings on these cells, and the source that was asked."""
    source = Script(cells, affordable)
    return decide(list(cells), source, rule), source


def alone(says: Says, rule: Rule = RULE, affordable: float = float("inf")) -> Finding:
    """Return the finding on one cell that is measured by itself."""
    return decided({"a": says}, rule, affordable)[0]["a"]


Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray[Any, Any]]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return normal noise of variance 1."""
    return rng.normal(size=shape)


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return Student's t with 3 degrees of freedom, of variance 1: some processes are far off."""
    return rng.standard_t(3, size=shape) / np.sqrt(3)


def pool(
    spread: float, draw: Draw = normal, seed: int = 1, cells: int = 20, trials: int = 400
) -> Pool:
    """Return trials of processes of equal code whose log times scatter by ``spread``."""
    logs = spread * draw(np.random.default_rng(seed), (3, cells, trials))
    turns = [(logs[i], logs[(i + 1) % 3], logs[(i + 2) % 3]) for i in range(3)]
    d = np.stack([head - (base + again) / 2 for base, head, again in turns], axis=1)
    a = np.stack([again - base for base, head, again in turns], axis=1)
    return Pool(d, a, np.full(cells, 1e-3), fixed_s=2.0, cell_s=0.5)


def numbered(cells: int, trials: int) -> Pool:
    """Return a pool whose readings say where they are from."""
    c, r, t = np.indices((cells, 3, trials))
    d = (1000 * c + 100 * r + t) / 1e5
    return Pool(d, -d, 1e-3 * (1 + np.arange(cells)), fixed_s=2.0, cell_s=0.5)
