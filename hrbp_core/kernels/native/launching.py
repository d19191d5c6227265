"""What the passes' host code shares: memory that is kept, slots, the call itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrbp_core.kernels.native.layout import Copy
from hrbp_core.kernels.native.machine import compile_function
from hrbp_core.kernels.native.threads import run_on_threads

CL = torch.channels_last
KEPT_FLOATS = 16 * 2**20  # of memory that a Python thread keeps between calls, by use
_local = threading.local()
_compiled: dict[Hashable, int] = {}
_LOCK = threading.Lock()


def memory(use: str, floats: int) -> Tensor:
    """Return unwritten float32 memory for the length of a call.

    Kept for the thread's next call: fresh memory costs a page fault every 4 KiB.
    """
    kept: dict[str, Tensor] = _local.__dict__.setdefault("kept", {})
    found = kept.get(use)
    if found is None or found.numel() < floats:
        # 16 more, so that a vector's read of the last number stays inside
        found = torch.empty(floats + 16, dtype=torch.float32)
        if floats <= KEPT_FLOATS:
            kept[use] = found
    return found


def address(table: np.ndarray | Tensor) -> int:
    """Return where a table's memory starts."""
    return int(table.ctypes.data if isinstance(table, np.ndarray) else table.data_ptr())


def source_slots(source: Tensor, copy: Copy) -> dict[str, int]:
    """Return the slots of ``rows.RowCopy`` for an image tensor [N, C, H, W], channels_last."""
    _, channels, height, width = source.shape
    return {
        "source": source.data_ptr(),
        "source_image": channels * height * width,
        "source_row": channels * width,
        "source_height": height,
        "source_pixel": channels,
        "first_column": copy.first,
        "last_column": copy.last,
        "column_shift": copy.shift,
        "row_floats": copy.row_floats,
        "group_floats": copy.group_floats,
        "row_count": copy.rows,
        "in_groups": copy.groups,
        "columns": copy.columns,
    }


def code(make: Callable[..., tuple[Any, str]], *arguments: Hashable) -> int:
    """Return the address of the function in ``make(*arguments)``, compiled once a process."""
    key = (make, *arguments)
    found = _compiled.get(key)
    if found is None:
        with _LOCK:
            if key not in _compiled:
                _compiled[key] = compile_function(*make(*arguments))
            found = _compiled[key]
    return found


def launch(function: int, names: Sequence[str], slots: Mapping[str, int], threads: int) -> None:
    """Run the function on torch's threads; ``next_item`` and ``next_thread`` start at 0.

    Args:
        threads: at most; the caller's memory is for so many, whatever torch is told meanwhile.
    """
    counters = np.zeros(16, dtype=np.int64)  # 64 bytes apart, a cache line each
    given = dict(slots, next_item=address(counters), next_thread=address(counters[8:]))
    array = np.array([given[name] for name in names], dtype=np.int64)
    run_on_threads(function, address(array), threads)
