"""What tuning asks of a device, and a CUDA device's answer to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from bench.clocks import COLD_CACHES, Rotation, Run
from bench.environment import environment
from bench.measure import MOST_COPIES, MOST_COPY_BYTES
from bench.problem import pattern_of
from bench.records import Case
from bench.session import set_up
from bench.tile_cases import Item
from bench.tile_judge import FAILED, reason_of, run_twice, still_there
from bench.tile_problem import CL, JudgedProblem
from bench.tune_cases import Candidate, kernel_problem, kind_of
from hrbp_core.kernels import gpu
from hrbp_core.kernels.problem import Problem
from hrbp_core.launch_tables import whole_blocks
from hrbp_core.shapes import Pass


class Stand(Protocol):
    """Inputs of one problem on a device: the passes are checked and run on them."""

    problem: Problem

    def check(self, conv_pass: Pass, candidate: Candidate) -> tuple[str, str | None]:
        """Return (status, reason): "ok" and None when it is right against the oracle, twice."""
        ...

    def run(self, conv_pass: Pass, candidate: Candidate) -> Run:
        """Return the call that is timed."""
        ...


class Device(Protocol):
    """A GPU that tiles are tuned on."""

    name: str
    capability: int
    processors: int
    versions: dict[str, str | None]

    def open(self, case: Case) -> Stand:
        """Return the inputs of a case, whatever its pass."""
        ...

    def still_there(self, error: Exception) -> None:
        """Raise DeviceLost when the device answers no more."""
        ...


class CudaTuning:
    """torch.cuda's first device."""

    def __init__(self, dtype: str, cache_bytes: int) -> None:
        set_up("cuda", dtype)
        facts = environment("cuda")
        self.name, self.cache_bytes = gpu.device_name(0), cache_bytes
        self.capability, self.processors = gpu.capability(0), gpu.processors(0)
        self.versions = {n: getattr(facts, n) for n in ("torch", "triton", "cuda", "driver")}

    def open(self, case: Case) -> Stand:
        """Return the inputs of a case on the device."""
        torch.cuda.empty_cache()  # what the last problem took may come in other sizes now
        return JudgedStand(case, "cuda", self.cache_bytes, drawn_there, still_there)

    def still_there(self, error: Exception) -> None:
        """Raise DeviceLost when the CUDA context answers no more."""
        still_there(error)


def drawn_there(size: tuple[int, ...], dtype: torch.dtype, device: str, seed: int) -> Tensor:
    """Return uniform numbers in [-1, 1], drawn where they lie: 0.2e9 of them on a CPU take 1 s."""
    generator = torch.Generator(device=device).manual_seed(seed)
    memory = CL if len(size) == 4 else torch.contiguous_format
    empty = torch.empty(size, dtype=dtype, device=device, memory_format=memory)
    return empty.uniform_(-1, 1, generator=generator)


class JudgedStand:
    """A case's inputs, judged against the float64 oracle.

    Args:
        device: "cuda", or "cpu" under the interpreter.
        cache_bytes: of L2; copies of the inputs that outlast it make short calls cold.
        numbers: draws the inputs. lost: raises DeviceLost when the device is gone.
    """

    def __init__(
        self, case: Case, device: str, cache_bytes: int, numbers: Any,
        lost: Callable[[Exception], None] = lambda error: None,
    ) -> None:  # fmt: skip
        pattern = pattern_of(case.shape.filter_shape, case.recipe).canonical()[0]
        self.problem = kernel_problem(case, whole_blocks(pattern) > 0)
        self._made = JudgedProblem(kind_of(case), case.shape, pattern, device, numbers=numbers)
        self._lost, self._cache_bytes = lost, cache_bytes
        self._copies: list[JudgedProblem] | None = None

    def check(self, conv_pass: Pass, candidate: Candidate) -> tuple[str, str | None]:
        """Return (status, reason) of a candidate, run twice on poisoned memory."""
        try:
            status, reason, _ = run_twice(
                self._made, Item(conv_pass, candidate.tile), candidate.parts
            )
        except Exception as error:  # whatever a kernel or its compiler raises is a finding
            self._lost(error)
            return FAILED, reason_of(error)
        return status, reason

    def run(self, conv_pass: Pass, candidate: Candidate) -> Run:
        """Return the call: on copies of the inputs by turns where those fit the memory."""
        item, parts = Item(conv_pass, candidate.tile), candidate.parts
        calls = [
            lambda made=made: made.call(item, parts)  # type: ignore[misc]
            for made in (self._made, *self._rotated())
        ]
        return Rotation(calls, self._copy_bytes) if len(calls) > 1 else calls[0]

    @property
    def _copy_bytes(self) -> int:
        """What a call reads at least: of fprop or wgrad x, of dgrad dy, and the weights."""
        return min(self._made.x.nbytes, self._made.dy.nbytes) + self._made.values.nbytes

    def _rotated(self) -> list[JudgedProblem]:
        if self._copies is None:
            one = self._made.x.nbytes + self._made.dy.nbytes + self._made.values.nbytes
            copies = math.ceil(COLD_CACHES * self._cache_bytes / self._copy_bytes)
            few = copies <= MOST_COPIES and copies * one <= MOST_COPY_BYTES
            self._copies = [self._made.twin() for _ in range(copies if few else 0)]
        return self._copies
