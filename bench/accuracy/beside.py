"""Trains several runs of a sweep at once, each in a process of its own.

Lines come back as runs finish; the caller stores them. Step times are taken in turns that the
others wait for, with all cores.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from bench.accuracy.checkpoint import Checkpoint
from bench.accuracy.company import Neighbours, end_with_the_parent
from bench.accuracy.desk import DONE, FAILED, READY, Pool
from bench.accuracy.one_run import Line, Sitting, line_of
from bench.accuracy.plan import Run
from bench.allocator import keep_freed_memory
from bench.environment import cores

AUTO = None
USED = 0.8  # of the GPU's free memory: arms differ, and allocators leave holes
CORES_A_RUN = 2  # one at least launches kernels or computes, one reads and draws
Named = tuple[Run, str]  # a run and its run_id


@dataclass(frozen=True)
class Memory:
    """Bytes of GPU memory that a process's allocator held: at most, and after its run."""

    peak: int
    held: int


@dataclass(frozen=True)
class Job:
    """A run to be trained; prints as the run."""

    run: Run
    run_id: str

    def __str__(self) -> str:
        return str(self.run)


def places(beside: int | None, device: str) -> int:
    """Return how many runs train at once: on CUDA, before the first one showed its memory.

    Args:
        beside: None: as many as have two cores each.
    """
    if beside is not AUTO:
        return beside
    return 1 if device == "cuda" else max(1, cores() // CORES_A_RUN)


def threads_of(device: str, count: int, threads: int) -> int:
    """Return torch's threads of each of ``count`` runs: a share; on CUDA they hardly compute."""
    return threads if device == "cuda" else max(1, threads // count)


def room(before: int, after: int, memory: Memory) -> int:
    """Return how many runs fit the GPU.

    Args:
        before, after: bytes free before the first process and after its first run, while it
            holds its context and data. memory: of that run.
    """
    each = before - after + memory.peak - memory.held
    return max(1, min(math.floor(USED * before / max(each, 1)), cores() // CORES_A_RUN))


def trained(
    sitting: Sitting, todo: Iterable[Named], beside: int | None, threads: int
) -> Generator[tuple[str, Line], None, None]:
    """Yield (run_id, line) of each run as it finishes.

    A run for which memory was short beside others is trained once more, alone, in the end.

    Args:
        sitting: with its split on the CPU.
        threads: of torch, for all runs together.

    Raises:
        RuntimeError: a run failed, or its process died; the others at work are finished first.
    """
    cuda = sitting.device == "cuda"
    count = places(beside, sitting.device)
    context = multiprocessing.get_context("spawn")
    wanted = context.RawValue("b", 0)
    each = threads_of(sitting.device, count, threads)
    share_memory(sitting.split)

    def hire() -> tuple[BaseProcess, Connection]:
        mine, theirs = context.Pipe()
        arguments = (theirs, wanted, sitting, each, threads)
        process = context.Process(target=work, args=arguments, daemon=True)
        process.start()
        theirs.close()  # or its end would not be heard
        return process, mine

    before = free_memory() if cuda else 0
    pool = Pool(hire, wanted, [Job(*named) for named in todo], count)
    tried: set[str] = set()
    with contextlib.closing(pool.results()) as results:  # or an error here would leave them be
        for job, (line, memory) in results:
            if line["status"] == "oom" and pool.shared and job.run_id not in tried:
                tried.add(job.run_id)
                pool.again(job)
                continue
            if beside is AUTO and memory and pool.places == 1 and not tried:
                pool.places = room(before, free_memory(), memory)
            yield job.run_id, line


def free_memory() -> int:
    """Return the bytes that are free on the GPU."""
    free: int = torch.cuda.mem_get_info()[0]
    return free


def share_memory(split: Any) -> None:
    """Let the processes see the images without a copy each."""
    for tensor in (split.train_x, split.train_y, split.test_x, split.test_y):
        tensor.share_memory_()


def work(pipe: Connection, wanted: Any, sitting: Sitting, threads: int, whole: int) -> None:
    """Train the runs that come by the pipe: the whole life of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    end_with_the_parent()
    torch.set_num_threads(threads)
    keep_freed_memory()
    cuda = sitting.device == "cuda"
    company = Neighbours(
        pipe, wanted, torch.cuda.synchronize if cuda else lambda: None, lambda: at_full(whole)
    )
    sitting = replace(sitting, split=sitting.split.to(sitting.device), company=company)
    pipe.send((READY, None))
    while (job := pipe.recv()) is not None:
        company.pause()
        checkpoint = Checkpoint(sitting.out, job.run_id, sitting.every_s)
        try:
            line = line_of(job.run, sitting, job.run_id, checkpoint)
        except Exception as error:
            pipe.send((FAILED, f"{type(error).__name__}: {error}"))
        else:
            pipe.send((DONE, (line, _memory() if cuda else None)))


def _memory() -> Memory:
    """Return what the run took, and give its memory back to the others."""
    peak = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return Memory(peak, torch.cuda.memory_reserved())


@contextlib.contextmanager
def at_full(threads: int) -> Iterator[None]:
    """Compute with so many threads for a while."""
    own = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(own)
