"""What a measurement may take along beside clock and rule; each is absent by default."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench.clocks import Run
from bench.floors import Ceilings
from bench.timing import Phase


class Monitor(Protocol):
    """Reads the device beside the clock; ``bench.monitor`` has the real ones."""

    def start(self) -> None:
        """Begin a cell."""
        ...

    def tick(self) -> None:
        """Read what is cheap to read; called once a round."""
        ...

    def block(self) -> str | None:
        """Return what held the clocks back since the last call: "thermal", "brake", "power"."""
        ...

    def stop(self) -> dict[str, Any]:
        """Return what was read since ``start`` as plain JSON."""
        ...


class CeilingSource(Protocol):
    """The ceilings of a run."""

    def now(self) -> Ceilings:
        """Return the best so far."""
        ...

    def witness(self, flops_per_s: float) -> None:
        """Take note of a rate that a right dense layer was seen to reach."""
        ...

    def again(self) -> Ceilings:
        """Measure once more and return the best so far."""
        ...


@dataclass
class Extras:
    """What a measurement may take along.

    Attributes:
        phase: context named after what happens in it ("oracle", "sample", ...).
        monitor: clocks, power and the like, stored with each cell.
        ceilings: floors and the test for impossible times.
        announce: told whose code runs next, so that whoever waits knows whom to blame.
        trace: (cell id, run) -> file of a profiler's trace.
        energy: run -> joules a call and how they were read; for headline cells.
    """

    phase: Phase = lambda _: nullcontext()
    monitor: Monitor | None = None
    ceilings: CeilingSource | None = None
    announce: Callable[[str], None] = lambda _: None
    trace: Callable[[str, Run], Path] | None = None
    energy: Callable[[Run], dict[str, Any]] | None = None
