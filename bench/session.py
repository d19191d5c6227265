"""One process that measures: the device set up, its clock, ceilings and monitor."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench import ceilings, ceilings_file, monitor, trace
from bench.allocator import keep_freed_memory
from bench.clocks import Run, clock_for
from bench.energy import energy, reader_for
from bench.environment import gpu_uuid, use_all_cores
from bench.extras import Extras
from bench.measure import measure_case
from bench.phases import Phases
from bench.records import Case, Environment, Flag, Measurement
from bench.run_ceilings import RunCeilings
from bench.timing import StopRule, spin


@dataclass(frozen=True)
class Settings:
    """Everything that a measuring process is told; plain types, so that it can be spawned.

    Attributes:
        folder: of the results; ceilings go there, and traces where wanted.
        locked: the clocks are locked by whoever started the process.
    """

    device: str
    dtype: str
    mode: str
    rule: StopRule
    facts: Environment
    folder: Path
    traces: bool = False
    energy: bool = False
    locked: bool = False

    @property
    def environment(self) -> str:
        """The id of the environment."""
        return self.facts.environment_id


class Session:
    """Measures cases in this process, one after another."""

    def __init__(self, settings: Settings, announce: Callable[[str], None] = lambda _: None):
        self.settings = settings
        self.keeps_memory = set_up(settings.device, settings.dtype)
        self.phases = Phases(settings.device)
        self.clock = clock_for(settings.device, settings.mode)
        self.uuid = gpu_uuid() if settings.device == "cuda" else None
        self.monitor = monitor.monitor_for(settings.device, self.uuid)
        with self.phases("spin"):
            spin()
        with self.phases("ceilings"):
            ceiling_clock = ceilings.clock_for(settings.device)
            self.ceilings = RunCeilings(settings.device, settings.dtype, ceiling_clock)
        ceilings_file.write(self.ceilings.found, settings.facts, settings.folder)
        self.extras = Extras(
            phase=self.phases,
            monitor=self.monitor,
            ceilings=self.ceilings,
            announce=announce,
            trace=self._trace if settings.traces else None,
            energy=self._energy if settings.energy else None,
        )

    def measure(self, case: Case, names: Sequence[str]) -> list[Measurement]:
        """Return one measurement for each implementation."""
        settings = self.settings
        found = measure_case(
            case, names, self.clock, settings.rule, settings.environment, self.extras
        )
        if settings.device == "cpu":
            allocator = "keeps what is freed" if self.keeps_memory else "the C library's default"
            return [replace(m, detail=m.detail | {"allocator": allocator}) for m in found]
        return found if settings.locked else [_flagged(m, Flag.UNLOCKED) for m in found]

    def close(self) -> None:
        """Keep the ceilings, which may have risen, and let the device's monitor go."""
        ceilings_file.write(self.ceilings.found, self.settings.facts, self.settings.folder)
        self.monitor.close()

    def _trace(self, cell_id: str, run: Run) -> Path:
        path = self.settings.folder / "traces" / f"{cell_id}.json.gz"
        return trace.trace(run, self.settings.device, path)

    def _energy(self, run: Run) -> dict[str, Any]:
        device = self.settings.device
        synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
        return energy(run, synchronize, reader_for(device, self.uuid))


def set_up(device: str, dtype: str) -> bool:
    """Set threads, memory, and the precision that a dtype's name promises.

    Returns:
        Whether freed memory is kept in this process.
    """
    use_all_cores()
    if device == "cuda":
        # "float32" means float32, and "tf32" float32 tensors multiplied as tf32
        torch.backends.cudnn.allow_tf32 = dtype == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.benchmark_limit = 0  # try all algorithms; the default stops at ten
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic checks ask it
    return keep_freed_memory()


def _flagged(measurement: Measurement, flag: Flag) -> Measurement:
    if not measurement.samples_s:
        return measurement
    return replace(measurement, flags=(*measurement.flags, flag))
