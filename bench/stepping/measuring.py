"""One network in a process of its own, stepped when it is told."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.energy import energy, reader_for
from bench.environment import gpu_uuid
from bench.monitor import monitor_for
from bench.session import set_up
from bench.stepping.asked import Asked
from bench.stepping.making import batch_for, layout_of, load
from bench.stepping.memory import Peak
from bench.stepping.spent import sparse_keys, spent
from bench.stepping.stepper import Stepper, finish
from bench.timing import spin
from hrbp_core import BlockSparseConv2d

SPIN_S = 0.5


class Measured:
    """The dense or the sparse network of a comparison.

    Args:
        asked: the comparison. folder: where ``making.make`` wrote. side: "dense" or "sparse".
        at: told what is done now.
    """

    def __init__(self, asked: Asked, folder: Path, side: str, at: Callable[[str], None]) -> None:
        self.asked, self.folder, self.side, self.at = asked, folder, side, at
        set_up(asked.device, asked.precision)
        self.peak = Peak(asked.device)
        self.uuid = gpu_uuid() if asked.device == "cuda" else None
        self.monitor = monitor_for(asked.device, self.uuid)
        self.causes: set[str] = set()

    def prepare(self) -> dict[str, Any]:
        """Load, compile or capture, and warm up; return ``prep_s`` and ``step_s``."""
        self.at("preparing")
        spin(SPIN_S)
        start = time.perf_counter()
        network = load(self.asked, self.folder, self.side)
        self.batch = batch_for(self.asked, layout_of(self.folder, self.side))
        self.stepper = Stepper(network, self.batch, self.asked.mode, self.asked.amp)
        self.stepper.prepare()
        prep_s = time.perf_counter() - start
        self.at("warming up")
        step_s = self.stepper.warm_up()
        if self.asked.mode != "graph":  # whose memory was taken when it was captured
            self.peak.again()
        self.monitor.start()
        self.monitor.block()
        return {"prep_s": prep_s, "step_s": step_s, "optimizer": self.stepper.kind}

    def turn(self, steps: int) -> list[float]:
        """Return the seconds of each of some steps."""
        self.at("stepping")
        found = self.stepper.timed(steps)
        self.monitor.tick()
        cause = self.monitor.block()
        self.causes |= {cause} if cause else set()
        return found

    def end(self) -> dict[str, Any]:
        """Return the peak, what the device did meanwhile, and the loss of a last step."""
        self.at("a last step")
        peak = self.peak.bytes()
        watched = self.monitor.stop()
        loss = float(self.stepper())
        return {
            "peak_bytes": peak,
            "memory": self.peak.what,
            "monitor": watched,
            "causes": sorted(self.causes),
            "loss": loss if math.isfinite(loss) else None,
        }

    def spent(self) -> dict[str, Any]:
        """Return where the time goes; a graph's steps are profiled uncaptured."""
        self.at("profiling")
        step, mode = self.stepper, self.asked.mode
        if mode == "graph":  # whose replay names no operators
            step, mode = Stepper(step.network, self.batch, "eager", self.asked.amp), "eager"
        found = spent(step, self.asked.device, self._keys())
        return found | {"profiled": mode}

    def _keys(self) -> dict[Any, float]:
        if self.side != "dense":
            return {}
        sparse = torch.load(self.folder / "sparse.pt", weights_only=False, map_location="cpu")
        names = [n for n, m in sparse.named_modules() if isinstance(m, BlockSparseConv2d)]
        return sparse_keys(self.stepper.network, self.batch[0], names)

    def energy(self) -> dict[str, Any]:
        """Return joules a step, by ``bench.energy``."""
        self.at("measuring energy")
        device = self.asked.device
        return energy(self.stepper, lambda: finish(device), reader_for(device, self.uuid))
