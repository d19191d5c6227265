"""Case in, measurements out: check, time, check again. Every failure becomes a status."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from bench import impls
from bench.problem import Prepared, Problem, Unsupported, is_right
from bench.records import REFERENCE_IMPL, Case, Cell, Flag, Measurement, Status
from bench.timing import Clock, StopRule, time_together

# A first call (compilation apart) that takes longer than this is not worth thirty more.
CALL_LIMIT_S = 60.0
REASON_LENGTH = 300


@dataclass
class _Attempt:
    """One implementation on its way through a case."""

    name: str
    status: Status | None = None
    reason: str = ""
    prepared: Prepared | None = None
    prep_s: float | None = None
    errors: dict[str, float] = field(default_factory=dict)
    samples_s: list[float] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)

    def fail(self, status: Status, reason: str) -> None:
        self.status, self.reason, self.prepared = status, reason[:REASON_LENGTH], None

    def measurement(self, case: Case, mode: str, environment: str) -> Measurement:
        ok = self.status is None
        return Measurement(
            cell=Cell(case, self.name, mode),
            environment=environment,
            status=Status.OK if ok else self.status,  # type: ignore[arg-type]
            reason=None if ok else self.reason,
            samples_s=tuple(self.samples_s) if ok else (),
            errors=self.errors,
            flags=tuple(self.flags) if ok else (),
            prep_s=self.prep_s,
            detail=self.detail,
        )


class _RunFailed(Exception):
    """A timed call raised; carries whose it was."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def measure_case(
    case: Case, names: Sequence[str], clock: Clock, rule: StopRule, environment: str
) -> list[Measurement]:
    """Return one measurement for each named implementation of the case.

    The dense reference, where it is among the names, also decides which rounds were stalled.
    Samples of one call share ``detail["rounds"]`` and are paired by position.
    """
    attempts = [_Attempt(name) for name in names]
    try:
        problem = Problem.of(case)
    except Exception as error:
        for attempt in attempts:
            attempt.fail(*_status_of(error))
    else:
        _measure(problem, attempts, clock, rule)
    return [a.measurement(case, clock.mode, environment) for a in attempts]


def _measure(problem: Problem, attempts: list[_Attempt], clock: Clock, rule: StopRule) -> None:
    inputs = [t.clone() for t in (problem.x, problem.dy, problem.weight)]
    for attempt in attempts:
        _prepare(problem, attempt)
        _check_inputs(problem, inputs, attempt)
    # new values: what an implementation may have kept from the check is wrong from here on
    problem.refresh(1)
    for attempt in attempts:
        if attempt.prepared:
            attempt.prepared.follow()
    inputs = [t.clone() for t in (problem.x, problem.dy, problem.weight)]
    _time(attempts, clock, rule)
    for attempt in attempts:
        if attempt.prepared:
            _check(problem, attempt, attempt.prepared, "after timing")
        _check_inputs(problem, inputs, attempt)


def _prepare(problem: Problem, attempt: _Attempt) -> None:
    """Prepare, launch once on poisoned memory, and compare with the oracle."""
    start = perf_counter()
    try:
        prepared = impls.load(attempt.name).prepare(problem)
        attempt.prep_s = perf_counter() - start
        attempt.detail.update(prepared.detail)
        start = perf_counter()
        with poisoned():
            _check(problem, attempt, prepared, "before timing")
    except Exception as error:
        attempt.fail(*_status_of(error))
        return
    took = perf_counter() - start
    if attempt.status is None:
        attempt.prepared = prepared
        if took > CALL_LIMIT_S:
            attempt.fail(Status.TIMEOUT, f"first call took {took:.0f} s, limit {CALL_LIMIT_S:.0f}")


def _check(problem: Problem, attempt: _Attempt, prepared: Prepared, when: str) -> None:
    try:
        oracle = prepared.oracle
        if oracle is None:
            problem.answer(masked=prepared.masked)  # first: a run may spoil the inputs
        else:
            expected = oracle()
            oracle = lambda: expected  # noqa: E731
        with watched_memory(problem.case.device, attempt.detail):
            out = prepared.run()
        out = prepared.to_oracle(out)
        attempt.errors = problem.errors(out, masked=prepared.masked, oracle=oracle)
    except Exception as error:
        attempt.fail(*_status_of(error))
        return
    if not is_right(attempt.errors):
        attempt.fail(
            Status.WRONG,
            f"{when}: error {attempt.errors['worst_over_bound']:.3g} times its bound, "
            f"rms {attempt.errors['rel_rms']:.3g} (bound {attempt.errors['rel_rms_bound']:.3g})",
        )


def _check_inputs(problem: Problem, inputs: list[Tensor], attempt: _Attempt) -> None:
    for name, kept in zip(("x", "dy", "weight"), inputs, strict=True):
        tensor = getattr(problem, name)
        if not torch.equal(tensor, kept):
            tensor.copy_(kept)
            attempt.fail(Status.WRONG, f"changed its input {name}")


def _time(attempts: list[_Attempt], clock: Clock, rule: StopRule) -> None:
    """Time all that are still in; one that raises is put out and the rest starts again."""
    while ready := {a.name: a for a in attempts if a.prepared}:
        runs = {name: _named(name, a.prepared) for name, a in ready.items()}  # type: ignore[arg-type]
        try:
            timed = time_together(runs, clock, rule, REFERENCE_IMPL)
        except _RunFailed as failure:
            ready[failure.name].fail(*_status_of(failure.__cause__ or failure))
            continue
        rounds = secrets.token_hex(8)
        for name, attempt in ready.items():
            attempt.samples_s, attempt.flags = timed[name].samples_s, timed[name].flags
            attempt.detail |= {"rounds": rounds, **timed[name].detail}
        return


def _named(name: str, prepared: Prepared) -> Any:
    def run() -> Tensor:
        try:
            return prepared.run()
        except Exception as error:
            raise _RunFailed(name) from error

    return run


@contextmanager
def watched_memory(device: str, detail: dict[str, Any]) -> Iterator[None]:
    """Note the device memory that a block takes at its peak, outputs included: "peak_bytes".

    Nothing is noted on a CPU, whose allocators do not count.
    """
    if device != "cuda":
        yield
        return
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    yield
    detail["peak_bytes"] = torch.cuda.max_memory_allocated() - before


@contextmanager
def poisoned() -> Iterator[None]:
    """Fill memory that torch hands out unwritten with NaN, so that an unwritten output shows."""
    before = torch.are_deterministic_algorithms_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


def _status_of(error: BaseException) -> tuple[Status, str]:
    """Return the status and reason that an exception stands for."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Unsupported):
        return Status.SKIPPED, text
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if out_of_memory or "allocate memory" in text:  # the CPU allocator raises a RuntimeError
        return Status.OOM, text
    return Status.CRASHED, f"{type(error).__name__}: {text}"
