"""A device that tiles are tuned on, scripted: what is right, how long it takes, when it breaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.clocks import Run
from bench.offline_table import Job
from bench.profile import Row
from bench.records import Case
from bench.suites import Sweep
from bench.tile_judge import DeviceLost
from bench.tune import run_tune
from bench.tune_cases import Candidate, Task, kernel_problem, tasks
from bench.tune_offline import Objections
from bench.tune_result import TuneResult
from hrbp_core.kernels.problem import Problem
from hrbp_core.kernels.tile_types import Tile
from hrbp_core.kernels.tuned import density_bucket, identity
from hrbp_core.shapes import Pass
from tests.scripted_clock import ScriptedClock

GPU = "Some GPU"
USUAL_S = 100e-6


def quick(passes: tuple[Pass, ...] = (Pass.FPROP,), **more: Any) -> list[Task]:
    """conv4_3x3 of the quick suite, a quarter of blocks of 64: tiles of both kinds."""
    about = {"layers": ("conv4_3x3",), "densities": (0.25,), "blocks": (64,), **more}
    return tasks(Sweep("quick", "cuda", "bfloat16", passes, **about))[0]


class RaceClock(ScriptedClock):
    """``seconds(name)`` are those of a call that returns its name."""

    def __init__(self, seconds: Callable[[str], float]) -> None:
        super().__init__({})
        self.seconds = seconds

    def sample(self, run: Run, repeats: int) -> float:
        name = str(run())
        self.order.append(name)
        taken = self.seconds(name) * (1 + 0.001 * (len(self.order) % 3))
        self.time += taken * repeats
        return taken


@dataclass
class ScriptedStand:
    """Answers by the candidate's name, and notes what it was asked."""

    device: ScriptedGpu
    problem: Problem

    def check(self, conv_pass: Pass, candidate: Candidate) -> tuple[str, str | None]:
        self.device.checked.append(candidate.name)
        if candidate.name in self.device.fatal:
            raise DeviceLost("illegal address")
        found = self.device.verdicts.get(candidate.name, [("ok", None)])
        return found.pop(0) if len(found) > 1 else found[0]

    def run(self, conv_pass: Pass, candidate: Candidate) -> Run:
        def call() -> str:
            if candidate.name in self.device.raising:
                self.device.still_there(RuntimeError("out of resources"))
                raise RuntimeError("out of resources")
            return candidate.name

        return call


@dataclass
class ScriptedGpu:
    """A GPU of 132 multiprocessors.

    Attributes:
        times: seconds by candidate; ``USUAL_S`` of all others.
        verdicts: what the next checks of a candidate say, the last one for ever.
        fatal: take the device down when checked. raising: raise when timed.
        open_s: seconds that making inputs takes. unable: layers whose inputs cannot be made.
    """

    times: dict[str, float] = field(default_factory=dict)
    verdicts: dict[str, list[tuple[str, str | None]]] = field(default_factory=dict)
    fatal: set[str] = field(default_factory=set)
    raising: set[str] = field(default_factory=set)
    pruned: set[str] = field(default_factory=set)
    open_s: float = 0.0
    unable: tuple[str, ...] = ()
    name: str = GPU
    capability: int = 90
    processors: int = 132
    checked: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    compiled: list[str] = field(default_factory=list)
    versions: dict[str, str | None] = field(default_factory=lambda: {"torch": "2.13"})

    def __post_init__(self) -> None:
        self.clock = RaceClock(lambda name: self.times.get(name, USUAL_S))

    def open(self, case: Case) -> ScriptedStand:
        self.opened.append(case.layer)
        self.clock.time += self.open_s
        if case.layer in self.unable:
            raise MemoryError("no room")
        return ScriptedStand(self, kernel_problem(case))

    def still_there(self, error: Exception) -> None:
        """It always is."""

    def report(self, jobs: Sequence[Job], processes: int) -> list[Row]:
        """The offline report: what is pruned fails to compile."""
        self.compiled += [job.tile.name for job in jobs]
        return [self._row(job) for job in jobs]

    def _row(self, job: Job) -> Row:
        bad = job.tile.name in self.pruned
        return Row(job, reason="it spills") if bad else RightRow(job)

    def tune(
        self, out: Path, wanted: list[Task] | None = None, minutes: float | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> TuneResult:  # fmt: skip
        """Tune with this device, clock and report."""
        objections = Objections(self.capability, 2, self.report)
        return run_tune(wanted or quick(), self, self.clock, objections, out, minutes, tell)


class RightRow(Row):
    """A launch that commits no offence."""

    @property
    def offences(self) -> list[str]:
        return []


def lines(out: Path) -> list[dict[str, Any]]:
    """Return the stored lines."""
    return [json.loads(line) for line in (out / "tune.jsonl").read_text().splitlines()]


def statuses(record: dict[str, Any]) -> dict[str, str]:
    """Return status by candidate."""
    return {name_of(each): each["status"] for each in record["candidates"]}


def name_of(fields: dict[str, Any]) -> str:
    """Return a stored candidate's name."""
    parts = fields["parts"]
    return fields["tile"] if parts is None else f"{fields['tile']} in {parts}"


def entry(
    problem: Problem, tile: Tile, conv_pass: Pass = Pass.FPROP, **more: Any
) -> dict[str, Any]:
    """Return an entry of the table for a problem in bfloat16 on ``GPU``."""

    return {
        **identity(conv_pass, problem, torch.bfloat16, GPU),
        "density_bucket": density_bucket(problem), "tile": tile.name, "parts": None,
        "median_us": 10.0, "default_us": 12.5, "versions": {"torch": "2.13"}, "date": "2026-11-26",
        **more,
    }  # fmt: skip
