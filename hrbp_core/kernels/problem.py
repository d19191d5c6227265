"""What the three launchers share: extents, sections of the tables, memory of the output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hrbp_core.launch_tables import Geometry, Sections, group_counts, sections
from hrbp_core.shapes import FilterShape, Pair, output_extent

CL = torch.channels_last
WIDE = 2**31  # elements from which offsets need 64 bits


@dataclass(frozen=True)
class Problem:
    """One convolution as the kernels see it.

    Attributes:
        shape: (K, C, R, S).
        block: (block_k, block_c).
        geometry: (stride, padding, dilation).
        batch: N.
        size: (H, W) of x.
        entries: stored blocks.
        precision: how float32 is multiplied: "ieee" or "tf32".
        whole: every block keeps all of its taps.
    """

    shape: FilterShape
    block: Pair
    geometry: Geometry
    batch: int
    size: Pair
    entries: int
    precision: str = "ieee"
    whole: bool = False

    @cached_property
    def kept(self) -> dict[Any, Any]:
        """What launches work out of sizes alone. Without it a launch took 71 us of Python."""
        return {}

    @cached_property
    def out_size(self) -> Pair:
        """(P, Q)."""
        stride, padding, dilation = self.geometry
        p, q = (
            output_extent(self.size[i], self.shape[2 + i], stride[i], padding[i], dilation[i])
            for i in (0, 1)
        )
        return p, q

    @cached_property
    def groups(self) -> Pair:
        """(filter groups, channel groups)."""
        return group_counts(self.shape, self.block)

    @cached_property
    def at(self) -> Sections:
        """Where the sections of the launch tables start."""
        stride = self.geometry[0]
        blocks = self.entries // (self.shape[2] * self.shape[3]) if self.whole else 0
        return sections(self.entries, *self.groups, stride[0] * stride[1], blocks)

    @property
    def has_rows(self) -> bool:
        """True when a row of pixels serves three taps above each other: see ``kernels.rows``."""
        (stride, _, dilation), (k, c, r, _) = self.geometry, self.shape
        plain = stride == dilation == (1, 1) and r == 3
        return self.whole and plain and k % 8 == 0 and c % 8 == 0

    @cached_property
    def wide(self) -> bool:
        """True when an offset into x or y can pass 2**31, before its tap's shift is added too."""
        stride = self.geometry[0]
        extents = [max(self.size[i], self.out_size[i] * stride[i]) for i in (0, 1)]
        return self.batch * max(self.shape[:2]) * math.prod(extents) >= WIDE


def unit(channels: int) -> int:
    """Return 8 when rows of channels start on 16-byte boundaries, else 1: one load a number."""
    return 8 if channels % 8 == 0 else 1


def new_output(like: Tensor, batch: int, channels: int, size: Pair) -> Tensor:
    """Return unwritten memory, channels_last."""
    return torch.empty(
        (batch, channels, *size), dtype=like.dtype, device=like.device, memory_format=CL
    )


def pixel_args(size: Pair) -> dict[str, Any]:
    """Return the kernel arguments that split a pixel's number over a grid of this size."""
    from hrbp_core.kernels.fastdiv import magic

    (hw_mult, hw_shift), (w_mult, w_shift) = magic(size[0] * size[1]), magic(size[1])
    return {
        "grid_hw": size[0] * size[1],
        "grid_w": size[1],
        "hw_mult": hw_mult,
        "hw_shift": hw_shift,
        "w_mult": w_mult,
        "w_shift": w_shift,
    }
