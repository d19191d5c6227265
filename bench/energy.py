"""Joules a call: the device's counter and its power over time, idle power taken off."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

WINDOW_S = 5.0  # power is averaged inside the device for up to a second: shorter windows lie
IDLE_S = 1.0
READ_S = 0.05
MW, MJ, UJ = 1e-3, 1e-3, 1e-6


class Reader(Protocol):
    """Where joules and watts are read; None where they are not, for reasons in ``absent``."""

    absent: dict[str, str]

    def counter_j(self) -> float | None:
        """Return a running total of joules."""
        ...

    def power_w(self) -> float | None:
        """Return watts now."""
        ...


class NvmlReader:
    """A GPU through NVML."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self.nvml, self.handle = nvml, handle
        self.absent: dict[str, str] = {}

    def counter_j(self) -> float | None:
        """Return joules since the driver was loaded."""
        return self._read("counter", self.nvml.nvmlDeviceGetTotalEnergyConsumption, MJ)

    def power_w(self) -> float | None:
        """Return watts now."""
        return self._read("power", self.nvml.nvmlDeviceGetPowerUsage, MW)

    def _read(self, name: str, call: Callable[[Any], Any], unit: float) -> float | None:
        if name in self.absent:
            return None
        try:
            return float(call(self.handle)) * unit
        except Exception as error:
            self.absent[name] = f"{type(error).__name__}: {error}"
            return None


class RaplReader:
    """A CPU's packages through Linux' power capping, where it may be read."""

    def __init__(self, root: Path = Path("/sys/class/powercap")) -> None:
        self.absent = {"power": "a CPU's packages have a counter of energy alone"}
        self.packages = sorted(p for p in root.glob("intel-rapl:*") if p.name.count(":") == 1)
        self._last: dict[Path, float] = {}
        self._total = 0.0
        if not self.packages:
            self.absent["counter"] = f"no intel-rapl package in {root}"

    def counter_j(self) -> float | None:
        """Return joules since the first reading; the counters' wrap-arounds are undone."""
        if "counter" in self.absent:
            return None
        try:
            for package in self.packages:
                now = float((package / "energy_uj").read_text())
                step = now - self._last.get(package, now)
                if step < 0:
                    step += float((package / "max_energy_range_uj").read_text())
                self._total += step * UJ
                self._last[package] = now
        except (OSError, ValueError) as error:
            self.absent["counter"] = f"{type(error).__name__}: {error}"
            return None
        return self._total

    def power_w(self) -> float | None:
        """Return None."""
        return None


class NoReader:
    """Nothing can be read, for one reason."""

    def __init__(self, reason: str) -> None:
        self.absent = {"counter": reason, "power": reason}

    def counter_j(self) -> float | None:
        """Return None."""
        return None

    def power_w(self) -> float | None:
        """Return None."""
        return None


def reader_for(device: str, uuid: str | None = None) -> Reader:
    """Return the device's reader."""
    if device != "cuda":
        return RaplReader()
    try:
        import pynvml

        pynvml.nvmlInit()
        return NvmlReader(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid))
    except Exception as error:
        return NoReader(f"{type(error).__name__}: {error}")


def energy(
    run: Callable[[], object],
    synchronize: Callable[[], object],
    reader: Reader,
    now: Callable[[], float] = time.perf_counter,
    wait: Callable[[float], object] = time.sleep,
    window_s: float = WINDOW_S,
) -> dict[str, Any]:
    """Return joules a call by both readings, gross and with idle power taken off.

    The two readings may disagree by a factor (zeus, issue 181), so both are told:
    ``counter_j`` and ``power_j`` a call, ``*_net_j`` less ``*_idle_w``, ``calls``, ``window_s``,
    and ``absent`` with the reason of each that is null.

    Args:
        run: the call. synchronize: waits for the device. now, wait: host time.
    """
    if reader.counter_j() is None and reader.power_w() is None:
        return _nothing(reader)
    synchronize()
    idle = _watch(reader, now, lambda: wait(READ_S), IDLE_S)
    calls = 0

    def step() -> None:
        nonlocal calls
        until = now() + READ_S
        while now() < until:
            run()
            calls += 1
        synchronize()  # not after each: the gaps would cool the device

    busy = _watch(reader, now, step, window_s)
    found: dict[str, Any] = {"calls": calls, "window_s": busy["seconds"]}
    for name in ("counter", "power"):
        gross, idle_j = busy[name], idle[name]
        idle_w = None if idle_j is None else idle_j / idle["seconds"]
        known = gross is not None and idle_w is not None
        found[f"{name}_j"] = None if gross is None else gross / calls
        found[f"{name}_idle_w"] = idle_w
        found[f"{name}_net_j"] = (gross - idle_w * busy["seconds"]) / calls if known else None
    return found | {"absent": dict(reader.absent)}


def _nothing(reader: Reader) -> dict[str, Any]:
    names = [f"{n}_{what}" for n in ("counter", "power") for what in ("j", "idle_w", "net_j")]
    return {"calls": 0, "window_s": None, **dict.fromkeys(names), "absent": dict(reader.absent)}


def _watch(
    reader: Reader, now: Callable[[], float], step: Callable[[], object], seconds: float
) -> dict[str, Any]:
    """Return joules by both readings, and seconds, of a window."""
    start, first = now(), reader.counter_j()
    points = [(start, reader.power_w())]
    while now() - start < seconds:
        step()
        points.append((now(), reader.power_w()))
    last, spent = reader.counter_j(), now() - start
    counter = None if first is None or last is None else last - first
    if counter is not None and counter < 0:
        reader.absent["counter"], counter = "its counter ran backwards", None
    return {"seconds": spent, "counter": counter, "power": _integral(points)}


def _integral(points: list[tuple[float, float | None]]) -> float | None:
    """Return joules under the power readings, by trapezoids; None when one is missing."""
    total = 0.0
    with contextlib.suppress(TypeError):
        for (t0, p0), (t1, p1) in pairwise(points):
            total += (t1 - t0) * (p0 + p1) / 2  # type: ignore[operator]
        return total
    return None
