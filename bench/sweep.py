"""A sweep over a suite: what is missing is measured and stored, case by case."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch

from bench import impls
from bench.environment import environment, use_all_cores
from bench.measure import measure_case
from bench.records import REFERENCE_IMPL, Case, Cell, Measurement, Status
from bench.store import Store, read_results
from bench.suites import Infeasible, Sweep, cases, find_suite
from bench.timing import StopRule, clock_for, mode_for, spin

Progress = Callable[[int, int, str], None]


@dataclass
class SweepResult:
    """What a sweep did.

    Attributes:
        counts: cells of this sweep by status, those stored earlier included.
        wrong: label and reason of each cell that is wrong or impossible.
        measured: cells measured now. resumed: cells that were there.
        infeasible: patterns that no layer can have.
        torn: what was torn in the store and mended.
        overhead: share of the wall time that was no sampling.
    """

    counts: Counter[str]
    wrong: list[str]
    measured: int
    resumed: int
    infeasible: list[Infeasible]
    torn: list[str]
    overhead: float

    @property
    def exit_code(self) -> int:
        """0, or 5 when a cell is wrong or impossible."""
        return 5 if self.wrong else 0


def run_sweep(
    sweep: Sweep, names: Sequence[str], out: Path, progress: Progress = lambda *_: None
) -> SweepResult:
    """Measure the sweep's missing cells into ``out`` and return what happened.

    Raises:
        ValueError: anything unknown, or no feasible pattern at all.
        StoreError: the folder cannot be used.
    """
    impls.check(names)
    wanted, infeasible = cases(sweep)
    if not wanted:
        reasons = sorted({f"{i.layer}: {i.reason}" for i in infeasible})
        raise ValueError("expected a pattern that a layer can have; " + "; ".join(reasons[:4]))
    _set_up(sweep.device)
    suite = find_suite(sweep.suite)
    rule = StopRule(suite.precision, suite.cap_s)
    start, sampling = perf_counter(), 0.0
    with Store(out) as store:
        name = store.add_environment(environment(sweep.device))
        done = store.done(name)
        todo = _missing(wanted, names, mode_for(sweep.device), done)
        clock = clock_for(sweep.device)
        if todo:
            spin()
        for index, (case, absent) in enumerate(todo):
            progress(index, len(todo), label(case))
            # the reference runs along even when its own cell is stored: it tells stalled rounds
            partners = list(dict.fromkeys([*_reference(names), *absent]))
            found = measure_case(case, partners, clock, rule, name)
            store.append_many([m for m in found if m.cell.impl in absent])
            sampling += sum(sum(m.samples_s) * m.detail.get("repeats", 1) for m in found)
        progress(len(todo), len(todo), "done")
        torn = list(store.torn)
    mine = {Cell(c, n, mode_for(sweep.device)).cell_id for c in wanted for n in names}
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
        overhead=1 - sampling / (perf_counter() - start),
    )


def label(case: Case) -> str:
    """Return a short name for people: layer, pass, density, block, dtype."""
    recipe = case.recipe
    return (
        f"{case.layer} {case.conv_pass} density {recipe.density:g} "
        f"block {recipe.block[0]} {case.dtype}"
    )


def _set_up(device: str) -> None:
    use_all_cores()
    if device == "cuda":
        # "float32" means float32: tf32 would be another dtype under the same name
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.benchmark_limit = 0  # try all algorithms; the default stops at ten
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic checks ask it


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
