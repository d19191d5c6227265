"""Candidates timed in turn, in rounds, the slower half of them put out again and again.

All are in every round, one sample each, and the order turns by one, so that a slow moment hits
them alike. The clock is injected: the rules are tested with a scripted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.clocks import Armed, Clock, ClockError, Run
from bench.stats import median
from bench.warmup import LEAST_SAMPLE_S, call

STAGES = (5, 5, 10, 20)  # rounds; after each but the last the slower half goes
CLOSE = 1.02  # of the fastest: too near to be put out
WARM_CALLS = 2
OnError = Callable[[str, Exception], str]


@dataclass
class Lane:
    """One candidate on its way.

    Attributes:
        samples_s: seconds a call, in order. out_after: rounds after which it was put out.
        reason: why it can be timed no more, if it raised.
    """

    run: Run
    samples_s: list[float] = field(default_factory=list)
    out_after: int | None = None
    reason: str | None = None
    armed: Armed | None = None
    repeats: int = 1

    @property
    def racing(self) -> bool:
        """Whether it is in the next round."""
        return self.out_after is None and self.reason is None


def race(
    runs: Mapping[str, Run],
    clock: Clock,
    keep: str | None = None,
    on_error: OnError = lambda name, error: repr(error),
) -> dict[str, Lane]:
    """Time the runs against each other; return each one's lane.

    Args:
        runs: name -> call. keep: the name of one that stays to the end, however slow.
        on_error: makes a reason of a name and what its call raised, or raises itself.

    Raises:
        ClockError: a clock that stands still, runs backwards, or gives no number.
    """
    lanes = {name: Lane(run) for name, run in runs.items()}
    for name in lanes:
        _guarded(name, lanes[name], _warm, clock, on_error)
    rounds = 0
    for number, count in enumerate(STAGES):
        for _ in range(count):
            names = [name for name, lane in lanes.items() if lane.racing]
            turn = rounds % max(1, len(names))
            for name in names[turn:] + names[:turn]:
                _guarded(name, lanes[name], _sample, clock, on_error)
            rounds += 1
        if number + 1 < len(STAGES):
            _halve(lanes, keep, rounds)
    return lanes


def _warm(lane: Lane, clock: Clock) -> None:
    armed = clock.arm(lane.run)
    taken = min(call(armed, clock, 1) for _ in range(WARM_CALLS))
    lane.armed, lane.repeats = armed, max(1, round(LEAST_SAMPLE_S / (taken * armed.calls)))


def _sample(lane: Lane, clock: Clock) -> None:
    if lane.armed is not None:
        lane.samples_s.append(call(lane.armed, clock, lane.repeats))


def _guarded(
    name: str, lane: Lane, step: Callable[[Lane, Clock], None], clock: Clock, on_error: OnError
) -> None:
    try:
        step(lane, clock)
    except ClockError:
        raise
    except Exception as error:  # whatever a kernel raises puts it out alone
        lane.reason = on_error(name, error)


def _halve(lanes: dict[str, Lane], keep: str | None, rounds: int) -> None:
    """Put out the slower half, but none that is close to the fastest, nor ``keep``."""
    medians = {name: median(lane.samples_s) for name, lane in lanes.items() if lane.racing}
    if not medians:
        return
    order = sorted(medians, key=lambda name: medians[name])
    for name in order[math.ceil(len(order) / 2) :]:
        if name != keep and medians[name] > CLOSE * medians[order[0]]:
            lanes[name].out_after = rounds
