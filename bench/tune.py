"""The fastest right tile of each problem on this GPU: one line a pass, as it goes.

A pass goes through four gates: the offline report, the oracle, the rounds, and once more the
oracle. Only what has passed the first two is ever timed, and only what passes all is chosen.

A line of ``tune.jsonl`` is a finished pass ("done"), one that cannot be made here ("skipped"), or
a candidate that took the device down ("lost"), which the next call leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

from bench.clocks import Clock
from bench.jsonl import Lines, append_line, make_folder, read_lines
from bench.records import SCHEMA, digest
from bench.stats import median, median_interval
from bench.tile_judge import FAILED, OK, DeviceLost, reason_of
from bench.tune_cases import Candidate, Task, candidates, grouped, kernels_digest
from bench.tune_device import Device, Stand
from bench.tune_offline import Objections
from bench.tune_result import (
    DONE,
    DROPPED,
    LOST,
    PRUNED,
    TIMED,
    UNABLE,
    Record,
    TuneResult,
    describe,
)
from bench.tune_rounds import Lane, race
from hrbp_core.kernels.tuned import density_bucket, identity

FILE = "tune.jsonl"
Tell = Callable[[str], None]


def run_tune(
    wanted: Sequence[Task],
    device: Device,
    clock: Clock,
    objections: Objections,
    out: Path,
    minutes: float | None = None,
    tell: Tell = lambda text: None,
) -> TuneResult:
    """Tune the tasks that ``out`` does not know of yet, and append a line for each.

    Args:
        minutes: stop cleanly after these, by the clock.
        tell: called with a line of progress a task.

    Raises:
        StoreError: the folder cannot be used. ClockError: a clock that gives no number.
    """
    deadline = clock.now() + 60 * (inf if minutes is None else minutes)
    make_folder(out)
    path, code = out / FILE, kernels_digest()
    lines = read_lines(path, key="key") if path.exists() else Lines([], [])
    stored, result = {r["key"]: r for r in lines.records}, TuneResult(torn=lines.torn)
    todo = [task for task in wanted if task.key(device.name, code) not in stored]
    for task in wanted:
        if known := stored.get(task.key(device.name, code)):
            result.add(known)
    tell(f"{device.name}: {len(todo)} problems to tune, {len(wanted) - len(todo)} known already")
    if todo and not objections.able:
        tell(f"note: nothing is pruned, there is no offline report for {objections.arch}")
    if clock.now() < deadline:
        objections.foresee(todo, device.processors, device.capability)
    shop = _Shop(device, clock, objections, code, _lost(stored.values()))
    records = shop.records(grouped(todo), lambda: clock.now() >= deadline)
    _keep(records, result, path, len(todo), tell)
    result.left = len(todo) - result.tuned
    return result


def _keep(
    records: Iterator[Record], result: TuneResult, path: Path, count: int, tell: Tell
) -> None:
    """Store and count each record as it comes, until the end or until the device is lost."""
    try:
        for record in records:
            append_line(path, record, key="key")
            result.tuned += 1
            result.add(record)
            tell(f"[{result.tuned}/{count}] {describe(record)}")
    except _Crashed as crash:
        append_line(path, crash.record, key="key")
        result.bad.append(f"FAILED: {crash.record['label']}: {crash.record['reason']}")
        tell(f"the device is lost; the same command goes on without {crash.record['candidate']}")


def _lost(records: Iterable[Record]) -> dict[tuple[str, str], str]:
    """Return (task's key, candidate) -> reason of what took the device down."""
    lost = (r for r in records if r["status"] == LOST)
    return {(r["task"], r["candidate"]): r["reason"] for r in lost}


class _Crashed(Exception):
    """A candidate took the device down; ``record`` is the line that says so."""

    def __init__(self, record: Record) -> None:
        super().__init__(record["reason"])
        self.record = record


@dataclass
class _Shop:
    """Where tasks are worked on, lot by lot."""

    device: Device
    clock: Clock
    objections: Objections
    code: str
    lost: dict[tuple[str, str], str]

    def records(self, lots: list[list[Task]], stop: Callable[[], bool]) -> Iterator[Record]:
        """Yield a record a task, until ``stop()``."""
        for lot in lots:
            if stop():
                return
            try:
                stand = self.device.open(lot[0].case)
            except Exception as error:
                self.device.still_there(error)
                for task in lot:
                    yield self._line(task, UNABLE, reason=reason_of(error))
                continue
            for task in lot:
                if stop():
                    return
                yield self._tuned(task, stand)
            del stand  # its memory, before the next lot takes some

    def _tuned(self, task: Task, stand: Stand) -> Record:
        conv_pass, dtype, problem = task.case.conv_pass, task.dtype, stand.problem
        about = self.device.processors, self.device.capability
        default, found = candidates(conv_pass, problem, dtype, *about)
        work = _Work(self, task, stand, {c.name: c for c in found})
        lanes = work.race(found[0].name)
        best = work.winner(lanes)
        named = {name: _timing(lane) for name, lane in lanes.items() if lane.samples_s}
        first = named.get(found[0].name)
        return self._line(
            task, DONE,
            **identity(conv_pass, problem, dtype, self.device.name),
            density_bucket=density_bucket(problem), entries=problem.entries,
            best=None if best is None else {**_named(work.found[best]), **named[best]},
            default={**_named(found[0]), "from": default.source, **(first or {})},
            candidates=work.table(lanes), versions=self.device.versions,
        )  # fmt: skip

    def _line(self, task: Task, status: str, **more: Any) -> Record:
        return {
            "schema": SCHEMA, "key": task.key(self.device.name, self.code), "status": status,
            "gpu": self.device.name, "code": self.code, "label": task.label,
            "layer": task.case.layer, "suite": task.case.suite,
            "density": task.case.recipe.density, "date": _now(), **more,
        }  # fmt: skip

    def crashed(self, task: Task, name: str, error: Exception) -> _Crashed:
        """Return the line that lets the next call leave a candidate out."""
        mine, reason = task.key(self.device.name, self.code), reason_of(error)
        told = {"task": mine, "candidate": name, "reason": f"took the device down: {reason}"}
        return _Crashed({**self._line(task, LOST), **told, "key": digest([mine, name, LOST])})


@dataclass
class _Work:
    """One task's candidates on their way through the gates."""

    shop: _Shop
    task: Task
    stand: Stand
    found: dict[str, Candidate]
    status: dict[str, str] = field(default_factory=dict)
    reason: dict[str, str | None] = field(default_factory=dict)

    def race(self, default: str) -> dict[str, Lane]:
        """Return the lanes of the candidates that passed the first two gates."""
        for name, candidate in self.found.items():
            self.status[name], self.reason[name] = self._before(name, candidate)
        conv_pass = self.task.case.conv_pass
        right = [name for name, status in self.status.items() if status == OK]
        runs = {name: self.stand.run(conv_pass, self.found[name]) for name in right}
        return race(runs, self.shop.clock, default, self._raised)

    def _before(self, name: str, candidate: Candidate) -> tuple[str, str | None]:
        """Return (status, reason) of a candidate before it is timed."""
        known = self.shop.lost.get((self.task.key(self.shop.device.name, self.shop.code), name))
        if known:
            return FAILED, known
        objection = self.shop.objections.of(self.task, self.stand.problem, candidate)
        if objection:
            return PRUNED, objection
        return self._checked(name)

    def _checked(self, name: str) -> tuple[str, str | None]:
        try:
            return self.stand.check(self.task.case.conv_pass, self.found[name])
        except DeviceLost as error:
            raise self.shop.crashed(self.task, name, error) from error

    def _raised(self, name: str, error: Exception) -> str:
        try:
            self.shop.device.still_there(error)
        except DeviceLost as lost:
            raise self.shop.crashed(self.task, name, lost) from error
        return reason_of(error)

    def winner(self, lanes: dict[str, Lane]) -> str | None:
        """Return the fastest that stayed to the end and is still right, or None."""
        for name, lane in lanes.items():
            if lane.reason:
                self.status[name], self.reason[name] = FAILED, lane.reason
            else:
                self.status[name] = TIMED if lane.out_after is None else DROPPED
        stayed = [name for name in lanes if self.status[name] == TIMED]
        for name in sorted(stayed, key=lambda n: median(lanes[n].samples_s)):
            status, reason = self._checked(name)
            if status == OK:
                return name
            self.status[name], self.reason[name] = status, f"after timing: {reason}"
        return None

    def table(self, lanes: dict[str, Lane]) -> list[Record]:
        """Return what became of each candidate."""
        return [
            {
                **_named(candidate), "status": self.status[name], "reason": self.reason[name],
                **(_timing(lanes[name]) if name in lanes and lanes[name].samples_s else {}),
                **({"samples_us": _us(lanes[name].samples_s)} if name in lanes else {}),
            }
            for name, candidate in self.found.items()
        ]  # fmt: skip


def _named(candidate: Candidate) -> Record:
    return {"tile": candidate.tile.name, "parts": candidate.parts}


def _timing(lane: Lane) -> Record:
    low, high = median_interval(lane.samples_s)
    figures = _us([median(lane.samples_s), low, high])
    return dict(zip(("median_us", "low_us", "high_us"), figures, strict=True))


def _us(seconds: list[float]) -> list[float]:
    return [round(each * 1e6, 3) for each in seconds]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
