"""Clocks: what one sample of a timing mode is. The device behind a clock is injected.

=========  =====================================================================================
cold       caches hold nothing of the call: buffers rotate over at least five times L2, or the
           caches are overwritten before the span (never inside it, never subtracted)
hot        calls back to back on the same buffers (CUDA: queued behind a spinning kernel; CPU:
           after an untimed call, so that no other implementation's data is in the caches)
sustained  a CUDA graph of the call, replayed back to back: the mode of step-time claims
host       seconds that the host needs to enqueue a call, nothing of the device
=========  =====================================================================================
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch

from bench.cuda_device import CudaDevice, Device, Run

CPU_FLUSH_BYTES = 64 * 2**20
COLD_CACHES = 5  # rotated buffers span this many L2s, so that each comes back cold
MODES = {"cpu": ("hot", "cold"), "cuda": ("cold", "hot", "sustained", "host")}
GRAPH_CALLS = 10
ENQUEUE_CALLS = 20
# The queue holds about a thousand launches; a host that waits for room in it never runs ahead.
MOST_QUEUED = 200
LEAST_SPIN_S = 50e-6
MOST_SPIN_S = 20e-3  # a call that is not enqueued by then waits for the device itself


class ClockError(ValueError):
    """A clock that stands still, runs backwards, or gives no number."""


def mode_for(device: str, mode: str | None = None) -> str:
    """Return the timing mode of a device; its first one when left out.

    Raises:
        ValueError: a mode that the device does not have.
    """
    if mode is None:
        return MODES[device][0]
    if mode not in MODES[device]:
        raise ValueError(f"expected a mode of {', '.join(MODES[device])} on {device}; got {mode!r}")
    return mode


@dataclass(eq=False)
class Rotation:
    """One call on several copies of its buffers, one after the other.

    Attributes:
        runs: the call on each copy. copy_bytes: what one copy reads and writes.
    """

    runs: Sequence[Run]
    copy_bytes: int
    _next: int = 0

    def __call__(self) -> object:
        run = self.runs[self._next]
        self._next = (self._next + 1) % len(self.runs)
        return run()

    def outlasts(self, cache_bytes: int) -> bool:
        """Return whether a buffer has left a cache of this size when its turn comes again."""
        return (len(self.runs) - 1) * self.copy_bytes >= COLD_CACHES * cache_bytes


@dataclass(frozen=True)
class Armed:
    """A call in the form that a clock samples: ``calls`` calls each time ``run`` is called."""

    run: Run
    calls: int = 1
    detail: dict[str, Any] = field(default_factory=dict)


class Clock(Protocol):
    """Times calls; ``mode`` names what its samples mean."""

    mode: str

    def arm(self, run: Run) -> Armed:
        """Return the call in the form that ``sample`` takes."""
        ...

    def sample(self, run: Run, repeats: int) -> float:
        """Return seconds a call of ``run``, the mean of ``repeats``."""
        ...

    def enqueue_s(self, run: Run) -> float | None:
        """Return the host seconds that one call takes to enqueue; None where nothing queues."""
        ...

    def now(self) -> float:
        """Return host seconds."""
        ...

    def wait(self, seconds: float) -> None:
        """Let the device rest."""
        ...


class CpuClock:
    """Host time."""

    def __init__(self, mode: str = "hot") -> None:
        self.mode = mode_for("cpu", mode)
        size = max(2 * last_level_cache(), CPU_FLUSH_BYTES)
        self._flush = torch.zeros(size if mode == "cold" else 1, dtype=torch.int8)

    def arm(self, run: Run) -> Armed:
        """Return the call itself."""
        return Armed(run)

    def sample(self, run: Run, repeats: int) -> float:
        """Return seconds a call."""
        if self.mode == "cold":
            return sum(self._cold(run) for _ in range(repeats)) / repeats
        run()  # untimed: what the caches hold must not depend on who runs along
        start = time.perf_counter_ns()
        for _ in range(repeats):
            run()
        return (time.perf_counter_ns() - start) / repeats * 1e-9

    def _cold(self, run: Run) -> float:
        self._flush.add_(1)  # reads and writes: a page of zeros alone need not touch memory
        start = time.perf_counter_ns()
        run()
        return (time.perf_counter_ns() - start) * 1e-9

    def enqueue_s(self, run: Run) -> float | None:
        """Return None: a call on a CPU is done when it returns."""
        return None

    def now(self) -> float:
        """Return host seconds."""
        return time.perf_counter()

    def wait(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)


class CudaClock:
    """Device events; the host's own time never stands between two of them."""

    def __init__(self, mode: str = "cold", device: Device | None = None) -> None:
        self.mode = mode_for("cuda", mode)
        self.device = CudaDevice() if device is None else device
        self._spins: WeakKeyDictionary[Run, float] = WeakKeyDictionary()  # no run outlives its case
        self.unqueued = 0

    def arm(self, run: Run) -> Armed:
        """Return the call, or in sustained mode a graph of it; a refused capture is told."""
        if self.mode != "sustained":
            return Armed(run)
        try:
            replay = self.device.capture(run, GRAPH_CALLS)
        except Exception as error:  # what may not be captured is still worth its eager time
            self.device.synchronize()
            text = " ".join(str(error).split())[:200]
            return Armed(run, 1, {"graph": f"refused: {type(error).__name__}: {text}"})
        return Armed(replay, GRAPH_CALLS, {"graph": f"{GRAPH_CALLS} calls"})

    def sample(self, run: Run, repeats: int) -> float:
        """Return seconds a call, by the rules of the mode."""
        repeats = min(repeats, MOST_QUEUED)
        if self.mode == "host":
            return self._host(run, repeats)
        rotated = isinstance(run, Rotation) and run.outlasts(self.device.cache_bytes)
        if self.mode == "cold" and not rotated:
            return sum(self._span(run, 1, flush=True) for _ in range(repeats)) / repeats
        return self._span(run, repeats, flush=False) / repeats

    def _span(self, run: Run, repeats: int, *, flush: bool) -> float:
        """Return device seconds of calls that were all enqueued before the first one began.

        A call that synchronizes never is: its samples hold host time, and count as unqueued.
        """
        while True:
            spin_s = self._spins.get(run, LEAST_SPIN_S)
            if flush:
                self.device.flush()
            self.device.spin(spin_s if spin_s <= MOST_SPIN_S else 0.0)
            start = self.device.mark()
            for _ in range(repeats):
                run()
            stop = self.device.mark()
            late = self.device.reached(start)
            seconds = self.device.seconds(start, stop)
            if not late:
                return seconds
            if spin_s > MOST_SPIN_S:
                self.unqueued += 1
                return seconds
            self._spins[run] = 2 * spin_s  # the device was there before the host was done

    def _host(self, run: Run, repeats: int) -> float:
        self.device.synchronize()
        start = time.perf_counter_ns()
        for _ in range(repeats):
            run()
        taken = time.perf_counter_ns() - start
        self.device.synchronize()
        return taken / repeats * 1e-9

    def enqueue_s(self, run: Run) -> float | None:
        """Return the host seconds that one call takes to enqueue; None in host mode."""
        return None if self.mode == "host" else self._host(run, ENQUEUE_CALLS)

    def now(self) -> float:
        """Return host seconds."""
        return time.perf_counter()

    def wait(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)


def clock_for(device: str, mode: str | None = None) -> CpuClock | CudaClock:
    """Return the device's clock in a mode; its first mode when left out."""
    mode = mode_for(device, mode)
    return CudaClock(mode) if device == "cuda" else CpuClock(mode)


def last_level_cache() -> int:
    """Return bytes of the CPU's last cache; 0 where the system does not say."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        found = re.fullmatch(r"(\d+)([KM]?)", path.read_text().strip())
        if found:
            sizes.append(int(found[1]) * {"": 1, "K": 2**10, "M": 2**20}[found[2]])
    return max(sizes, default=0)
