"""Virtual gate runs out of real trials: how often the gate cries wolf, and how often it sleeps.

The pool is trials of three processes of equal code. Each of the three may stand for head, so a
pool of n trials of c cells holds 3 c n readings. A virtual run draws trials in blocks of
neighbours, for noise drifts, and goes through the same decisions as a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.gating.decide import BudgetTooSmall, Finding, decide
from bench.gating.evidence import reading
from bench.gating.readings import Reading, Trial
from bench.gating.rule import Rule
from bench.verdict import VerdictKind

BLOCK = 3  # neighbouring trials that are drawn together
CELLS = 20  # of a virtual run
ROLES = ("base", "head", "again")


@dataclass(frozen=True)
class Pool:
    """Readings of equal code.

    Attributes:
        d, a: [cells, roles, trials], see ``evidence``. base_s: [cells], seconds a call.
        fixed_s, cell_s: what a trial takes: fixed_s + cells * cell_s.
    """

    d: np.ndarray[Any, Any]
    a: np.ndarray[Any, Any]
    base_s: np.ndarray[Any, Any]
    fixed_s: float
    cell_s: float

    @property
    def trials(self) -> int:
        """How many trials it holds."""
        return int(self.d.shape[2])


@dataclass(frozen=True)
class Rates:
    """What many virtual runs came to; shares with 95 % intervals.

    Attributes:
        alarms: runs with a cell of equal code called slower. inconclusive: runs that ended so.
        found: planted cells called slower; NaN where nothing was planted.
        visible: the smallest slow-down that would have shown in every cell, median over runs.
        seconds: wall time of a run, median and 95th percentile.
    """

    runs: int
    alarms: tuple[float, float, float]
    inconclusive: tuple[float, float, float]
    found: tuple[float, float, float]
    visible: float
    seconds: tuple[float, float]


def pool_of(records: Sequence[dict[str, Any]], fixed_s: float, cell_s: float) -> Pool:
    """Return the pool that a gate's trial records hold; cells that failed anywhere are left out.

    Raises:
        ValueError: fewer than two whole trials, or no cell with times in all of them.
    """
    trials: dict[Any, dict[str, dict[str, np.ndarray[Any, Any]]]] = {}
    for record in records:
        lanes = trials.setdefault(record["trial"], {})
        for line in record["measurements"]:
            samples = np.array(line["samples_s"], dtype=np.float64)
            lanes.setdefault(line["cell_id"], {})[record["role"]] = samples
    cells = [
        c for c in next(iter(trials.values()), {}) if all(_whole(t.get(c)) for t in trials.values())
    ]
    if len(trials) < 2 or not cells:
        raise ValueError(
            f"expected two trials with times, got {len(trials)} with {len(cells)} cells"
        )
    order = sorted(trials)
    readings = np.array(
        [[[_turned(trials[t][c], role) for t in order] for role in range(3)] for c in cells]
    )
    base_s = np.array(
        [np.median(np.concatenate([trials[t][c]["base"] for t in order])) for c in cells]
    )
    return Pool(readings[..., 0], readings[..., 1], base_s, fixed_s, cell_s)


def _whole(lane: dict[str, np.ndarray[Any, Any]] | None) -> bool:
    return (
        lane is not None
        and len(lane) == 3
        and len({len(s) for s in lane.values()}) == 1
        and all(map(len, lane.values()))
    )


def _turned(lane: dict[str, np.ndarray[Any, Any]], role: int) -> tuple[float, float]:
    """Return (d, a) with another of the three as head."""
    rows = [lane[ROLES[(i + role) % 3]] for i in range(3)]
    return reading(rows[0], rows[1], rows[2])


class Virtual:
    """A source of trials drawn from a pool; ``planted`` maps a cell to its slow-down, a share."""

    def __init__(
        self, pool: Pool, rng: np.random.Generator, planted: dict[str, float], budget_s: float,
        trials: np.ndarray[Any, Any],
    ) -> None:  # fmt: skip
        self.pool, self.rng, self.budget_s = pool, rng, budget_s
        self.planted = {name: float(np.log1p(effect)) for name, effect in planted.items()}
        cells = pool.d.shape[0]
        combos = rng.permutation(3 * cells)[:CELLS]
        self.picks = {str(i): divmod(int(each), 3) for i, each in enumerate(combos)}
        self.trials, self.seconds = trials, 0.0
        self._queue: list[int] = []

    def take(self, names: Sequence[str]) -> Trial:
        """Return one drawn trial."""
        self.seconds += self._cost(len(names))
        if not self._queue:
            start = int(self.rng.integers(len(self.trials)))
            self._queue = [int(self.trials[(start + i) % len(self.trials)]) for i in range(BLOCK)]
        index = self._queue.pop(0)
        return {name: self._reading(name, index) for name in names}

    def affords(self, cells: int, trials: int = 1) -> bool:
        """Return whether the virtual clock has time for more."""
        return self.seconds + trials * self._cost(cells) <= self.budget_s

    def _cost(self, cells: int) -> float:
        return self.pool.fixed_s + cells * self.pool.cell_s

    def _reading(self, name: str, index: int) -> Reading:
        cell, role = self.picks[name]
        extra = self.planted.get(name, 0.0)
        base_s = float(self.pool.base_s[cell])
        d = float(self.pool.d[cell, role, index]) + extra
        return Reading(d, float(self.pool.a[cell, role, index]), base_s, base_s * float(np.exp(d)))


Tell = Callable[[int, int, str], None]


def rehearse(
    pool: Pool, rule: Rule, budget_s: float, seed: int, *, effect: float = 0.0,
    pools: int = 40, runs: int = 25, tell: Tell = lambda *_: None,
) -> Rates:  # fmt: skip
    """Return what virtual runs of 20 cells come to, one of them slowed down by ``effect``.

    The pool itself is drawn anew ``pools`` times, in blocks, and ``runs`` runs are made of each:
    the intervals are those of the rates over pools, and so count how few trials there are.
    """
    rng = np.random.default_rng(seed)
    planted = {"0": effect} if effect else {}
    rates: list[np.ndarray[Any, Any]] = []
    visible: list[float] = []
    seconds: list[float] = []
    for number in range(pools):
        tell(number, pools, f"virtual runs, slow-down {effect:.0%}")
        drawn = _drawn(pool.trials, rng)
        calm = centred(pool, drawn)
        counts = np.zeros(3)
        for _ in range(runs):
            source = Virtual(calm, rng, planted, budget_s, drawn)
            counts += _outcome(source, rule, planted, visible)
            seconds.append(source.seconds)
        rates.append(counts / runs)
    alarms, inconclusive, found = (_share([float(r[i]) for r in rates]) for i in range(3))
    return Rates(
        runs=pools * runs,
        alarms=alarms,
        inconclusive=inconclusive,
        found=found if planted else (float("nan"),) * 3,
        visible=float(np.median(visible)) if visible else float("nan"),
        seconds=(float(np.median(seconds)), float(np.quantile(seconds, 0.95))),
    )


def _share(rates: list[float]) -> tuple[float, float, float]:
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(np.mean(rates)), float(low), float(high)


def centred(pool: Pool, drawn: np.ndarray[Any, Any]) -> Pool:
    """Return the pool with drawn trials whose mean is nothing, for each cell and role.

    Any of three processes of equal code may stand for head, so the true mean is 0; that of a few
    trials is not, and virtual runs of many trials would find it, as a slow-down of a per cent or
    two that is there. What scatters is made larger by as much as taking the mean off it takes.
    """
    part = pool.d[:, :, drawn]
    wider = (len(drawn) / (len(drawn) - 1)) ** 0.5
    d = np.array(pool.d)
    d[:, :, drawn] = (part - part.mean(axis=2, keepdims=True)) * wider
    return replace(pool, d=d)


def _drawn(trials: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    starts = rng.integers(trials, size=-(-trials // BLOCK))
    return np.concatenate([(s + np.arange(BLOCK)) % trials for s in starts])[:trials]


def _outcome(
    source: Virtual, rule: Rule, planted: dict[str, float], visible: list[float]
) -> np.ndarray[Any, Any]:  # fmt: skip
    """Return (a false alarm, inconclusive, planted cell found) as ones and zeros."""
    try:
        found = decide(list(source.picks), source, rule)
    except BudgetTooSmall:
        return np.array([0.0, 1.0, 0.0])
    failed = {name for name, each in found.items() if each.kind is VerdictKind.FAIL}
    open_ = any(each.kind is VerdictKind.INCONCLUSIVE for each in found.values())
    visible.append(max(_margin(each) for each in found.values()))
    return np.array([
        bool(failed - set(planted)), open_ and not failed, bool(failed & set(planted))
    ], dtype=np.float64)  # fmt: skip


def _margin(found: Finding) -> float:
    return float("inf") if found.margin is None else found.margin
