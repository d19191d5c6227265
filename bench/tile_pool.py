"""Batches of tiles over several processes: a crash costs one tile, compilers run side by side.

A kernel that reads beyond its memory breaks the CUDA context of its process for good. The
process is then replaced, the tile in hand is recorded as failed, and the rest goes on.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Any

from bench.tile_cases import TileBatch
from bench.tile_judge import FAILED, DeviceLost

ITEM_LIMIT_S = 150.0  # of one tile: the first of a batch compiles, and makes problem and oracle
START_LIMIT_S = 300.0  # many processes load torch and its libraries at once
POLL_S = 0.5
READY, LOST, END = "ready", "lost", "end"
Record = dict[str, Any]
Check = Callable[[TileBatch, str], Iterable[Record]]


class PoolError(RuntimeError):
    """Worker processes cannot be started."""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    ready: bool = False
    batch: TileBatch | None = None
    since: float = 0.0

    def take(self, waiting: deque[TileBatch]) -> None:
        self.batch, self.since = (waiting.popleft() if waiting else None), monotonic()
        if self.batch:
            self.pipe.send(self.batch)


def _serve(pipe: Connection, check: Check, device: str) -> None:
    """Answer batches with records until the parent is gone or the device is lost."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    torch.set_num_threads(1)
    pipe.send(READY)
    while True:
        try:
            batch = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            for record in check(batch, device):
                pipe.send(record)
        except DeviceLost:
            traceback.print_exc()
            pipe.send(LOST)
            return
        pipe.send(END)


def pooled(
    batches: Iterable[TileBatch],
    check: Check,
    device: str,
    jobs: int,
    stop: Callable[[], bool],
    item_limit_s: float = ITEM_LIMIT_S,
) -> Iterator[Record]:
    """Yield the records of all batches as they come, until ``stop()`` or the end.

    Args:
        check: a function of a module (it travels by name) that yields a record an item, in order.
        device: handed to ``check``.
        jobs: processes.
        stop: asked between records, and twice a second.
        item_limit_s: a tile that takes longer is recorded as failed and its process ended.

    Raises:
        PoolError: a process that dies before it is ready.
    """
    waiting = deque(batches)
    workers = [_start(check, device) for _ in range(min(jobs, len(waiting)))]
    try:
        while workers and not stop():
            for pipe in wait([w.pipe for w in workers], POLL_S):
                worker = next(w for w in workers if w.pipe is pipe)
                yield from _hear(worker, workers, waiting)
                if worker not in workers and waiting:
                    workers.append(_start(check, device))
                if stop():
                    return
            for worker in _overdue(workers, item_limit_s):
                worker.process.kill()  # its pipe ends, and the tile in hand is blamed
                worker.since = monotonic()
            if not waiting and all(w.ready and w.batch is None for w in workers):
                return
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()


def _start(check: Check, device: str) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, check, device), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours, since=monotonic())


def _hear(worker: _Worker, workers: list[_Worker], waiting: deque[TileBatch]) -> Iterator[Record]:
    """Handle one message; a worker that is gone leaves ``workers``, its rest goes back."""
    try:
        message = worker.pipe.recv()
    except (EOFError, OSError):
        message = None
    batch = worker.batch
    if isinstance(message, dict):
        worker.since = monotonic()
        worker.batch = replace(batch, items=batch.items[1:]) if batch else None
        yield message
    elif message in (READY, END):
        worker.ready = True
        worker.take(waiting)
    else:
        workers.remove(worker)
        worker.process.join(5)
        if not worker.ready:
            raise PoolError(
                f"expected a worker process to start, got exit code {worker.process.exitcode}"
            )
        if message is None and batch and batch.items:
            code = worker.process.exitcode
            yield batch.record(batch.items[0], FAILED, f"its process ended with exit code {code}")
            batch = replace(batch, items=batch.items[1:])
        if batch and batch.items:
            waiting.appendleft(batch)


def _overdue(workers: list[_Worker], limit_s: float) -> list[_Worker]:
    now = monotonic()
    busy = [w for w in workers if w.batch or not w.ready]
    return [w for w in busy if now - w.since > (limit_s if w.ready else START_LIMIT_S)]
