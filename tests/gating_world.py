"""Stands in for the processes of a trial: tests say what becomes of which cell on which side."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from bench.gating import trials
from bench.gating.child import STEP_S, Died
from bench.gating.sides import Side
from bench.gating.trials import TURN_S, Machine
from bench.records import Flag, Status
from tests.store_samples import cell, failed

CELLS = {m.cell.cell_id: m.cell for m in (cell(i) for i in range(4))}
NAMES = list(CELLS)


class World:
    """All processes.

    Attributes:
        seconds: (place, cell, lap) -> seconds a call; place is the order of starting.
        outcomes: (side or place, cell) -> what is not ok there. deaths: how often a side dies at a
            cell's turn, by (side, cell); None for the cell dies as it starts.
        log: (trial, place, order, cells) of every order. waited: order -> limits, in seconds.
    """

    def __init__(self) -> None:
        self.seconds = lambda place, name, lap: 1e-3
        self.outcomes: dict[tuple[str | int, str], Status] = {}
        self.deaths: dict[tuple[str, str | None], int] = {}
        self.reason, self.no_api = "its process ended: killed by SIGSEGV", False
        self.turn_s: dict[str, float] = {}
        self.flags: tuple[Flag, ...] = ()
        self.children: list[Stand] = []
        self.log: list[tuple[int, int, str, tuple[str, ...]]] = []
        self.records: list[dict[str, Any]] = []
        self.waited: defaultdict[str, set[float]] = defaultdict(set)

    def start(self, side: Side, folder: Path, request: dict[str, Any], number: int) -> Stand:
        self.children.append(Stand(self, side, request, number))
        return self.children[-1]

    def turns(self, trial: int = 1) -> list[tuple[int, tuple[str, ...]]]:
        return [(place, group) for t, place, do, group in self.log if (t, do) == (trial, "turn")]


class Stand:
    """One process that is none."""

    def __init__(self, world: World, side: Side, request: dict[str, Any], number: int) -> None:
        self.world, self.side, self.request = world, side, request
        self.trial, self.place = divmod(number, 10)
        self.names = [trials.Cell.from_dict(each).cell_id for each in request["cells"]]
        self.laps: Counter[str] = Counter()
        self.ended = False

    def answer(self, limit_s: float = STEP_S) -> dict[str, Any]:
        self.world.waited[""].add(limit_s)
        self._live(None)
        return {}

    def ask(self, limit_s: float = STEP_S, *, do: str, cells: tuple[str, ...] = ()) -> Any:
        self.world.waited[do].add(limit_s)
        self.world.log.append((self.trial, self.place, do, tuple(cells)))
        return getattr(self, f"_{do}")(cells)

    def end(self) -> None:
        self.ended = True

    def _live(self, name: str | None) -> None:
        left = self.world.deaths.get((self.side.name, name), 0)
        if left:
            self.world.deaths[self.side.name, name] = left - 1
            raise Died(self.side.name, name, self.world.reason, self.world.no_api)

    def _prepare(self, _: object) -> dict[str, Any]:
        return {}

    def _warm(self, _: object) -> dict[str, float]:
        well = [name for name in self.names if self._outcome(name) is None]
        return {name: self.world.turn_s.get(name, TURN_S) for name in well}

    def _outcome(self, name: str) -> Status | None:
        of_side = self.world.outcomes.get((self.side.name, name))
        return of_side or self.world.outcomes.get((self.place, name))

    def _turn(self, names: tuple[str, ...]) -> dict[str, float]:
        found = {}
        for name in names:
            self._live(name)
            found[name] = self.world.seconds(self.place, name, self.laps[name])
            self.laps[name] += 1
        return found

    def _finish(self, _: object) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = [{"environment": {"device": "cpu", "of": self.side.name}}]
        for name in self.names:
            number = NAMES.index(name)
            status = self._outcome(name)
            measured = failed(status, number) if status else cell(number, flags=self.world.flags)
            lines.append({"measurement": measured.to_dict()})
        return lines


def stand_in(world: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine whose processes are of this world."""
    monkeypatch.setattr(trials, "Child", world.start)
    monkeypatch.setattr(trials.time, "sleep", lambda _: None)
    base, head = (Side(name, name, False, folder / name) for name in ("base", "head"))
    request = {"device": "cpu", "dtype": "float32", "mode": "hot", "impls": ["block_sparse"]}
    return Machine(base, head, CELLS, folder, request, world.records.append)
