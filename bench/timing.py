"""From callables to raw seconds: warm-up, alternating rounds, the stop rule.

All implementations of a case are timed in one loop, one sample each a round, so that a slow
second of a shared machine hits them alike and their ratio survives it. Clock and watch are
injected: the rules below are tested with scripted ones.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from bench.clocks import Clock, ClockError, Run
from bench.records import Flag
from bench.stats import is_bimodal, median, median_interval
from bench.stop_rule import LEAST_ROUNDS, StopRule
from bench.warmup import Runner, call, warm_up

__all__ = ["LEAST_ROUNDS", "NoWatch", "StopRule", "Timed", "Watch", "spin", "time_together"]

SPIN_S = 2.0
BLOCK_ROUNDS = 10
# A round in which the reference itself slows by more than this says nothing of the others.
STALL = 1.15
# What takes this many times as long as the reference has rounds of its own: it would eat the
# time of all, and leave each with a handful of samples.
SLOW = 5.0
RETRIES = 3
REST_S = 2.0
Phase = Callable[[str], AbstractContextManager[object]]


class Watch(Protocol):
    """Looks at the device beside the clock."""

    def tick(self) -> None:
        """Read what is cheap to read; called once a round."""
        ...

    def block(self) -> str | None:
        """Return what held the clocks back since the last call: "thermal", "brake", "power"."""
        ...


class NoWatch:
    """Sees nothing."""

    def tick(self) -> None:
        """Do nothing."""

    def block(self) -> str | None:
        """Return None."""
        return None


def spin(seconds: float = SPIN_S) -> None:
    """Keep all threads busy: a process may run at an eighth of its speed in its first seconds."""
    a = torch.ones(512, 512)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        torch.mm(a, a)


@dataclass
class Timed:
    """One implementation's samples, in round order; rejected rounds are left out."""

    samples_s: list[float]
    flags: list[Flag] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Rounds:
    """The rounds of one group of implementations that were timed together."""

    samples: list[dict[str, float]] = field(default_factory=list)
    causes: set[str] = field(default_factory=set)
    discarded: int = 0


def time_together(
    runs: dict[str, Run],
    clock: Clock,
    rule: StopRule,
    reference: str | None = None,
    watch: Watch | None = None,
    phase: Phase = lambda _: nullcontext(),
) -> dict[str, Timed]:
    """Return samples of every implementation, taken in alternating rounds.

    Args:
        runs: name -> callable. reference: the name whose stalls reject a whole round.
        watch: tells what held the clocks back. phase: context of "warm_up" and "sample".

    The order within a round turns by one every round, so that no implementation always follows
    the same one. No sample is dropped for being slow itself. What takes more than ``SLOW`` times
    as long as the reference is timed afterwards, beside the reference again.

    Raises:
        ClockError: a clock that stands still, runs backwards, or gives no number.
    """
    watch = watch or NoWatch()
    with phase("warm_up"):
        runners = {name: warm_up(name, run, clock, rule) for name, run in runs.items()}
    fast, slow = _split(runners, reference)
    found: dict[str, Timed] = {}
    with phase("sample"):
        for group, wanted in ((fast, list(fast)), (slow, [n for n in slow if n != reference])):
            if wanted:
                rounds = _sample(group, wanted, clock, rule, reference, watch)
                token = secrets.token_hex(8)
                for name in wanted:
                    found[name] = _timed(group[name], rounds, rule, reference, token)
    return {name: found[name] for name in runs}


def _split(
    runners: dict[str, Runner], reference: str | None
) -> tuple[dict[str, Runner], dict[str, Runner]]:
    """Return those of the reference's size, and the much slower ones with the reference."""
    if reference is None or reference not in runners:
        return runners, {}
    limit = SLOW * runners[reference].typical_s
    fast = {n: r for n, r in runners.items() if r.typical_s <= limit}
    slow = {n: r for n, r in runners.items() if n == reference or n not in fast}
    return fast, slow


def _sample(
    group: dict[str, Runner], wanted: list[str], clock: Clock, rule: StopRule,
    reference: str | None, watch: Watch,
) -> _Rounds:  # fmt: skip
    """Take rounds, block by block, until all that is wanted is precise or the cap is reached.

    A block in which heat or a brake held the clocks back is discarded, and taken again after
    a rest, ``RETRIES`` times at most; a power cap is only noted.
    """
    rounds, order, spent, retries = _Rounds(), list(group), 0.0, 0
    watch.block()
    while True:
        start = clock.now()
        block: list[dict[str, float]] = []
        while len(block) < BLOCK_ROUNDS and not _spent(spent, start, clock, rule, wanted):
            block.append(_round(group, order, clock))
            watch.tick()
        took = clock.now() - start
        cause = watch.block()
        if cause in ("thermal", "brake") and retries < RETRIES:
            retries += 1
            rounds.discarded += len(block)
            clock.wait(REST_S)
            watch.block()
            continue
        rounds.causes |= {cause} if cause else set()
        rounds.samples += block
        spent += took
        kept = _kept(rounds.samples, reference)
        precise = len(kept) >= rule.least_rounds and _precise(kept, wanted, rule.precision)
        if precise or spent >= rule.cap_s * len(wanted):
            return rounds


def _spent(
    before: float, start: float, clock: Clock, rule: StopRule, wanted: list[str]
) -> bool:  # fmt: skip
    """Return whether the group's time is over.

    Raises:
        ClockError: host time ran backwards.
    """
    passed = clock.now() - start
    if passed < 0:
        raise ClockError(f"expected a clock that moves forward, got {passed} s for a block")
    return passed > 0 and before + passed >= rule.cap_s * len(wanted)


def _round(group: dict[str, Runner], order: list[str], clock: Clock) -> dict[str, float]:
    """Return one sample of each, and turn the order."""
    start = clock.now()
    taken = {}
    for name in order:
        runner = group[name]
        taken[name] = call(runner.armed, clock, runner.repeats)
    order.append(order.pop(0))
    if clock.now() <= start:
        raise ClockError("expected a clock that moves, got the same time after a round")
    return taken


def _kept(rounds: list[dict[str, float]], reference: str | None) -> list[dict[str, float]]:
    """Return the rounds in which the reference did not stall."""
    if not rounds or reference is None or reference not in rounds[0]:
        return rounds
    limit = STALL * median([r[reference] for r in rounds])
    return [r for r in rounds if r[reference] <= limit]


def _precise(rounds: list[dict[str, float]], wanted: list[str], precision: float) -> bool:
    return all(_spread([r[name] for r in rounds]) <= precision for name in wanted)


def _spread(samples: list[float]) -> float:
    low, high = median_interval(samples)
    return (high - low) / 2 / median(samples)


def _timed(
    runner: Runner, rounds: _Rounds, rule: StopRule, reference: str | None, token: str
) -> Timed:
    kept = _kept(rounds.samples, reference)
    samples = [r[runner.name] for r in kept]
    noisy = len(samples) < rule.least_rounds or _spread(samples) > rule.precision
    hot = bool(rounds.causes & {"thermal", "brake"})
    bound = runner.enqueue_s is not None and runner.enqueue_s > median(samples)
    flags = {
        Flag.NOISY: noisy,
        Flag.BIMODAL: is_bimodal(samples),
        Flag.WARMUP_UNSTABLE: not runner.steady,
        Flag.THROTTLED: hot,
        Flag.POWER_LIMITED: "power" in rounds.causes,
        Flag.LAUNCH_BOUND: bound,
    }
    detail = {
        "rounds": token,
        "repeats": runner.repeats,
        "rounds_rejected": len(rounds.samples) - len(kept),
        "rounds_discarded": rounds.discarded,
        "spread": _spread(samples),
        "enqueue_s": runner.enqueue_s,
        **runner.armed.detail,
    }
    return Timed(samples, [f for f, on in flags.items() if on], detail)
