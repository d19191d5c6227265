"""Virtual gate runs out of real trials: how often the gate cries wolf, and how often it sleeps.

The pool is trials of three processes of equal code. A virtual run draws trials in blocks of
neighbours, for noise drifts, and goes through the same decisions as a real one. In each trial
that it draws, dice say which of the three processes stands for head. So readings of equal code
have a mean of nothing, but for what medians of laps leave, however few trials there are; and so
virtual runs are blind to a harness that favours one place: :func:`favoured` asks for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.gating.decide import BudgetTooSmall, Finding, decide
from bench.gating.evidence import reading
from bench.gating.readings import Reading, Trial
from bench.gating.rule import Rule
from bench.records import Flag
from bench.stats import mean_interval
from bench.verdict import VerdictKind

BLOCK = 3  # neighbouring trials that are drawn together
CELLS = 20  # of a virtual run at most
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
    """Return the pool that a gate's trial records hold.

    Trials that heat held back are left out, and those that lack more than a tenth of the cells
    that others have; then cells that failed in one of the rest.

    Raises:
        ValueError: fewer than two whole trials, or no cell with times in all of them.
    """
    trials: dict[Any, dict[str, dict[str, np.ndarray[Any, Any]]]] = {}
    hot = set()
    for record in records:
        lanes = trials.setdefault(record["trial"], {})
        for line in record["measurements"]:
            samples = np.array(line["samples_s"], dtype=np.float64)
            lanes.setdefault(line["cell_id"], {})[record["role"]] = samples
            if str(Flag.THROTTLED) in line.get("flags", ()):
                hot.add(record["trial"])
    order = _complete(trials, hot)
    cells = [c for c in (trials[order[0]] if order else ()) if all(
        _whole(trials[t].get(c)) for t in order
    )]  # fmt: skip
    if len(order) < 2 or not cells:
        raise ValueError(
            f"expected two trials with times, got {len(order)} with {len(cells)} cells"
        )
    readings = np.array(
        [[[_turned(trials[t][c], role) for t in order] for role in range(3)] for c in cells]
    )
    base_s = np.array(
        [np.median(np.concatenate([trials[t][c]["base"] for t in order])) for c in cells]
    )
    return Pool(readings[..., 0], readings[..., 1], base_s, fixed_s, cell_s)


def _complete(trials: dict[Any, Any], hot: set[Any]) -> list[Any]:
    """Return the trials that a pool is made of, in the order in which they were made."""
    whole = {t: sum(map(_whole, lanes.values())) for t, lanes in trials.items() if t not in hot}
    most = max(whole.values(), default=0)
    return sorted(t for t, count in whole.items() if count >= 0.9 * most)


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
        cells = rng.permutation(pool.d.shape[0])[:CELLS]
        self.picks = {str(i): int(each) for i, each in enumerate(cells)}
        self.trials, self.seconds = trials, 0.0
        self._queue: list[int] = []

    def take(self, names: Sequence[str]) -> Trial:
        """Return one drawn trial."""
        self.seconds += self._cost(len(names))
        if not self._queue:
            start = int(self.rng.integers(len(self.trials)))
            self._queue = [int(self.trials[(start + i) % len(self.trials)]) for i in range(BLOCK)]
        index, role = self._queue.pop(0), int(self.rng.integers(3))
        return {name: self._reading(name, role, index) for name in names}

    def affords(self, cells: int, trials: int = 1) -> bool:
        """Return whether the virtual clock has time for more."""
        return self.seconds + trials * self._cost(cells) <= self.budget_s

    def _cost(self, cells: int) -> float:
        return self.pool.fixed_s + cells * self.pool.cell_s

    def _reading(self, name: str, role: int, index: int) -> Reading:
        cell = self.picks[name]
        extra = self.planted.get(name, 0.0)
        base_s = float(self.pool.base_s[cell])
        d = float(self.pool.d[cell, role, index]) + extra
        return Reading(d, float(self.pool.a[cell, role, index]), base_s, base_s * float(np.exp(d)))


Tell = Callable[[int, int, str], None]


def rehearse(
    pool: Pool, rule: Rule, budget_s: float, seed: int, *, effect: float = 0.0,
    pools: int = 40, runs: int = 25, tell: Tell = lambda *_: None,
) -> Rates:  # fmt: skip
    """Return what virtual runs of 20 cells come to, or of all where the pool has fewer.

    One of them is slowed down by ``effect``.

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
        counts = np.zeros(3)
        for _ in range(runs):
            source = Virtual(pool, rng, planted, budget_s, drawn)
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


def favoured(pool: Pool) -> tuple[float, float, float]:
    """Return (how much slower head's place made equal code, its 95 % interval), as shares.

    The mean over cells of each trial, and Student's t over trials: cells of one trial are no
    independent witnesses. A fair harness has 0 in the interval.
    """
    logs = pool.d[:, 0].mean(axis=0)  # where head stood for head
    mean, low, high = mean_interval(logs.tolist())
    return float(np.expm1(mean)), float(np.expm1(low)), float(np.expm1(high))


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
