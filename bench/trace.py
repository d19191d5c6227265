"""torch's profiler around some calls: a trace to look at, and seconds by kernel or operator."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from torch import profiler

CALLS, WARM_UP = 5, 2
# From torch 2.13 on the profiler prints a line on standard error at each start and stop.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")


@dataclass(frozen=True)
class Kernel:
    """What one GPU kernel, or on a CPU one operator without those it calls, took.

    Attributes:
        launches, seconds: per call of what was profiled.
    """

    name: str
    launches: float
    seconds: float


@dataclass(frozen=True)
class Profiled:
    """Some calls under the profiler.

    Attributes:
        kernels: the longest first. span_s: host seconds a call, the profiler's own included.
        events: what ``write`` stores.
    """

    kernels: tuple[Kernel, ...]
    span_s: float
    events: Any


def trace(run: Callable[[], object], device: str, path: Path, calls: int = CALLS) -> Path:
    """Write a gzipped Chrome trace of ``calls`` calls, and return its path.

    Open it at ui.perfetto.dev or in chrome://tracing.

    Args:
        run: the call. device: "cpu" or "cuda". path: ends with .json.gz; replaced when there.
    """
    return write(profiled(run, device, calls), path)


def profiled(run: Callable[[], object], device: str, calls: int = CALLS) -> Profiled:
    """Return what ``calls`` calls of ``run`` consist of, after ``WARM_UP`` untold ones."""
    kinds = [profiler.ProfilerActivity.CPU]
    if device == "cuda":
        kinds.append(profiler.ProfilerActivity.CUDA)
    for _ in range(WARM_UP):
        run()
    _finish(device)
    with profiler.profile(activities=kinds) as events:
        start = perf_counter()
        for _ in range(calls):
            run()
        _finish(device)
        span_s = (perf_counter() - start) / calls
    return Profiled(_kernels(events, device, calls), span_s, events)


def write(found: Profiled, path: Path) -> Path:
    """Write the calls as a gzipped Chrome trace; the path ends with .json.gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder:
        plain, packed = Path(folder, "trace.json"), Path(folder, "trace.json.gz")
        found.events.export_chrome_trace(str(plain))
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        os.replace(packed, path)
    return path


def _kernels(events: Any, device: str, calls: int) -> tuple[Kernel, ...]:
    """Sum what ran on the device by name: on CUDA kernels, copies and fills, on a CPU operators."""
    kind = torch.autograd.DeviceType.CUDA if device == "cuda" else torch.autograd.DeviceType.CPU
    times: dict[str, list[float]] = {}
    for event in events.events():
        marked = getattr(event, "is_user_annotation", False) or event.name.startswith("Profiler")
        if event.device_type != kind or marked:
            continue
        # a GPU kernel calls nothing: its own time is its span
        own_us = event.time_range.elapsed_us() if device == "cuda" else event.self_cpu_time_total
        times.setdefault(event.name, []).append(own_us * 1e-6)
    kernels = (Kernel(name, len(own) / calls, sum(own) / calls) for name, own in times.items())
    return tuple(sorted(kernels, key=lambda kernel: -kernel.seconds))


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
