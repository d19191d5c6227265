"""dgrad on a GPU: dx [N, C, H, W] from dy [N, K, P, Q] and the stored blocks.

The same kernel as fprop over the twin entries, weights transposed on the fly. With a stride,
input pixels fall into phases, each with its own taps; all are in one launch.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hrbp_core.kernels.fprop import L2_BYTES
from hrbp_core.kernels.gather import gather_conv
from hrbp_core.kernels.launch import Launch
from hrbp_core.kernels.problem import Problem, pixel_args, unit
from hrbp_core.kernels.rows import launch as launch_rows
from hrbp_core.kernels.tile_types import GatherTile, RowTile
from hrbp_core.shapes import Pass


def launch(
    dy: Tensor,
    values: Tensor,
    tables: Tensor,
    out: Tensor,
    problem: Problem,
    tile: GatherTile | RowTile,
) -> Launch:
    """Return the launch that writes ``out`` = dx, every element of it.

    Args:
        dy [N, K, P, Q], out [N, C, H, W]: dense channels_last memory, one dtype.
        values: [entries * block_k, block_c].
        tables: of ``launch_tables`` for this pattern and geometry.
    """
    large = dy.numel() * dy.element_size() > L2_BYTES
    if isinstance(tile, RowTile):
        return launch_rows(Pass.DGRAD, dy, values, tables, out, None, problem, tile, large)
    key = "dgrad", tile, large
    if key not in problem.kept:
        problem.kept[key] = _sizes(problem, tile, large)
    programs, sizes = problem.kept[key]
    tensors = {"source": dy, "values": values, "out": out, "tables": tables, "bias": values}
    return Launch(gather_conv, (programs,), {**tensors, **sizes}, tile.options)


def _sizes(problem: Problem, tile: GatherTile, large: bool) -> tuple[int, dict[str, Any]]:
    """Return (programs, every argument that is no tensor)."""
    stride, padding, dilation = problem.geometry
    grid = -(-problem.size[0] // stride[0]), -(-problem.size[1] // stride[1])
    pixels = problem.batch * grid[0] * grid[1]
    tiles, groups = -(-pixels // tile.pixels), problem.groups[1]
    slots = groups * stride[0] * stride[1]
    k, c, r, s = problem.shape
    block_k, block_c = problem.block
    return tiles * slots, {
        "records_at": problem.at.twins, "places_at": problem.at.places,
        "starts_at": problem.at.heads,
        "pixels": pixels, "tiles": tiles, "slots": slots, "groups": groups,
        **pixel_args(grid),
        "in_h": problem.out_size[0], "in_w": problem.out_size[1], "in_units": k // unit(k),
        "out_h": problem.size[0], "out_w": problem.size[1], "out_units": c // unit(c),
        "step_h": 1, "step_w": 1, "phases_h": stride[0], "phases_w": stride[1],
        "pad_h": padding[0], "pad_w": padding[1], "dil_h": dilation[0], "dil_w": dilation[1],
        "BLOCK_OUT": block_c, "BLOCK_IN": block_k, "PIXELS": tile.pixels, "REDUCE": tile.reduce,
        "R": r, "S": s, "DGRAD": True, "OUT_ON_M": tile.out_on_m,
        "IN_UNIT": unit(k), "OUT_UNIT": unit(c),
        "MASK_IN": k % block_k != 0, "MASK_OUT": c % block_c != 0, "HAS_BIAS": False,
        "GROUPS_INSIDE": large, "WIDE": problem.wide, "HOW": problem.precision,
    }  # fmt: skip
