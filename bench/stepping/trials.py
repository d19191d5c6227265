"""Trials of a comparison: two fresh processes take turns, lap after lap.

The unit of evidence is a trial: processes differ by more than the laps within one. As in the
gate (``bench.gating.trials``), turns last a tenth of a second and threads rest before each.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.gating.child import READY_S, Child, Died
from bench.gating.sides import Side, here
from bench.gating.trials import REST_S, TURN_S
from bench.records import Status
from bench.stats import median, median_interval
from bench.step_table import SIDES, is_noisy
from bench.stepping.asked import Asked
from bench.stepping.making import Failed

LEAST_LAPS, ENOUGH_LAPS, MOST_LAPS = 3, 8, 16
PRECISE = 0.01  # within a trial
LEAST_TRIALS, MOST_TRIALS = 3, 5
MAKE_S = 1800.0  # one phase of converting a large network, or of checking it on a CPU
OOM_ADVICE = "take a smaller --batch"
Answer = dict[str, Any]


class StepChild(Child):
    """A process of ``bench.stepping.worker``."""

    MODULE = "bench.stepping.worker"


@dataclass
class Machine:
    """Where trials are made.

    Attributes:
        asked: the comparison. folder: temporary, for the networks and the requests.
        budget_s: seconds from ``began`` on, after which no trial begins.
        start: makes a process: start(part, number).
        now: host seconds.
    """

    asked: Asked
    folder: Path
    budget_s: float
    most_trials: int = MOST_TRIALS
    energy: bool = True
    start: Callable[[Machine, str, int], Any] = field(default=lambda *a: _start(*a))
    now: Callable[[], float] = time.monotonic
    progress: Callable[[int, int, str], None] = lambda *_: None
    made: int = 0

    def make(self) -> Answer:
        """Return what ``making.make`` found; the networks lie in the folder then.

        Raises:
            Failed: they could not be made, or a step of the sparse one is wrong.
        """
        self.progress(0, self.most_trials, "converting, and checking a step")
        with ExitStack() as stack:
            child = self._child(stack, "make")
            return _ask(child, "make", MAKE_S, do="make")

    def trials(self) -> Iterator[Answer]:
        """Yield trials until the speed-up is known well enough, or time is up.

        Raises:
            Failed: a process that could not step.
        """
        done: list[Answer] = []
        longest = 0.0
        began = self.now()
        dice = random.Random()
        while len(done) < self.most_trials:
            if len(done) >= LEAST_TRIALS and not is_noisy(done):
                return
            start = self.now()
            if done and start - began + longest > self.budget_s:
                return
            told = f"trial {len(done) + 1}"
            self.progress(len(done), self.most_trials, told)
            places = dice.sample(SIDES, 2)
            done.append(self._trial(places, start + self.budget_s / self.most_trials, not done))
            longest = max(longest, self.now() - start)
            yield done[-1]

    def _trial(self, places: list[str], until: float, first: bool) -> Answer:
        with ExitStack() as stack:
            children = {side: self._child(stack, side) for side in places}
            # one after the other: two that share two cores wait for each other's threads
            ready = {s: _ask(c, s, MAKE_S, do="prepare") for s, c in children.items()}
            steps = {s: max(1, round(TURN_S / r["step_s"])) for s, r in ready.items()}
            samples = self._laps(children, steps, until)
            ends = {s: _ask(c, s, READY_S, do="end") for s, c in children.items()}
            _refuse_unfinished(ends)
            found: Answer = {"first": places[0], "steps_a_turn": steps}
            for side, end in ends.items():
                found[f"{side}_s"] = samples[side]
                found[f"{side}_prep_s"] = ready[side]["prep_s"]
                found |= {f"{side}_{name}": end[name] for name in ("peak_bytes", "monitor")}
            found["causes"] = sorted({c for end in ends.values() for c in end["causes"]})
            found["optimizer"] = ready["sparse"]["optimizer"]
            found["memory"] = ends["dense"]["memory"]
            if first:
                found |= self._taken_apart(children)
        return found

    def _laps(
        self, children: dict[str, Any], steps: dict[str, int], until: float
    ) -> dict[str, list[float]]:
        """Return by side the seconds of each step, in order."""
        samples: dict[str, list[float]] = {side: [] for side in children}
        ratios: list[float] = []
        order = list(children)
        for lap in range(1, MOST_LAPS + 1):
            turn = {}
            for side in order:
                time.sleep(REST_S[self.asked.device])
                turn[side] = _ask(children[side], side, READY_S, do="turn", steps=steps[side])
                samples[side] += turn[side]
            order.reverse()
            ratios.append(median(turn["dense"]) / median(turn["sparse"]))
            if lap >= ENOUGH_LAPS and _precise(ratios):
                break
            if lap >= LEAST_LAPS and self.now() > until:
                break
        return samples

    def _taken_apart(self, children: dict[str, Any]) -> Answer:
        """Return where the time goes, and joules a step; a trial's times are over by then."""
        orders = ("spent", "energy") if self.energy else ("spent",)
        found: Answer = {what: {} for what in orders}
        for what in orders:
            for side, child in children.items():
                time.sleep(REST_S[self.asked.device])
                found[what][side] = _ask(child, side, READY_S, do=what)
        return found

    def _child(self, stack: ExitStack, part: str) -> Any:
        self.made += 1
        child = self.start(self, part, self.made)
        stack.callback(child.end)
        try:
            child.answer(READY_S)
        except Died as death:
            raise _failed(death, part) from death
        return child


def _start(machine: Machine, part: str, number: int) -> StepChild:
    request = {"asked": asdict(machine.asked), "folder": str(machine.folder), "part": part}
    return StepChild(Side(part, "", False, here()), machine.folder, request, number)


def _ask(child: Any, part: str, limit_s: float, **order: Any) -> Any:
    try:
        answer = child.ask(limit_s, **order)
    except Died as death:
        raise _failed(death, part) from death
    if isinstance(answer, dict) and "failed" in answer:
        facts = dict(answer)
        status, reason = facts.pop("failed")
        raise Failed(Status(status), _advised(Status(status), f"{part}: {reason}"), **facts)
    return answer


def _failed(death: Died, part: str) -> Failed:
    status = Status.CRASHED
    if "longer than" in death.reason:
        status = Status.TIMEOUT
    elif "SIGKILL" in death.reason:  # nobody here killed it: so the system takes memory back
        status = Status.OOM
    when = f" while {death.cell}" if death.cell else ""
    return Failed(status, _advised(status, f"{part}{when}: {death.reason}"))


def _advised(status: Status, reason: str) -> str:
    return f"{reason}; {OOM_ADVICE}" if status is Status.OOM else reason


def _refuse_unfinished(ends: dict[str, Answer]) -> None:
    for side, end in ends.items():
        if end["loss"] is None:
            raise Failed(Status.WRONG, f"{side}: the loss was not finite after the timed steps")


def _precise(ratios: list[float]) -> bool:
    low, high = median_interval(ratios)
    return (high / low) ** 0.5 - 1 <= PRECISE
