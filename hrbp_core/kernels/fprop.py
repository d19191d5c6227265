"""fprop on a GPU: y [N, K, P, Q] from x [N, C, H, W] and the stored blocks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hrbp_core.kernels.gather import gather_conv
from hrbp_core.kernels.launch import Launch
from hrbp_core.kernels.problem import Problem, pixel_args, unit
from hrbp_core.kernels.rows import launch as launch_rows
from hrbp_core.kernels.tile_types import GatherTile, RowTile
from hrbp_core.shapes import Pass

L2_BYTES = 50 * 2**20  # of an H100; the order of programs alone depends on it


def launch(
    x: Tensor,
    values: Tensor,
    tables: Tensor,
    out: Tensor,
    bias: Tensor | None,
    problem: Problem,
    tile: GatherTile | RowTile,
) -> Launch:
    """Return the launch that writes ``out`` = y, every element of it.

    Args:
        x [N, C, H, W], out [N, K, P, Q]: dense channels_last memory, one dtype.
        values: [entries * block_k, block_c].
        tables: of ``launch_tables`` for this pattern and geometry.
        bias: [K] or None.
    """
    large = x.numel() * x.element_size() > L2_BYTES
    if isinstance(tile, RowTile):
        return launch_rows(Pass.FPROP, x, values, tables, out, bias, problem, tile, large)
    key = "fprop", tile, bias is not None, large
    if key not in problem.kept:
        problem.kept[key] = _sizes(problem, tile, bias is not None, large)
    programs, sizes = problem.kept[key]
    tensors = {"source": x, "values": values, "out": out, "tables": tables}
    args = {**tensors, "bias": values if bias is None else bias, **sizes}
    return Launch(gather_conv, (programs,), args, tile.options)


def _sizes(
    problem: Problem, tile: GatherTile, has_bias: bool, large: bool
) -> tuple[int, dict[str, Any]]:
    """Return (programs, every argument that is no tensor)."""
    stride, padding, dilation = problem.geometry
    pixels = problem.batch * problem.out_size[0] * problem.out_size[1]
    tiles, groups = -(-pixels // tile.pixels), problem.groups[0]
    k, c, r, s = problem.shape
    block_k, block_c = problem.block
    return tiles * groups, {
        "records_at": problem.at.records, "places_at": 0, "starts_at": problem.at.starts,
        "pixels": pixels, "tiles": tiles, "slots": groups, "groups": groups,
        **pixel_args(problem.out_size),
        "in_h": problem.size[0], "in_w": problem.size[1], "in_units": c // unit(c),
        "out_h": problem.out_size[0], "out_w": problem.out_size[1], "out_units": k // unit(k),
        "step_h": stride[0], "step_w": stride[1], "phases_h": 1, "phases_w": 1,
        "pad_h": padding[0], "pad_w": padding[1], "dil_h": dilation[0], "dil_w": dilation[1],
        "BLOCK_OUT": block_k, "BLOCK_IN": block_c, "PIXELS": tile.pixels, "REDUCE": tile.reduce,
        "R": r, "S": s, "DGRAD": False, "OUT_ON_M": tile.out_on_m,
        "IN_UNIT": unit(c), "OUT_UNIT": unit(k),
        "MASK_IN": c % block_c != 0, "MASK_OUT": k % block_k != 0, "HAS_BIAS": has_bias,
        "GROUPS_INSIDE": large, "WIDE": problem.wide, "HOW": problem.precision,
    }  # fmt: skip
