"""Runs one cell a few times and nothing else, for a profiler outside this process.

::

    python -m bench.repeat '<a cell as JSON>' 2

The calls lie within the NVTX range ``bench.ncu.RANGE``; what compiles or tunes comes before it.
"""

from __future__ import annotations

import json
import sys

import torch

from bench import impls
from bench.ncu import RANGE
from bench.problem import Problem
from bench.records import Cell
from bench.session import set_up

WARM_UP = 3


def repeat(cell: Cell, calls: int) -> None:
    """Prepare, warm up, and call."""
    device = cell.case.device
    set_up(device, cell.case.dtype)
    run = impls.load(cell.impl).prepare(Problem.of(cell.case)).run
    for _ in range(WARM_UP):
        run()
    if device != "cuda":
        for _ in range(calls):
            run()
        return
    torch.cuda.synchronize()
    with torch.cuda.nvtx.range(RANGE):
        for _ in range(calls):
            run()
        torch.cuda.synchronize()


if __name__ == "__main__":
    repeat(Cell.from_dict(json.loads(sys.argv[1])), int(sys.argv[2]))
