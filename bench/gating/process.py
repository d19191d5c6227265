"""A fresh process of a gate, led by its parent: ready, warm, turn after turn, checked.

Three of them take turns. Each turn is one sample of some cells, so that a slow second of the
machine touches all three: on two busy cores the medians of processes that ran one after the
other lay 21 % apart (root of the mean square; 48 s each), with every cell spread over the whole
process and divided by a control still 4.5 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import monitor
from bench.attempt import Attempt, RunFailed
from bench.clocks import clock_for
from bench.environment import environment, gpu_uuid
from bench.extras import Extras
from bench.gating.known import Answers, Remembering, pattern_kept
from bench.gating.readings import NO_TURN
from bench.problem import Problem
from bench.records import Cell, Flag
from bench.session import set_up
from bench.stats import is_bimodal
from bench.stop_rule import StopRule
from bench.timing import NoWatch, spin
from bench.warmup import Runner, call, warm_up

SPIN_S = 0.5
# Turns go on for seconds; what a cell is not by then, its first laps will make it.
WARM = {
    "cpu": StopRule(steady=0.02, warmup_cap_s=0.06),
    "cuda": StopRule(steady=0.01, warmup_cap_s=0.3),
}
Message = dict[str, Any]


class Led:
    """Cells of one side, measured when told.

    Args:
        request: ``device``, ``dtype``, ``mode``, ``cells`` (as dicts), ``cache`` (a folder of
            this side's, for what earlier processes found out).
        at: told which cell's code runs next, so that the parent knows whom to blame.
    """

    def __init__(self, request: Message, at: Callable[[str], None]) -> None:
        self.device, self.at = request["device"], at
        set_up(self.device, request["dtype"])
        self.facts = environment(self.device)
        self.clock = clock_for(self.device, request["mode"])
        uuid = gpu_uuid() if self.device == "cuda" else None
        self.watch = monitor.monitor_for(self.device, uuid) if uuid else NoWatch()
        self.cells = [Cell.from_dict(each) for each in request["cells"]]
        self.attempts = {cell.cell_id: Attempt(cell.impl) for cell in self.cells}
        self.lanes: dict[str, Remembering] = {}
        self.runners: dict[str, Runner] = {}
        self.samples: dict[str, list[float]] = {}
        self.causes: set[str] = set()
        self.folder = Path(request["cache"])

    def prepare(self) -> Message:
        """Make every cell and check a first call; return {cell id: why it is out}."""
        keep, answers = pattern_kept(self.folder), Answers(self.folder)
        spin(SPIN_S)
        for cell in self.cells:
            self._make(cell, keep, answers)
        return {n: a.reason for n, a in self.attempts.items() if a.prepared is None}

    def _make(self, cell: Cell, keep: Callable[[Cell], Any], answers: Answers) -> None:
        name = cell.cell_id
        attempt = self.attempts[name]
        self.at(name)
        try:
            problem = Problem.of(cell.case, keep(cell))
        except Exception as error:  # this side cannot make the case; the others go on
            attempt.fail_by(error)
            return
        rule = WARM[self.device]
        lane = Remembering(problem, [attempt], self.clock, rule, Extras(), answers.of(cell))
        lane.before()
        self.lanes[name] = lane

    def warm(self) -> Message:
        """Warm every cell up; return {cell id: seconds of a turn}."""
        for name, lane in self.lanes.items():
            for run in lane.runs().values():
                self.at(name)
                try:
                    self.runners[name] = warm_up(name, run, self.clock, WARM[self.device])
                except RunFailed as failure:
                    failure.attempt.fail_by(failure.__cause__ or failure)
                except Exception as error:
                    self.attempts[name].fail_by(error)
        self.samples = {name: [] for name in self.runners}
        self.watch.block()
        return {
            name: runner.typical_s * runner.armed.calls * runner.repeats
            for name, runner in self.runners.items()
        }

    def turn(self, names: list[str]) -> Message:
        """Take one sample of each; return {cell id: seconds a call}, less those that failed."""
        found = {}
        for name in names:
            runner = self.runners.get(name)
            if runner is None:
                continue
            self.at(name)
            try:
                found[name] = call(runner.armed, self.clock, runner.repeats)
            except RunFailed as failure:
                failure.attempt.fail_by(failure.__cause__ or failure)
                del self.runners[name]
            else:
                self.samples[name].append(found[name])
            self.watch.tick()
        cause = self.watch.block()
        self.causes |= {cause} if cause else set()
        return found

    def finish(self) -> Iterator[Message]:
        """Check timed outputs; yield the environment, then one measurement a cell."""
        yield {"environment": asdict(self.facts)}
        for cell in self.cells:
            attempt = self.attempts[cell.cell_id]
            samples = self.samples.get(cell.cell_id, [])
            if attempt.prepared and not samples:
                attempt.fail_by(RuntimeError(NO_TURN))
            self.at(cell.cell_id)
            if attempt.prepared:
                attempt.samples_s, attempt.flags = samples, self._flags(samples)
                self.lanes[cell.cell_id].after()
            found = attempt.measurement(cell.case, self.clock.mode, self.facts.environment_id)
            yield {"measurement": found.to_dict()}

    def _flags(self, samples: list[float]) -> list[Flag]:
        flags = {
            Flag.BIMODAL: is_bimodal(samples),
            Flag.THROTTLED: bool(self.causes & {"thermal", "brake"}),
            Flag.POWER_LIMITED: "power" in self.causes,
            Flag.UNLOCKED: self.device == "cuda",
        }
        return [flag for flag, on in flags.items() if on]
