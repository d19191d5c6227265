"""A profiler's trace of some calls, to look into a cell."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import profiler

CALLS, WARM_UP = 5, 2


def trace(run: Callable[[], object], device: str, path: Path, calls: int = CALLS) -> Path:
    """Write a gzipped Chrome trace of ``calls`` calls, and return its path.

    Open it at ui.perfetto.dev or in chrome://tracing.

    Args:
        run: the call. device: "cpu" or "cuda". path: ends with .json.gz; replaced when there.
    """
    kinds = [profiler.ProfilerActivity.CPU]
    if device == "cuda":
        kinds.append(profiler.ProfilerActivity.CUDA)
    for _ in range(WARM_UP):
        run()
    with profiler.profile(activities=kinds) as found:
        for number in range(calls):
            with profiler.record_function(f"call {number}"):
                run()
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder:
        plain, packed = Path(folder, "trace.json"), Path(folder, "trace.json.gz")
        found.export_chrome_trace(str(plain))
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        os.replace(packed, path)
    return path
