"""A compiled function on torch's own OpenMP threads.

A second pool of threads would fight torch's for the same cores: after a parallel region OpenMP's
threads spin for a while. libgomp's and LLVM's libraries both offer ``GOMP_parallel``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch

_NAMES = ("libgomp", "libiomp", "libomp")


@lru_cache(maxsize=1)
def parallel() -> Callable[..., None] | None:
    """Return ``GOMP_parallel`` of the OpenMP library that torch uses, or None."""
    for path in _loaded():
        try:
            found = ctypes.CDLL(path).GOMP_parallel
        except (OSError, AttributeError):
            continue
        found.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        found.restype = None
        return found  # type: ignore[no-any-return]
    return None


def _loaded() -> list[str]:
    """Return the OpenMP libraries in this process, torch's own first."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[5] for line in lines if line.count("/") and ".so" in line}
    named = sorted(p for p in paths if Path(p).name.startswith(_NAMES))
    home = str(Path(torch.__file__).parent)
    return sorted(named, key=lambda p: not p.startswith(home))


def run_on_threads(address: int, slots: int, threads: int) -> None:
    """Call function(slots) on that many of torch's threads at once, and wait for all."""
    call = parallel()
    if call is None:
        raise RuntimeError("expected an OpenMP library in this process, found none")
    call(address, slots, threads, 0)
