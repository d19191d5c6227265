"""The most memory that a network's steps take: of the GPU's allocator, or of the process."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import torch

CUDA = "CUDA's allocator: the most allocated at once, weights and batch included"
PROCESS = "a process: growth of its largest resident size, from before the network was loaded"
KIB = 1024


class Peak:
    """Watches from where it is made.

    On Linux a process's ``ru_maxrss`` starts at the size of the process that started it, so the
    kernel's own mark of this one is read (VmHWM), which can be set back; elsewhere ``ru_maxrss``.
    """

    def __init__(self, device: str, proc: Path = Path("/proc/self")) -> None:
        self.device, self.proc = device, proc
        self.what = CUDA if device == "cuda" else PROCESS
        with contextlib.suppress(OSError):
            (proc / "clear_refs").write_text("5")
        self._before = self._resident("VmRSS")

    def again(self) -> None:
        """Forget the peak so far on CUDA, where algorithms were searched in large workspaces."""
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def bytes(self) -> int:
        """Return the peak."""
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated()
        return max(self._resident("VmHWM") - self._before, 0)

    def _resident(self, field: str) -> int:
        try:
            lines = (self.proc / "status").read_text().splitlines()
            return next(int(x.split()[1]) * KIB for x in lines if x.startswith(f"{field}:"))
        except (OSError, StopIteration, ValueError, IndexError):
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
