"""What a CudaClock asks of a device, and torch.cuda's answer to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

FLUSH_BYTES = 256 * 2**20
Run = Callable[[], object]


class Device(Protocol):
    """What a CudaClock asks of a device. Marks are points in its queue."""

    cache_bytes: int

    def mark(self) -> Any: ...

    def reached(self, mark: Any) -> bool: ...

    def seconds(self, first: Any, last: Any) -> float: ...

    def spin(self, seconds: float) -> None: ...

    def flush(self) -> None: ...

    def synchronize(self) -> None: ...

    def capture(self, run: Run, calls: int) -> Run: ...


class CudaDevice:
    """torch.cuda's current device and stream."""

    def __init__(self) -> None:
        self.cache_bytes = l2_bytes()
        size = max(2 * self.cache_bytes, FLUSH_BYTES)
        self._buffer = torch.empty(size, dtype=torch.int8, device="cuda")
        self._cycles_per_s = 1e9
        torch.cuda._sleep(1000)  # the first one loads the module
        start = self.mark()
        self.spin(2e-3)
        self._cycles_per_s *= 2e-3 / self.seconds(start, self.mark())

    def mark(self) -> Any:
        """Return an event, recorded now."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def reached(self, mark: Any) -> bool:
        """Return whether the device has come to the mark."""
        return bool(mark.query())

    def seconds(self, first: Any, last: Any) -> float:
        """Wait for ``last``; return the seconds between the two."""
        last.synchronize()
        return float(first.elapsed_time(last)) * 1e-3

    def spin(self, seconds: float) -> None:
        """Enqueue a kernel that does nothing for about this long."""
        torch.cuda._sleep(int(seconds * self._cycles_per_s))

    def flush(self) -> None:
        """Enqueue the overwriting of L2."""
        self._buffer.zero_()

    def synchronize(self) -> None:
        """Wait for everything enqueued."""
        torch.cuda.synchronize()

    def capture(self, run: Run, calls: int) -> Run:
        """Return the replay of a CUDA graph of ``calls`` calls."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what a first call allocates or tunes is no part of it
            run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = [run() for _ in range(calls)]

        def replay() -> object:
            graph.replay()
            return kept[-1]

        return replay


def l2_bytes() -> int:
    """Return bytes of the GPU's L2 cache."""
    return int(getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 0))
