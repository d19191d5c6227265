"""fprop, dgrad and wgrad on a CPU: by machine code of our own, or by torch's convolutions.

All take canonical patterns (contiguous groups) and return channels_last. ``native`` writes machine
code for this processor and is taken where it can be; ``grouped`` is plain torch, which also runs in
float64 and on any device. HRBP_CPU_KERNELS=grouped leaves machine code out; =native demands it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hrbp_core.kernels import grouped
from hrbp_core.kernels.native import machine
from hrbp_core.kernels.plan import Plan
from hrbp_core.launch_tables import Geometry
from hrbp_core.shapes import FilterShape, Pair

CL = torch.channels_last
CHOICES = ("auto", "native", "grouped")
# of a thread's copy of the rows that a band reads; more would be taps far apart over many channels
COPY_LIMIT_BYTES = grouped.GATHER_LIMIT_BYTES
INT32_MAX = 2**31 - 1


@lru_cache(maxsize=512)
def _plan(content: bytes, shape: FilterShape, block: Pair) -> Plan:
    return Plan(np.frombuffer(content, dtype=np.int32).reshape(-1, 3), shape, block)


def plan_for(entries: Tensor, shape: Sequence[int], block: Sequence[int]) -> Plan:
    """Return the plan of a pattern, from a cache keyed on content (in-place updates are seen)."""
    content = entries.detach().cpu().contiguous().numpy().tobytes()
    k, c, r, s = shape
    return _plan(content, (k, c, r, s), (block[0], block[1]))


def fprop(
    x: Tensor, values: Tensor, plan: Plan, geometry: Geometry, bias: Tensor | None = None
) -> Tensor:
    """Return y [N, K, P, Q]. x: [N, C, H, W]; values as BlockPattern packs them; bias: [K]."""
    size = grouped.output_size(x, plan, geometry)
    if takes_native(x, plan.shape, plan.block, size, geometry):
        from hrbp_core.kernels.native import passes

        x = grouped.pad_channels(x, plan.grid[1] * plan.block[1])
        y = passes.fprop(x, values, bias, plan, size, geometry)
        return grouped.trim(y, plan.shape[0])
    y = grouped.fprop(x, values, plan, geometry)
    return y if bias is None else y.add_(bias.view(1, -1, 1, 1))


def dgrad(
    dy: Tensor, values: Tensor, plan: Plan, input_size: Sequence[int], geometry: Geometry
) -> Tensor:
    """Return dx [N, C, H, W] for input_size (H, W). dy: [N, K, P, Q]."""
    size = (input_size[0], input_size[1])
    if takes_native(dy, plan.shape, plan.block, size, geometry):
        from hrbp_core.kernels.native import passes

        dy = grouped.pad_channels(dy, plan.grid[0] * plan.block[0])
        return grouped.trim(passes.dgrad(dy, values, plan, size, geometry), plan.shape[1])
    return grouped.dgrad(dy, values, plan, input_size, geometry)


def wgrad(dy: Tensor, x: Tensor, plan: Plan, geometry: Geometry) -> Tensor:
    """Return dvalues [entries * block_k, block_c]. dy: [N, K, P, Q]; x: [N, C, H, W]."""
    size = (dy.shape[2], dy.shape[3])
    if plan.entry_count and takes_native(x, plan.shape, plan.block, size, geometry):
        from hrbp_core.kernels.native import gradients

        dy = grouped.pad_channels(dy, plan.grid[0] * plan.block[0])
        x = grouped.pad_channels(x, plan.grid[1] * plan.block[1])
        return gradients.wgrad(dy, x, plan, geometry)
    return grouped.wgrad(dy, x, plan, geometry)


def takes_native(
    source: Tensor, shape: FilterShape, block: Pair, out_size: Pair, geometry: Geometry
) -> bool:
    """Return whether machine code of our own computes a pass.

    Args:
        source: what the pass reads, [N, ., H, W].
        shape: (K, C, R, S). block: (block_k, block_c).
        out_size: (height, width) of the pass' output; of dy in wgrad.
        geometry: (stride, padding, dilation).

    Raises:
        ValueError: HRBP_CPU_KERNELS is none of its words. RuntimeError: it demands machine code
            that this machine or this problem cannot have.
    """
    choice = os.environ.get("HRBP_CPU_KERNELS", "auto")
    if choice not in CHOICES:
        raise ValueError(f"expected HRBP_CPU_KERNELS of {', '.join(CHOICES)}; got {choice!r}")
    if choice == "grouped" or source.dtype == torch.float64 or source.device.type != "cpu":
        return False
    reason = _obstacle(source, shape, block, choice) or _excess(
        source, shape, block, out_size, geometry
    )
    if reason and choice == "native":
        raise RuntimeError(f"expected to compute by machine code (HRBP_CPU_KERNELS), got {reason}")
    return not reason


def _obstacle(source: Tensor, shape: FilterShape, block: Pair, choice: str) -> str:
    """Return why there is no machine code for a problem, or nothing."""
    reason = machine.obstacle()
    if reason:
        return reason
    lanes = machine.lanes()
    if block[0] % lanes or block[1] % lanes:
        return f"blocks {block} that are no multiples of {lanes} channels"
    if choice == "auto" and machine.multiplies(str(source.dtype)):
        return f"a processor that multiplies {source.dtype} itself, which oneDNN uses"
    return ""


def _excess(
    source: Tensor, shape: FilterShape, block: Pair, out_size: Pair, geometry: Geometry
) -> str:
    """Return what of a problem's sizes machine code does not take, or nothing."""
    if not source.numel() or not out_size[0] * out_size[1]:
        return "nothing to compute"
    width = max(shape[:2]) + max(block)
    places = max(source.shape[2] * source.shape[3], out_size[0] * out_size[1])
    if 4 * width * places > INT32_MAX:
        return f"an image of {places} pixels by {width} channels, too large for 32-bit offsets"
    stride, _, dilation = geometry
    reach = [(shape[2 + i] - 1) * dilation[i] for i in (0, 1)]
    lines = 2 * reach[0] + stride[0]  # of the lowest band
    columns = out_size[1] * stride[1] + reach[1]
    if 4 * width * lines * columns > COPY_LIMIT_BYTES:
        apart = f"taps {reach} pixels apart over {width} channels"
        return f"{apart}: a copy above {COPY_LIMIT_BYTES} bytes"
    return ""
