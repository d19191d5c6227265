"""Warm-up: until a call has settled, and how many of it make a sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.clocks import Armed, Clock, ClockError, Run
from bench.stats import median
from bench.stop_rule import StopRule

WARMUP_LAUNCHES = 10
WARMUP_S = 0.2
WARMUP_WINDOW = 20
LEAST_SAMPLE_S = 0.2e-3


@dataclass
class Runner:
    """One implementation, warmed up.

    Attributes:
        repeats: calls a sample. typical_s: seconds a call in the end of the warm-up.
        steady: its last windows agreed. enqueue_s: host seconds a call, where calls queue.
    """

    name: str
    armed: Armed
    repeats: int
    typical_s: float
    steady: bool
    enqueue_s: float | None


def warm_up(name: str, run: Run, clock: Clock, rule: StopRule) -> Runner:
    """Launch until the floors are met and two windows agree, or the cap is reached."""
    armed = clock.arm(run)
    samples: list[float] = []
    spent = 0.0
    start = clock.now()
    while True:
        samples.append(call(armed, clock, 1))
        spent += samples[-1] * armed.calls
        # two windows of twenty are more than WARMUP_LAUNCHES
        if spent >= WARMUP_S and _steady(samples, rule.steady, WARMUP_WINDOW):
            break
        if max(spent, clock.now() - start) >= rule.warmup_cap_s:
            break
    typical = median(samples[-WARMUP_WINDOW:])
    repeats = max(1, round(LEAST_SAMPLE_S / (typical * armed.calls)))
    settled = _steady(samples, rule.steady, WARMUP_LAUNCHES // 2)
    return Runner(name, armed, repeats, typical, settled, clock.enqueue_s(run))


def _steady(samples: list[float], tolerance: float, least: int) -> bool:
    """Return whether the last two windows' medians agree; False for windows under ``least``."""
    window = min(WARMUP_WINDOW, len(samples) // 2)
    if window < least:
        return False
    earlier, later = median(samples[-2 * window : -window]), median(samples[-window:])
    return abs(later - earlier) <= tolerance * later


def call(armed: Armed, clock: Clock, repeats: int) -> float:
    """Return seconds a call.

    Raises:
        ClockError: the sample is no positive number.
    """
    taken = clock.sample(armed.run, repeats) / armed.calls
    if not (math.isfinite(taken) and taken > 0):
        raise ClockError(f"expected a clock that moves forward, got a sample of {taken} s")
    return taken
