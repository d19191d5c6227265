"""Where the wall time of a run goes, by name; the same names stand in a profiler's time line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

MEASURING = ("warm_up", "sample")


class Ranges(Protocol):
    """Marks ranges for a profiler, as ``torch.cuda.nvtx`` does."""

    def range_push(self, name: str) -> object:
        """Open a range."""
        ...

    def range_pop(self) -> object:
        """Close the range that was opened last."""
        ...


class Phases:
    """Seconds by name; time belongs to the innermost phase. On CUDA each is an NVTX range.

    ::

        phases = Phases("cpu")
        with phases("oracle"):
            ...
        phases.seconds["oracle"]

    Args:
        device: "cpu" or "cuda". now: host seconds. ranges: where ranges go; NVTX on CUDA.
    """

    def __init__(
        self,
        device: str,
        now: Callable[[], float] = time.perf_counter,
        ranges: Ranges | None = None,
    ) -> None:
        if ranges is None and device == "cuda":
            from torch.cuda import nvtx

            ranges = nvtx
        self.seconds: dict[str, float] = {}
        self._now, self._ranges = now, ranges
        self._inner: list[float] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the block's seconds as ``name``."""
        if self._ranges is not None:
            self._ranges.range_push(name)
        start = self._now()
        self._inner.append(0.0)
        try:
            yield
        finally:
            took = self._now() - start
            inner = self._inner.pop()
            self.seconds[name] = self.seconds.get(name, 0.0) + took - inner
            if self._inner:
                self._inner[-1] += took
            if self._ranges is not None:
                self._ranges.range_pop()


def overhead(seconds: dict[str, float], wall_s: float) -> float:
    """Return the share of the wall time that was neither warming up nor sampling."""
    return 1 - sum(seconds.get(name, 0.0) for name in MEASURING) / wall_s
