"""Trials on a real machine: three fresh processes take turns, lap after lap."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.gating.child import READY_S, Child, Died
from bench.gating.evidence import half_width, reading
from bench.gating.order import chunked, shuffled, turns
from bench.gating.readings import NO_TURN, Reading, Trial
from bench.gating.sides import Side
from bench.records import Cell, Flag, Measurement, Status

LEAST_LAPS, MOST_LAPS = 8, 16
PRECISE = 0.01  # of most cells, within a trial: processes differ by more than that
MOST = 0.9
TURN_S = 0.1
CHUNK_BYTES = {"cpu": 2 * 2**30, "cuda": 8 * 2**30}  # of each of three processes
# Threads of torch's pool spin on when their work is done. On two busy cores the median over 20 laps
# scattered by 2.2 % after rests of 5 ms, by 1.3 % after 20 ms; after 1 ms, with a turn for each
# cell, by 9 %, and calls took half as long again.
REST_S = {"cpu": 0.02, "cuda": 0.0}
ROLES = ("base", "head", "again")
Keep = Callable[[dict[str, Any]], None]


@dataclass
class Machine:
    """Where trials are made.

    Attributes:
        base, head: the sides. folder: temporary, for requests and what a side finds out.
        request: device, dtype, mode and implementations.
        keep: told one record a process, so that nothing is lost.
    """

    base: Side
    head: Side
    cells: dict[str, Cell]
    folder: Path
    request: dict[str, Any]
    keep: Keep = lambda _: None
    seed: int = 0
    made: int = 0
    environments: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take(self, names: Sequence[str]) -> Trial:
        """Return one trial of these cells; what does not fit in memory together is taken apart.

        A cell whose code ends a process twice is left out, and blamed.

        Raises:
            Died: a process that cannot be loaded, or ends before any cell.
        """
        sizes = {name: held_bytes(self.cells[name]) for name in names}
        found: Trial = {}
        for chunk in chunked(names, sizes, CHUNK_BYTES[self.request["device"]]):
            found |= self._take(chunk)
        return found

    def _take(self, names: Sequence[str]) -> Trial:
        left, blamed = list(names), dict[str, Reading]()
        deaths: dict[str | None, int] = {}
        while left:
            try:
                found = self._trial(left)
            except Died as death:
                deaths[death.cell] = deaths.get(death.cell, 0) + 1
                if deaths[death.cell] < 2:
                    continue  # once more: the machine itself may have hiccuped
                if death.no_api or death.cell not in left:
                    raise
                left.remove(death.cell)
                blamed[death.cell] = _blamed(death)
                continue
            return found | blamed
        return dict(blamed)

    def _trial(self, names: list[str]) -> Trial:
        self.made += 1
        order = shuffled(names, self.seed + self.made)
        places = [ROLES[(i + self.made) % 3] for i in range(3)]
        children: dict[str, Child] = {}
        try:
            for role in places:
                side = self.head if role == "head" else self.base
                children[role] = self._start(side, order, 10 * self.made + len(children))
            for child in children.values():
                child.answer(READY_S)
            # one after the other: three that share two cores wait for each other's threads
            for child in children.values():
                child.ask(READY_S, do="prepare")
            samples = self._laps(children, order)
            ends = {role: child.ask(READY_S, do="finish") for role, child in children.items()}
        finally:
            for child in children.values():
                child.end()
        measured = {role: self._measurements(role, end, places) for role, end in ends.items()}
        return {n: _reading({r: m[n] for r, m in measured.items()}, samples, n) for n in names}

    def _start(self, side: Side, order: list[str], number: int) -> Child:
        cells = [self.cells[name].to_dict() for name in order]
        request = {**self.request, "cells": cells, "cache": str(self.folder / f"cache-{side.name}")}
        return Child(side, self.folder, request, number)

    def _laps(
        self, children: dict[str, Child], order: list[str]
    ) -> dict[str, dict[str, list[float]]]:
        """Return {role: {cell: seconds, lap by lap}} of the cells that all three went on with."""
        warm = [child.ask(do="warm") for child in children.values()]
        able = [name for name in order if all(name in found for found in warm)]
        groups = turns(able, {n: max(found[n] for found in warm) for n in able}, TURN_S)
        samples: dict[str, dict[str, list[float]]] = {r: {n: [] for n in able} for r in children}
        roles = list(children)
        for lap in range(MOST_LAPS):
            for group in groups:
                for role in roles:
                    time.sleep(REST_S[self.request["device"]])
                    found = children[role].ask(do="turn", cells=group)
                    for name, seconds in found.items():
                        samples[role][name].append(seconds)
            roles.append(roles.pop(0))
            if lap + 1 >= LEAST_LAPS and _precise(samples, able):
                break
        return samples

    def _measurements(
        self, role: str, end: list[dict[str, Any]], places: list[str]
    ) -> dict[str, Measurement]:
        found = {}
        side = self.head if role == "head" else self.base
        about = {"trial": self.made, "role": role, "place": places.index(role), "side": side.name}
        lines = [record["measurement"] for record in end if "measurement" in record]
        self.environments[side.name] = next(r["environment"] for r in end if "environment" in r)
        self.keep(about | {"measurements": lines})
        for line in lines:
            measurement = Measurement.from_dict(line)
            found[measurement.cell.cell_id] = measurement
        return found


def held_bytes(cell: Cell) -> int:
    """Return about what a process keeps of a cell: inputs, copies, outputs, the oracle's."""
    shape = cell.case.shape
    x = shape.N * shape.C * shape.H * shape.W
    y = shape.N * shape.K * shape.P * shape.Q
    return 4 * (2 * (x + y) + 3 * max(x, y)) + 16 * shape.K * shape.C * shape.R * shape.S


def _precise(samples: dict[str, dict[str, list[float]]], names: list[str]) -> bool:
    widths = []
    for name in names:
        rows = [np.array(samples[role][name]) for role in ROLES]
        if len({len(row) for row in rows}) == 1 and len(rows[0]):
            widths.append(half_width(*rows))
    return not widths or float(np.quantile(widths, MOST)) <= PRECISE


def _reading(
    measured: dict[str, Measurement], samples: dict[str, dict[str, list[float]]], name: str
) -> Reading:
    """Return what a trial says of a cell: numbers, or what became of it."""
    flags = sorted({str(f) for m in measured.values() for f in m.flags})
    bad = {r: m for r, m in measured.items() if m.status is not Status.OK}
    own = {r: m for r, m in bad.items() if NO_TURN not in (m.reason or "")}
    bad = own or bad
    outcome = {
        side: next((bad[r] for r in roles if r in bad), None)
        for side, roles in (("base", ("base", "again")), ("head", ("head",)))
    }
    told = {side: (str(m.status), m.reason or "") if m else None for side, m in outcome.items()}
    if bad:
        return Reading(flags=tuple(flags), base=told["base"], head=told["head"])
    rows = [np.array(samples[role][name]) for role in ROLES]
    d, a = reading(*rows)
    times = [float(np.median(row)) for row in rows]
    return Reading(
        d=d,
        a=a,
        base_s=(times[0] * times[2]) ** 0.5,
        head_s=times[1],
        flags=tuple(flags),
        throttled=str(Flag.THROTTLED) in flags,
    )


def _blamed(death: Died) -> Reading:
    status = Status.TIMEOUT if "longer than" in death.reason else Status.CRASHED
    told = (str(status), f"{death.reason}, twice")
    return Reading(base=told) if death.side == "base" else Reading(head=told)
