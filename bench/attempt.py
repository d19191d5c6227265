"""One implementation on its way through a case, and the words for what goes wrong with it."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.problem import Prepared, Unsupported
from bench.records import Case, Cell, Flag, Measurement, Status

REASON_LENGTH = 300


@dataclass
class Attempt:
    """One implementation on its way through a case.

    Attributes:
        kept: what one call among the timed ones returned, chosen at random.
    """

    name: str
    status: Status | None = None
    reason: str = ""
    prepared: Prepared | None = None
    prep_s: float | None = None
    errors: dict[str, float] = field(default_factory=dict)
    samples_s: list[float] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)
    kept: Tensor | None = None

    def fail(self, status: Status, reason: str) -> None:
        """Put the implementation out, for a reason."""
        self.status, self.reason, self.prepared = status, reason[:REASON_LENGTH], None
        self.kept = None

    def fail_by(self, error: BaseException) -> None:
        """Put the implementation out for an exception."""
        self.fail(*status_of(error))

    def measurement(self, case: Case, mode: str, environment: str) -> Measurement:
        """Return what became of it."""
        status = self.status or Status.OK
        timed = status in (Status.OK, Status.IMPOSSIBLE)
        return Measurement(
            cell=Cell(case, self.name, mode),
            environment=environment,
            status=status,
            reason=None if status is Status.OK else self.reason,
            samples_s=tuple(self.samples_s) if timed else (),
            errors=self.errors,
            flags=tuple(self.flags) if timed else (),
            prep_s=self.prep_s,
            detail=self.detail,
        )

    def named(self, call: Callable[[], Tensor], announce: Callable[[str], None]) -> TimedRun:
        """Return the call in the form that is timed."""
        return TimedRun(self, call, announce)


class RunFailed(Exception):
    """A timed call raised; carries whose it was."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__(attempt.name)
        self.attempt = attempt


class TimedRun:
    """A call that says whose it is, and keeps one of its outputs for the check.

    The output kept is that of a call drawn at random from the later half of those made, so
    that an implementation cannot know which of its answers is looked at.
    """

    def __init__(
        self, attempt: Attempt, call: Callable[[], Tensor], announce: Callable[[str], None]
    ) -> None:
        self.attempt, self.call, self.announce = attempt, call, announce
        self.calls, self.keep_at = 0, 1

    def __call__(self) -> Tensor:
        self.announce(self.attempt.name)
        try:
            out = self.call()
        except Exception as error:
            raise RunFailed(self.attempt) from error
        self.calls += 1
        if self.calls == self.keep_at:
            self.attempt.kept = out
            self.keep_at = random.randint(self.calls + 1, 2 * self.calls + 1)
        return out


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


def status_of(error: BaseException) -> tuple[Status, str]:
    """Return the status and reason that an exception stands for."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Unsupported):
        return Status.SKIPPED, text
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if out_of_memory or "allocate memory" in text:  # the CPU allocator raises a RuntimeError
        return Status.OOM, text
    return Status.CRASHED, f"{type(error).__name__}: {text}"
