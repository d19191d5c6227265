"""A sweep over a suite: what is missing is measured and stored, case by case."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any

from bench import impls
from bench.clock_lock import locked_gpu
from bench.clocks import mode_for
from bench.environment import environment, use_all_cores
from bench.isolate import LIMIT_S, Isolated
from bench.phases import overhead
from bench.records import REFERENCE_IMPL, Case, Cell, Environment, Measurement, Status
from bench.session import Session, Settings
from bench.store import Store, read_results
from bench.suites import Infeasible, Sweep, cases, find_suite

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Options:
    """How a sweep measures; the defaults are those of ``run``.

    Attributes:
        mode: timing mode; the device's first when None.
        isolate: measure in a process of its own, killed when a step exceeds ``limit_s``.
        energy: joules a call of ours and of dense, 5 s and more a cell.
        trace: keep a profiler's trace a cell, in ``traces/`` of the results folder.
        lock_mhz: lock the GPU's clocks there while the sweep lasts.
    """

    mode: str | None = None
    isolate: bool = False
    limit_s: float = LIMIT_S
    energy: bool = False
    trace: bool = False
    lock_mhz: int | None = None


@dataclass
class SweepResult:
    """What a sweep did.

    Attributes:
        counts: cells of this sweep by status, those stored earlier included.
        wrong: label and reason of each cell that is wrong or impossible.
        measured: cells measured now. resumed: cells that were there.
        infeasible: patterns that no layer can have.
        torn: what was torn in the store and mended.
        overhead: share of the wall time that was neither warming up nor sampling.
        seconds: wall time by phase.
        deaths: how measuring processes died, where they were isolated.
    """

    counts: Counter[str]
    wrong: list[str]
    measured: int
    resumed: int
    infeasible: list[Infeasible]
    torn: list[str]
    overhead: float
    seconds: dict[str, float] = field(default_factory=dict)
    deaths: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0, or 5 when a cell is wrong or impossible."""
        return 5 if self.wrong else 0


def run_sweep(
    sweep: Sweep,
    names: Sequence[str],
    out: Path,
    progress: Progress = lambda *_: None,
    options: Options = Options(),
) -> SweepResult:
    """Measure the sweep's missing cells into ``out`` and return what happened.

    Raises:
        ValueError: anything unknown, or no feasible pattern at all.
        StoreError: the folder cannot be used.
        WorkerError: an isolated process does not start.
    """
    impls.check(names)
    mode = mode_for(sweep.device, options.mode)
    wanted, infeasible = cases(sweep)
    if not wanted:
        reasons = sorted({f"{i.layer}: {i.reason}" for i in infeasible})
        raise ValueError("expected a pattern that a layer can have; " + "; ".join(reasons[:4]))
    use_all_cores()
    start = perf_counter()
    with _lock(sweep.device, options.lock_mhz), Store(out) as store:
        locked = f"locked at {options.lock_mhz} MHz" if options.lock_mhz else None
        facts = environment(sweep.device, locked)
        name = store.add_environment(facts)
        todo = _missing(wanted, names, mode, store.done(name))
        seconds, deaths = _measure(
            todo, names, store, _settings(sweep, options, facts, out), options, progress
        )
        torn = list(store.torn)
    mine = {Cell(c, n, mode).cell_id for c in wanted for n in names}
    stored = [
        m
        for m in read_results(out).measurements
        if m.environment == name and m.cell.cell_id in mine
    ]
    measured = sum(len(absent) for _, absent in todo)
    return SweepResult(
        counts=Counter(str(m.status) for m in stored),
        wrong=[_complaint(m) for m in stored if m.status in (Status.WRONG, Status.IMPOSSIBLE)],
        measured=measured,
        resumed=len(stored) - measured,
        infeasible=infeasible,
        torn=torn,
        overhead=overhead(seconds, perf_counter() - start),
        seconds=seconds,
        deaths=deaths,
    )


def _settings(sweep: Sweep, options: Options, facts: Environment, out: Path) -> Settings:
    suite = find_suite(sweep.suite)
    return Settings(
        device=sweep.device,
        dtype=sweep.dtype,
        mode=mode_for(sweep.device, options.mode),
        rule=suite.rule,
        facts=facts,
        folder=out,
        traces=options.trace,
        energy=options.energy,
        locked=options.lock_mhz is not None,
    )


def _measure(
    todo: list[tuple[Case, list[str]]],
    names: Sequence[str],
    store: Store,
    settings: Settings,
    options: Options,
    progress: Progress,
) -> tuple[dict[str, float], list[str]]:
    """Measure and store case by case; return seconds by phase and how processes died."""
    if not todo:
        progress(0, 0, "done")
        return {}, []
    with _worker(settings, options) as worker:
        for index, (case, absent) in enumerate(todo):
            progress(index, len(todo), label(case))
            # the reference runs along even when its own cell is stored: it tells stalled rounds
            partners = list(dict.fromkeys([*_reference(names), *absent]))
            found = worker.measure(case, partners)
            with unbroken():
                store.append_many([m for m in found if m.cell.impl in absent])
        progress(len(todo), len(todo), "done")
        if isinstance(worker, Isolated):
            return dict(worker.seconds), [d.reason for d in worker.deaths]
        return dict(worker.phases.seconds), []


@contextmanager
def _worker(settings: Settings, options: Options) -> Iterator[Session | Isolated]:
    if options.isolate:
        with Isolated(Session, settings, options.limit_s) as isolated:
            yield isolated
        return
    session = Session(settings)
    try:
        yield session
    finally:
        session.close()


def _lock(device: str, mhz: int | None) -> Any:
    """Return the context in which the GPU's clocks are locked, where that was asked for."""
    if mhz is None:
        return nullcontext()
    if device != "cuda":
        raise ValueError(f"expected --lock-clocks with a GPU, got it on {device}")
    return locked_gpu(mhz)


@contextmanager
def unbroken() -> Iterator[None]:
    """Let an interrupt wait until a block is done: the line that is being written is finished."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught and callable(before):
        before(*caught[0])


def label(case: Case) -> str:
    """Return a short name for people: layer, pass, density, block, dtype."""
    recipe = case.recipe
    return (
        f"{case.layer} {case.conv_pass} density {recipe.density:g} "
        f"block {recipe.block[0]} {case.dtype}"
    )


def _reference(names: Sequence[str]) -> list[str]:
    return [REFERENCE_IMPL] if REFERENCE_IMPL in names else []


def _missing(
    wanted: list[Case], names: Sequence[str], mode: str, done: set[str]
) -> list[tuple[Case, list[str]]]:
    todo = []
    for case in wanted:
        absent = [n for n in names if Cell(case, n, mode).cell_id not in done]
        if absent:
            todo.append((case, absent))
    return todo


def _complaint(measurement: Measurement) -> str:
    cell = measurement.cell
    return f"{cell.impl} {label(cell.case)}: {measurement.reason}"
