"""What the device did beside the clock: clocks, power, energy, heat, and what held it back.

Every reader is injected, so the rules are tested without a GPU. A field that is absent, refused
or fails midway is null, and ``absent`` says why; it is never 0.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.stats import median

TICK_S = 0.05  # reading NVML takes the driver's lock; twenty reads a second disturb nothing
MW, MJ, NS = 1e-3, 1e-3, 1e-9
# Cumulative nanoseconds, by what they mean for samples. Drivers know some of them by one
# interface and some by the other; a GPU that refuses one may answer the other.
POLICIES = {
    "thermal": ("NVML_PERF_POLICY_THERMAL",),
    "power": ("NVML_PERF_POLICY_POWER", "NVML_PERF_POLICY_BOARD_LIMIT"),
}
FIELDS = {
    "thermal": (
        "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN",
        "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN",
    ),
    "brake": ("NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN",),
    "power": ("NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP",),
}
CAUSES = ("thermal", "brake", "power")  # the worst one first
CPU_FIELDS = ("load_average", "steal_fraction", "cpu_mhz")
GPU_SERIES = ("sm_clock_mhz", "memory_clock_mhz", "power_w", "temperature_c")
GPU_FIELDS = (*GPU_SERIES, "energy_j", "violations_s")


class NoMonitor:
    """Stands where nothing can be read: every field is null, for one reason."""

    def __init__(self, fields: tuple[str, ...], reason: str) -> None:
        self.fields, self.reason = fields, reason

    def start(self) -> None:
        """Do nothing."""

    def tick(self) -> None:
        """Do nothing."""

    def block(self) -> str | None:
        """Return None."""
        return None

    def stop(self) -> dict[str, Any]:
        """Return every field as null, with the reason."""
        return {**dict.fromkeys(self.fields), "absent": dict.fromkeys(self.fields, self.reason)}

    def close(self) -> None:
        """Do nothing."""


class NvmlMonitor:
    """One GPU through NVML.

    Args:
        nvml: the pynvml module, initialised. handle: the device's.
        now: host seconds.
    """

    def __init__(self, nvml: Any, handle: Any, now: Callable[[], float] = time.perf_counter):
        self.nvml, self.handle, self._now = nvml, handle, now
        self._last_counts: dict[str, float] = {}
        self.start()

    def start(self) -> None:
        """Begin a cell."""
        self.absent: dict[str, str] = {}
        self._series: dict[str, list[float]] = {name: [] for name in GPU_SERIES}
        self._energy_j = self._read("energy_j")
        self._counts = self._counters()
        self._ticked = float("-inf")
        self.tick()

    def tick(self) -> None:
        """Read clocks, power and temperature, at most every ``TICK_S``."""
        if self._now() - self._ticked < TICK_S:
            return
        self._ticked = self._now()
        for name, series in self._series.items():
            value = self._read(name, len(series))
            if value is not None:
                series.append(value)

    def block(self) -> str | None:
        """Return what held the clocks back since the last call, the worst first."""
        before, self._last_counts = self._last_counts, self._counters()
        grown = _growth(before, self._last_counts)
        return next((cause for cause in CAUSES if grown.get(cause, 0.0) > 0), None)

    def stop(self) -> dict[str, Any]:
        """Return what was read since ``start``."""
        self._ticked = float("-inf")
        self.tick()
        found: dict[str, Any] = {}
        for name, series in self._series.items():
            found[name] = None if name in self.absent or not series else _summary(series)
        found["energy_j"] = self._difference("energy_j", self._energy_j, self._read("energy_j"))
        grown = _growth(self._counts, self._counters())
        found["violations_s"] = grown or None
        if not grown:
            self.absent["violations_s"] = "neither violation status nor event counters answer"
        return {**found, "reads": len(max(self._series.values(), key=len)), "absent": self.absent}

    def close(self) -> None:
        """Let NVML go."""
        with contextlib.suppress(Exception):
            self.nvml.nvmlShutdown()

    def _read(self, name: str, reads: int = 0) -> float | None:
        """Return a field; None, for good, when it is refused or fails."""
        if name in self.absent:
            return None
        nvml, handle = self.nvml, self.handle
        try:
            match name:
                case "sm_clock_mhz":
                    return float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))
                case "memory_clock_mhz":
                    return float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM))
                case "power_w":
                    return float(nvml.nvmlDeviceGetPowerUsage(handle)) * MW
                case "temperature_c":
                    sensor = nvml.NVML_TEMPERATURE_GPU
                    return float(nvml.nvmlDeviceGetTemperature(handle, sensor))
                case _:
                    return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) * MJ
        except Exception as error:  # an old library lacks functions, a new driver refuses some
            text = f"{type(error).__name__}: {error}"
            self.absent[name] = f"failed after {reads} reads: {text}" if reads else text
            return None

    def _difference(self, name: str, first: float | None, last: float | None) -> float | None:
        if first is None or last is None:
            return None
        if last < first:  # the driver was loaded again
            self.absent[name] = f"its counter ran backwards, from {first:g} to {last:g}"
            return None
        return last - first

    def _counters(self) -> dict[str, float]:
        """Return cumulative seconds by counter, "cause:name"; those that answer."""
        return dict(self._policies()) | dict(self._fields())

    def _policies(self) -> Iterator[tuple[str, float]]:
        for cause, names in POLICIES.items():
            for name in names:
                with contextlib.suppress(Exception):
                    policy = getattr(self.nvml, name)
                    status = self.nvml.nvmlDeviceGetViolationStatus(self.handle, policy)
                    yield f"{cause}:{name}", status.violationTime * NS

    def _fields(self) -> Iterator[tuple[str, float]]:
        known = [
            (cause, name, getattr(self.nvml, name))
            for cause, names in FIELDS.items()
            for name in names
            if hasattr(self.nvml, name)
        ]
        with contextlib.suppress(Exception):
            values = self.nvml.nvmlDeviceGetFieldValues(self.handle, [i for _, _, i in known])
            for (cause, name, _), value in zip(known, values, strict=True):
                if value.nvmlReturn == self.nvml.NVML_SUCCESS:
                    yield f"{cause}:{name}", value.value.ullVal * NS


class CpuMonitor:
    """A CPU: its load average, the time that a shared machine's host stole, its clock."""

    def __init__(
        self,
        load: Callable[[], tuple[float, float, float]] = os.getloadavg,
        proc: Path = Path("/proc"),
    ) -> None:
        self._load, self._proc = load, proc
        self.start()

    def start(self) -> None:
        """Begin a cell."""
        self.absent: dict[str, str] = {}
        self._stat = self._ticks()

    def tick(self) -> None:
        """Do nothing: a timing loop on a CPU has no time to spare."""

    def block(self) -> str | None:
        """Return None: a CPU in a virtual machine does not say what holds it back."""
        return None

    def stop(self) -> dict[str, Any]:
        """Return load average (1 min), share of stolen time since ``start``, clock in MHz."""
        found = {
            "load_average": self._told("load_average", lambda: self._load()[0]),
            "steal_fraction": self._told("steal_fraction", self._steal),
            "cpu_mhz": self._told("cpu_mhz", self._mhz),
        }
        return {**found, "absent": self.absent}

    def close(self) -> None:
        """Do nothing."""

    def _told(self, name: str, read: Callable[[], float]) -> float | None:
        try:
            return read()
        except (OSError, ValueError, IndexError, ZeroDivisionError, TypeError) as error:
            self.absent[name] = f"{type(error).__name__}: {error}"
            return None

    def _ticks(self) -> list[int] | None:
        try:
            line = (self._proc / "stat").read_text().splitlines()[0]
            return [int(part) for part in line.split()[1:]]
        except (OSError, ValueError, IndexError):
            return None

    def _steal(self) -> float:
        before, now = self._stat, self._ticks()
        if before is None or now is None:
            raise OSError(f"expected {self._proc / 'stat'}, got none that can be read")
        spent = [b - a for a, b in zip(before[:8], now[:8], strict=True)]
        return spent[7] / sum(spent)

    def _mhz(self) -> float:
        lines = (self._proc / "cpuinfo").read_text().splitlines()
        return median([float(x.split(":")[1]) for x in lines if x.startswith("cpu MHz")][:64])


def monitor_for(device: str, uuid: str | None = None) -> NvmlMonitor | CpuMonitor | NoMonitor:
    """Return the device's monitor; on CUDA that of the GPU that NVML knows by ``uuid``."""
    if device != "cuda":
        return CpuMonitor()
    try:
        import pynvml
    except ImportError as error:
        return NoMonitor(GPU_FIELDS, f"nvidia-ml-py is not installed: {error}")
    return open_nvml(pynvml, uuid)


def open_nvml(nvml: Any, uuid: str | None) -> NvmlMonitor | NoMonitor:
    """Return NVML's monitor of a GPU, or the reason why there is none."""
    try:
        nvml.nvmlInit()
        return NvmlMonitor(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid))
    except Exception as error:
        return NoMonitor(GPU_FIELDS, f"{type(error).__name__}: {error}")


def _growth(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return seconds by cause; what ran backwards, or is new, says nothing."""
    grown: dict[str, float] = {}
    for name in before.keys() & after.keys():
        cause = name.split(":")[0]
        grown[cause] = max(grown.get(cause, 0.0), after[name] - before[name])
    return grown


def _summary(series: list[float]) -> dict[str, float]:
    return {
        "first": series[0], "min": min(series), "median": median(series), "max": max(series),
    }  # fmt: skip
