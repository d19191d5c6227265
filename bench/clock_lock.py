"""Locks a GPU's clocks while a block runs, on request alone, and always restores them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def locked_gpu(mhz: int) -> Iterator[None]:
    """Lock the current GPU's clocks, as :func:`locked_clocks`."""
    import pynvml

    from bench.environment import gpu_uuid

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(gpu_uuid())
    except pynvml.NVMLError as error:
        raise ValueError(f"expected NVML to lock clocks, got: {error}") from error
    try:
        with locked_clocks(pynvml, handle, mhz):
            yield
    finally:
        pynvml.nvmlShutdown()


@contextmanager
def locked_clocks(nvml: Any, handle: Any, mhz: int) -> Iterator[None]:
    """Lock a GPU's clocks at ``mhz``; they are reset however the block ends, SIGTERM included.

    Raises:
        ValueError: a clock that the GPU does not have; no permission.
    """
    supported = _supported(nvml, handle)
    if supported and mhz not in supported:
        near = sorted(sorted(supported, key=lambda each: abs(each - mhz))[:3])
        names = ", ".join(map(str, near))
        raise ValueError(f"expected a clock that the GPU has, near {names} MHz; got {mhz}")
    with _on_terminate():
        try:
            nvml.nvmlDeviceSetGpuLockedClocks(handle, mhz, mhz)
        except Exception as error:
            raise ValueError(
                f"expected permission to lock clocks (root, or CAP_SYS_ADMIN), got: {error}"
            ) from error
        try:
            yield
        finally:
            nvml.nvmlDeviceResetGpuLockedClocks(handle)


def _supported(nvml: Any, handle: Any) -> list[int]:
    """Return the SM clocks beside the highest memory clock; [] where the GPU does not say."""
    try:
        memory = max(nvml.nvmlDeviceGetSupportedMemoryClocks(handle))
        return list(nvml.nvmlDeviceGetSupportedGraphicsClocks(handle, memory))
    except Exception:  # then the lock itself will tell
        return []


@contextmanager
def _on_terminate() -> Iterator[None]:
    """Turn SIGTERM into SystemExit inside a block, so that what must be restored is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
