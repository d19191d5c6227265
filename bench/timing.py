"""From callables to raw seconds: warm-up, alternating rounds, the stop rule.

All implementations of a case are timed in one loop, one sample each a round, so that a slow
second of a shared machine hits them alike and their ratio survives it. The clock is injected:
the rules below are tested with a scripted one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from bench.records import Flag
from bench.stats import median, median_interval

SPIN_S = 2.0
WARMUP_LAUNCHES = 10
WARMUP_S = 0.2
LEAST_SAMPLE_S = 0.2e-3
LEAST_ROUNDS = 30
# A round in which the reference itself slows by more than this says nothing of the others.
STALL = 1.15
FLUSH_BYTES = 256 * 2**20
# About 0.2 ms: the two launches of a wgrad take the host about half of it. Without a spin the
# device waits for the host inside the span, and a small kernel's time is Python's.
SPIN_CYCLES = 400_000
Run = Callable[[], object]


class Clock(Protocol):
    """Times ``repeats`` calls of ``run``; ``mode`` names what its samples mean."""

    mode: str

    def sample(self, run: Run, repeats: int) -> float:
        """Return seconds a call."""
        ...

    def now(self) -> float:
        """Return host seconds."""
        ...


class CpuClock:
    """Host time, hot: the caches hold what the other implementations of the round left."""

    mode = "hot"

    def sample(self, run: Run, repeats: int) -> float:
        """Return seconds a call."""
        start = time.perf_counter_ns()
        for _ in range(repeats):
            run()
        return (time.perf_counter_ns() - start) / repeats * 1e-9

    def now(self) -> float:
        """Return host seconds."""
        return time.perf_counter()


class CudaClock:
    """Device events around one call, cold: L2 is overwritten before the start event."""

    mode = "cold"

    def __init__(self) -> None:
        l2 = int(getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 0))
        self._flush = torch.empty(max(2 * l2, FLUSH_BYTES), dtype=torch.int8, device="cuda")
        self._start, self._stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def sample(self, run: Run, repeats: int) -> float:
        """Return the mean seconds of ``repeats`` calls, each after a flush outside its span."""
        total_ms = 0.0
        for _ in range(repeats):
            self._flush.zero_()
            torch.cuda._sleep(SPIN_CYCLES)  # until everything below is queued
            self._start.record()
            run()
            self._stop.record()
            self._stop.synchronize()
            total_ms += self._start.elapsed_time(self._stop)
        return total_ms / repeats * 1e-3

    def now(self) -> float:
        """Return host seconds."""
        return time.perf_counter()


def clock_for(device: str) -> CpuClock | CudaClock:
    """Return the device's clock."""
    return CudaClock() if device == "cuda" else CpuClock()


def mode_for(device: str) -> str:
    """Return the timing mode that ``clock_for`` will use."""
    return (CudaClock if device == "cuda" else CpuClock).mode


def spin(seconds: float = SPIN_S) -> None:
    """Keep all threads busy: a process may run at an eighth of its speed in its first seconds."""
    a = torch.ones(512, 512)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        torch.mm(a, a)


@dataclass(frozen=True)
class StopRule:
    """When a case has samples enough.

    Attributes:
        precision: half-width of each median's 95 % interval over the median.
        cap_s: seconds of sampling a cell; what is not precise by then is flagged noisy.
    """

    precision: float = 0.02
    cap_s: float = 1.5
    least_rounds: int = LEAST_ROUNDS


@dataclass
class Timed:
    """One implementation's samples, in round order; rejected rounds are left out."""

    samples_s: list[float]
    flags: list[Flag] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)


def time_together(
    runs: dict[str, Run], clock: Clock, rule: StopRule, reference: str | None = None
) -> dict[str, Timed]:
    """Return samples of every implementation, taken in alternating rounds.

    Args:
        runs: name -> callable. reference: the name whose stalls reject a whole round.

    The order within a round turns by one every round, so that no implementation always follows
    the same one. No sample is dropped for being slow itself.
    """
    repeats = {name: _warm_up(run, clock) for name, run in runs.items()}
    rounds: list[dict[str, float]] = []
    order = list(runs)
    start = clock.now()
    while True:
        rounds.append({name: clock.sample(runs[name], repeats[name]) for name in order})
        order.append(order.pop(0))
        kept = [rounds[i] for i in _good(rounds, reference)]
        precise = len(kept) >= rule.least_rounds and _precise(kept, rule.precision)
        if precise or clock.now() - start >= rule.cap_s * len(runs):
            break
    return {name: _timed(name, rounds, kept, repeats[name], rule) for name in runs}


def _warm_up(run: Run, clock: Clock) -> int:
    """Launch until both floors are met; return calls a sample for the shortest sample allowed."""
    start, launches, latest = clock.now(), 0, 0.0
    while launches < WARMUP_LAUNCHES or clock.now() - start < WARMUP_S:
        latest = clock.sample(run, 1)
        launches += 1
    if latest <= 0:
        raise ValueError(f"expected a clock that moves, got a sample of {latest} s")
    return max(1, round(LEAST_SAMPLE_S / latest))


def _good(rounds: list[dict[str, float]], reference: str | None) -> list[int]:
    if reference is None or reference not in rounds[0]:
        return list(range(len(rounds)))
    limit = STALL * median([r[reference] for r in rounds])
    return [i for i, r in enumerate(rounds) if r[reference] <= limit]


def _precise(rounds: list[dict[str, float]], precision: float) -> bool:
    return all(_spread([r[name] for r in rounds]) <= precision for name in rounds[0])


def _spread(samples: list[float]) -> float:
    low, high = median_interval(samples)
    return (high - low) / 2 / median(samples)


def _timed(
    name: str, rounds: list[dict[str, float]], kept: list[dict[str, float]], repeats: int,
    rule: StopRule,
) -> Timed:  # fmt: skip
    samples = [r[name] for r in kept]
    noisy = len(samples) < rule.least_rounds or _spread(samples) > rule.precision
    detail = {
        "repeats": repeats,
        "rounds_rejected": len(rounds) - len(kept),
        "spread": _spread(samples),
    }
    return Timed(samples, [Flag.NOISY] if noisy else [], detail)
