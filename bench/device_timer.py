"""pytest-benchmark's timer on CUDA: device time between two events, nothing of the host's.

pytest-benchmark calls its timer before and after a call and subtracts. What this one returns is
an event in the device's queue, and subtraction waits for the later one. ``prepare`` runs before
each span: it overwrites the caches and queues a spinning kernel, so that the call is enqueued
before the first event is reached, and no launch gap of the host's lies between the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.cuda_device import Device

LEAST_SPIN_S = 50e-6
MOST_SPIN_S = 20e-3  # a call that is not enqueued by then waits for the device itself


@dataclass(frozen=True)
class Instant:
    """A point in a device's queue; the difference of two is in seconds of device time."""

    device: Device
    mark: Any

    def __sub__(self, earlier: Instant) -> float:
        """Wait for this point; return the seconds since ``earlier``."""
        return self.device.seconds(earlier.mark, self.mark)


class DeviceTimer:
    """A timer for one benchmark; calls come in pairs, before and after a span.

    Attributes:
        late: for each span whether the device had reached its start before its call was
            enqueued: such a span holds host time.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.late: list[bool] = []
        self._spin_s = LEAST_SPIN_S
        self._start: Instant | None = None

    def __repr__(self) -> str:
        return "device events"

    def prepare(self) -> None:
        """Flush the caches, then keep the device busy; outside the span."""
        self._start = None
        self.device.flush()
        self.device.spin(self._spin_s if self._spin_s <= MOST_SPIN_S else 0.0)

    def __call__(self) -> Instant:
        """Return the present point in the queue; the second one of a span ends it."""
        now = Instant(self.device, self.device.mark())
        if self._start is None:
            self._start = now
            return now
        self.late.append(self.device.reached(self._start.mark))
        if self.late[-1] and self._spin_s <= MOST_SPIN_S:
            self._spin_s *= 2
        self._start = None
        return now
