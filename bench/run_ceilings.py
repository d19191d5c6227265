"""The ceilings that one run holds its cells against: measured first, raised when in doubt."""

from __future__ import annotations

from bench import ceilings
from bench.ceilings import Ceiling
from bench.clocks import last_level_cache
from bench.cuda_device import l2_bytes
from bench.floors import Ceilings

AGAIN = 5  # what five measurements did not raise is the ceiling; each takes seconds


class RunCeilings:
    """Copy bandwidth and matrix rate of one dtype on one device.

    A ceiling only rises: a shared machine that was slow while its ceilings were measured must
    not make a later cell look impossible, so ``again`` measures more sizes and keeps the best.
    It does so ``AGAIN`` times a run at most.
    """

    def __init__(self, device: str, dtype: str, clock: ceilings.Clock) -> None:
        self.device, self.dtype, self.clock = device, dtype, clock
        self.found: list[Ceiling] = []
        self.cache_bytes = l2_bytes() if device == "cuda" else last_level_cache()
        self.again_left = AGAIN
        self.seen = 0.0
        self._measure(quick=True)
        self.found.append(ceilings.launch_cost(device, clock))
        self.found.append(ceilings.graph_cost(device, clock))

    def now(self) -> Ceilings:
        """Return the best so far."""
        top = ceilings.best(self.found)
        rate = top[self.dtype].rate
        rate = rate if rate is None else max(rate, self.seen)
        return Ceilings(rate, top["copy"].rate, self.cache_bytes)

    def witness(self, flops_per_s: float) -> None:
        """Take note of a rate that a right dense layer was seen to reach.

        On a CPU that others load, ceilings alone were half of what a cell reached minutes later,
        which then looked impossible; the dense layer of the same rounds suffers the same load.
        """
        self.seen = max(self.seen, flops_per_s)

    def again(self) -> Ceilings:
        """Measure once more, all sizes, and return the best so far."""
        if self.again_left:
            self.again_left -= 1
            self._measure(quick=False)
        return self.now()

    def _measure(self, quick: bool) -> None:
        for size in ceilings.copy_sizes(self.device, quick):
            self.found.append(ceilings.copy_rate(self.device, size, self.clock))
        self.found += ceilings.matrix_rates(self.device, self.dtype, self.clock, quick)
