"""Which candidates the compiler speaks against: they spill, or lack the matrix unit.

Kernels of many problems come to the same binary, so each is compiled once: all that are foreseen
side by side at first, and a straggler in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from bench.occupancy import ARCHS
from bench.offline_table import Job, identity
from bench.profile import Row, profile_jobs
from bench.tune_cases import Candidate, Task, candidates, kernel_problem, kind_of
from hrbp_core.kernels.problem import Problem
from hrbp_core.shapes import Pass

Compile = Callable[[Sequence[Job], int], Sequence[Row]]


def compile_rows(jobs: Sequence[Job], processes: int) -> Sequence[Row]:
    """Return the offline report of the jobs."""
    return profile_jobs(jobs, processes, lambda *_: None).rows


class Objections:
    """What the offline report says of candidates on one architecture.

    Args:
        capability: of the device, 90 for an H100.
        processes: that compile side by side.
        compiling: makes the report; ``compile_rows`` when left out.
    """

    def __init__(
        self, capability: int, processes: int = 1, compiling: Compile = compile_rows
    ) -> None:
        self.arch, self.processes, self.compiling = f"sm_{capability}", processes, compiling
        self._known: dict[Any, str | None] = {}

    @property
    def able(self) -> bool:
        """False on an architecture that the report knows nothing of: nothing is pruned there."""
        return self.arch in ARCHS

    def foresee(self, tasks: Iterable[Task], processors: int, capability: int) -> None:
        """Compile what the tasks will ask about, side by side."""
        jobs = []
        for task in tasks:
            conv_pass, problem = task.case.conv_pass, kernel_problem(task.case)
            dtype = kind_of(task.case).torch_dtype
            found = candidates(conv_pass, problem, dtype, processors, capability)[1]
            jobs += [j for c in found for j in self._jobs(task, problem, c)]
        self._learn(jobs, self.processes)

    def of(self, task: Task, problem: Problem, candidate: Candidate) -> str | None:
        """Return why a candidate is not worth timing, or None."""
        jobs = self._jobs(task, problem, candidate)
        self._learn(jobs, 1)
        told = (self._known[identity(job)] for job in jobs)
        return next((reason for reason in told if reason), None)

    def _jobs(self, task: Task, problem: Problem, candidate: Candidate) -> list[Job]:
        if not self.able:
            return []
        conv_pass, dtype = task.case.conv_pass, kind_of(task.case).dtype
        parts = candidate.parts or 1
        job = Job(conv_pass, dtype, problem, candidate.tile, "tune", self.arch, parts=parts)
        summed = conv_pass is Pass.WGRAD and parts > 1
        return [job, replace(job, summing=True)] if summed else [job]

    def _learn(self, jobs: Sequence[Job], processes: int) -> None:
        new = {key: job for job in jobs if (key := identity(job)) not in self._known}
        if not new:
            return
        rows = self.compiling(list(new.values()), processes)
        for key, row in zip(new, rows, strict=True):
            self._known[key] = _objection(row)


def _objection(row: Row) -> str | None:
    if not row.offences:
        return None
    words = ", ".join(row.offences)
    if row.facts is None:
        return f"{words} to compile: {row.reason}"
    facts = row.facts
    return (
        f"{words} ({facts.registers} registers, {facts.stack_bytes} bytes of stack, "
        f"{facts.shared_bytes} bytes of shared memory, matrix instructions {facts.matrix})"
    )
