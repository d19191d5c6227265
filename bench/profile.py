"""What the compiler made of the kernels: registers, memory, instructions; without a GPU.

Nothing here is a measurement. A profile on a live device is not there yet.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from importlib import metadata
from multiprocessing import get_context, parent_process
from typing import Any

import torch

from bench import occupancy, sass
from bench.offline_table import Job, identity, launch_of
from bench.records import Case
from hrbp_core.kernels import gpu
from hrbp_core.kernels.offline import compile_launch, tool

SCHEMA = 1
Progress = Callable[[int, int, str], None]
# Of an H200: a copy (read + write), and dense matrix products. Other dtypes: no rate assumed.
BANDWIDTH_TBS = 4.3
RATE_TFLOPS = {"bfloat16": 788.0, "float16": 788.0}
OFFENCES = ("spilling", "without wgmma", "too much shared memory", "missing", "failed")


@dataclass(frozen=True)
class Facts:
    """What one binary is.

    Attributes:
        stack_bytes: of a thread; more than 0 where registers spill.
        shared_bytes: of a program, static and dynamic, without the 1 KiB that CUDA reserves.
        programs: that share a multiprocessor.
        matrix: matrix instructions by kind.
        async_loads, loads: copies to shared memory, and loads, by width in bits a thread.
        hot_loop: instructions of the innermost loop with the most matrix instructions.
    """

    kernel: str
    registers: int
    stack_bytes: int
    shared_bytes: int
    warps: int
    programs: int
    matrix: dict[str, int]
    async_loads: dict[int, int]
    loads: dict[int, int]
    two_byte_loads: int
    hot_loop: int | None
    instructions: int


@dataclass(frozen=True)
class Row:
    """A job and its facts, or the reason why there are none."""

    job: Job
    facts: Facts | None = None
    reason: str = ""

    @property
    def offences(self) -> list[str]:
        """Which of ``OFFENCES`` this launch commits."""
        if self.facts is None:
            return ["failed"]
        job, facts, found = self.job, self.facts, []
        if facts.stack_bytes > 0:
            found.append("spilling")
        wants = job.arch == "sm_90" and job.arithmetic in ("half", "tf32") and not job.summing
        if wants and not job.tile.fallback and job.largest_side >= 64:
            found += ["without wgmma"] * ("HGMMA" not in facts.matrix)
        if facts.shared_bytes > occupancy.arch_of(job.arch).program_shared_bytes:
            found.append("too much shared memory")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        job = self.job
        return {
            "pass": str(job.conv_pass), "dtype": job.dtype, "arithmetic": job.arithmetic,
            "block": list(job.problem.block), "variant": job.variant, "arch": job.arch,
            "tile": "sum_parts" if job.summing else job.tile.name, "fallback": job.tile.fallback,
            "problem": {
                "shape": list(job.problem.shape), "batch": job.problem.batch,
                "size": list(job.problem.size), "entries": job.problem.entries,
                "stride_padding_dilation": [list(pair) for pair in job.problem.geometry],
            },
            "bias": job.bias, "parts": job.parts, "offences": self.offences,
            "reason": self.reason or None, **(asdict(self.facts) if self.facts else {}),
        }  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """All rows, and what they add up to.

    Attributes:
        missing: what is accepted but has no tile.
        compiled: different binaries among the rows.
    """

    rows: list[Row]
    missing: list[str] = field(default_factory=list)
    compiled: int = 0

    @property
    def offenders(self) -> dict[str, list[str]]:
        """Names of the offenders by offence."""
        found: dict[str, list[str]] = {offence: [] for offence in OFFENCES}
        for row in self.rows:
            for offence in row.offences:
                found[offence].append(_named(row, offence))
        found["missing"] = self.missing
        return found

    @property
    def exit_code(self) -> int:
        """0, or 1 when there is an offender."""
        return int(any(self.offenders.values()))


def _named(row: Row, offence: str) -> str:
    facts = row.facts
    if facts is None:
        return f"{row.job.label}: {row.reason}"
    numbers = {
        "spilling": f"{facts.registers} registers, {facts.stack_bytes} bytes of stack",
        "without wgmma": f"{facts.matrix}, longer side {row.job.largest_side}",
        "too much shared memory": f"{facts.shared_bytes} bytes",
    }
    return f"{row.job.label}: {numbers[offence]}"


def examine(job: Job) -> Facts:
    """Compile a launch and read its binary.

    Raises:
        RuntimeError: the kernels are interpreted here, or a tool is missing or fails.
        Whatever the compiler raises.
    """
    arch = occupancy.arch_of(job.arch)
    binary = compile_launch(launch_of(job), arch.capability)
    text = _disassemble(binary.cubin)
    code, usage = sass.instructions(text), sass.usage(text)
    loads, loop = sass.load_widths(code, "LDG"), sass.hot_loop(code)
    return Facts(
        binary.name, usage.registers, usage.stack_bytes, binary.shared_bytes, binary.warps,
        occupancy.programs(arch, usage.registers, binary.shared_bytes, binary.warps),
        sass.matrix_counts(code), sass.load_widths(code, "LDGSTS"), loads, loads.get(16, 0),
        None if loop is None else len(loop), len(code),
    )  # fmt: skip


def _disassemble(cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [tool("cuobjdump"), "-sass", "-res-usage", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"cuobjdump ended with {done.returncode}: {done.stderr.strip()[:300]}")
    return done.stdout


def profile_jobs(jobs: Sequence[Job], processes: int, progress: Progress) -> Outcome:
    """Compile all jobs, those that come to the same binary once.

    Args:
        processes: that compile side by side; 1 compiles in this one.

    Raises:
        RuntimeError: the kernels are interpreted in this process.
    """
    if gpu.interpreted():
        raise RuntimeError(
            "expected compiled kernels, but TRITON_INTERPRET=1 interprets them: unset it"
        )
    keys = [identity(job) for job in jobs]
    once = dict(zip(keys, jobs, strict=True))
    found: dict[Any, Facts | str] = {}

    def keep(key: Any, made: Facts | str) -> None:
        found[key] = made
        progress(len(found), len(once), once[key].label)

    if processes == 1:
        for key, job in once.items():
            keep(key, _try(job))
    else:
        for key, made in _side_by_side(once, processes):
            keep(key, made)
    rows = [_row(job, found[key]) for job, key in zip(jobs, keys, strict=True)]
    return Outcome(rows, compiled=len(once))


def _row(job: Job, made: Facts | str) -> Row:
    return Row(job, reason=made) if isinstance(made, str) else Row(job, made)


def _try(job: Job) -> Facts | str:
    """Return the facts, or in words why there are none: one bad tile must not hide the others."""
    try:
        return examine(job)
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no reason given"]
        return f"{type(error).__name__}: {' '.join(lines)[:300]}"


def _side_by_side(jobs: dict[Any, Job], processes: int) -> Iterator[tuple[Any, Facts | str]]:
    """Yield each result. A compiler that takes its process down costs that job alone."""
    left = dict(jobs)
    while left:
        for key, made in _pool(left, processes):
            del left[key]
            yield key, made
        if left:  # a process ended; one process works in order, so the next to do that is known
            for key, made in _pool(left, 1):
                del left[key]
                yield key, made
        if left:
            culprit = next(iter(left))
            del left[culprit]
            yield culprit, "the compiler ended its process"


def _pool(jobs: dict[Any, Job], processes: int) -> Iterator[tuple[Any, Facts | str]]:
    """Yield results until all are there or a process ends."""
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_begin)
    try:
        futures = {pool.submit(_try, job): key for key, job in jobs.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        return
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Leave the other cores, and an interrupt, to the process that waits."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool whose owner was killed would wait for ever."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def floor(case: Case, rate_tflops: float | None, bandwidth_tbs: float) -> dict[str, Any]:
    """Return the least time of a case under the ceilings: a model, never a measurement.

    ``floor_s`` is null where no rate is known for the dtype.
    """
    flops = case.shape.flops(case.stored_weights)
    itemsize = getattr(torch, case.dtype).itemsize
    least_bytes = case.shape.least_bytes(case.conv_pass, itemsize, case.stored_weights)
    memory_s = least_bytes / (bandwidth_tbs * 1e12)
    compute_s = None if rate_tflops is None else flops / (rate_tflops * 1e12)
    return {
        "pass": str(case.conv_pass), "stored_weights": case.stored_weights, "flops": flops,
        "least_bytes": least_bytes, "compute_s": compute_s, "memory_s": memory_s,
        "floor_s": None if compute_s is None else max(compute_s, memory_s),
        "assumed_rate_tflops": rate_tflops, "assumed_bandwidth_tbs": bandwidth_tbs,
    }  # fmt: skip


def document(outcome: Outcome, request: dict[str, Any], floors: list[dict[str, Any]]) -> Any:
    """Return the report as plain JSON types."""
    offenders = outcome.offenders
    return {
        "schema": SCHEMA,
        "what": "offline compilation: no measurement",
        "request": request,
        "torch": str(torch.__version__),
        "triton": metadata.version("triton"),
        "launches": len(outcome.rows),
        "compiled": outcome.compiled,
        "counts": {offence: len(names) for offence, names in offenders.items()},
        "offenders": offenders,
        "floor_model": floors,
        "rows": [row.to_dict() for row in outcome.rows],
    }
