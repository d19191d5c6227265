"""A kernel with its arguments: run on a device, or compiled offline from the same arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Launch:
    """One kernel launch, ready to go.

    Attributes:
        kernel: a ``triton.jit`` function.
        grid: programs along x, y, z.
        args: every argument by name, tensors and constants.
        options: num_warps, num_stages.
    """

    kernel: Any
    grid: tuple[int, ...]
    args: dict[str, Any]
    options: dict[str, int]

    def run(self) -> None:
        """Enqueue the kernel on the current stream (or interpret it)."""
        self.kernel[self.grid](**self.args, **self.options)
