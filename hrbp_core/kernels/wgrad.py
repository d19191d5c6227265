"""wgrad on a GPU: the gradient of the stored blocks from dy and x.

One program makes the gradient of one entry, or of a run of small entries of one filter group,
over one part of the pixels. Parts are written apart, in float32, and summed in order by a
second kernel: the same bits come out every time, without atomics.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hrbp_core.kernels import wgrad_rows
from hrbp_core.kernels.fastdiv import split_pixel
from hrbp_core.kernels.launch import Launch
from hrbp_core.kernels.problem import Problem, pixel_args, unit
from hrbp_core.kernels.tile_types import RowWgradTile, WgradTile
from hrbp_core.launch_tables import RUNS

SIZES = (
    "records_at", "starts_at", "tiles_at", "pixels", "chunk", "entries",
    "grid_hw", "grid_w", "hw_mult", "hw_shift", "w_mult", "w_shift",
    "in_h", "in_w", "in_units", "out_units", "step_h", "step_w",
)  # fmt: skip
SUM_BLOCK = 1024
SUM_UNIT = 256  # the smallest block: 16 x 16


@triton.jit
def entry_columns(
    tables, records_at, entry, last, column, BLOCK_C: tl.constexpr, RUN: tl.constexpr
):
    """Return (row shift, column shift, channel, in the list) of each column of the tile."""
    if RUN == 1:
        record = tl.load(tables + records_at + entry)
        live = entry < last
        channel = (record >> 40).to(tl.int32) * BLOCK_C + column
    else:
        at = entry + column // BLOCK_C
        live = at < last
        record = tl.max_constancy(tl.load(tables + records_at + at), [BLOCK_C])
        live = tl.max_constancy(live, [BLOCK_C])
        group = tl.max_constancy((record >> 40).to(tl.int32), [BLOCK_C])
        channel = group * BLOCK_C + column % BLOCK_C
    low = record.to(tl.int32)
    return low >> 16, (low << 16) >> 16, channel, live


@triton.jit(do_not_specialize=SIZES)
def wgrad_conv(
    dy, x, out, tables, records_at, starts_at, tiles_at, pixels, chunk, entries,
    grid_hw, grid_w, hw_mult, hw_shift, w_mult, w_shift,
    in_h, in_w, in_units, out_units, step_h, step_w,
    BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr, COLUMNS: tl.constexpr, REDUCE: tl.constexpr,
    FILTERS_ON_M: tl.constexpr, X_UNIT: tl.constexpr, DY_UNIT: tl.constexpr,
    MASK_C: tl.constexpr, MASK_K: tl.constexpr, WIDE: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """One tile of dvalues over one part of the pixels; ``launches`` says what is what."""
    SUB: tl.constexpr = BLOCK_C // COLUMNS if BLOCK_C > COLUMNS else 1
    RUN: tl.constexpr = COLUMNS // BLOCK_C if COLUMNS > BLOCK_C else 1
    OFFSET: tl.constexpr = tl.int64 if WIDE else tl.int32
    ACC: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    word = tl.load(tables + tiles_at + tl.program_id(0) // SUB)
    if word >= 0:  # the list is as long as it can get; the rest of it is -1
        group, entry = (word >> 32).to(tl.int32), word.to(tl.int32)
        first = tl.load(tables + starts_at + group).to(tl.int32)
        last = tl.load(tables + starts_at + group + 1).to(tl.int32)
        channels, filters = in_units * X_UNIT, out_units * DY_UNIT
        column = tl.program_id(0) % SUB * COLUMNS + tl.arange(0, COLUMNS)
        dh, dw, channel, live = entry_columns(tables, records_at, entry, last, column, BLOCK_C, RUN)
        lane = tl.arange(0, BLOCK_K)
        filter_ = group * BLOCK_K + lane
        begin = tl.program_id(1) * chunk
        end = tl.minimum(begin + chunk, pixels)

        acc = tl.zeros((BLOCK_K, COLUMNS) if FILTERS_ON_M else (COLUMNS, BLOCK_K), ACC)
        for start in range(begin, end, REDUCE):
            pixel = start + tl.arange(0, REDUCE)
            image, i, j = split_pixel(pixel, grid_hw, grid_w, hw_mult, hw_shift, w_mult, w_shift)
            row, col = i * step_h, j * step_w
            ok = pixel < end
            if RUN == 1:
                row, col = row + dh, col + dw
                ok_x = ok & (row >= 0) & (row < in_h) & (col >= 0) & (col < in_w)
                at = ((image.to(OFFSET) * in_h + row) * in_w + col) * channels
                offset = at[:, None] + channel[None, :]
                mask = ok_x[:, None]
            else:
                h, w = row[:, None] + dh[None, :], col[:, None] + dw[None, :]
                mask = (ok[:, None] & live[None, :]) & (h >= 0) & (h < in_h) & (w >= 0) & (w < in_w)
                at = ((image.to(OFFSET) * in_h + row) * in_w + col) * channels
                offset = at[:, None] + ((dh * in_w + dw) * channels + channel)[None, :]
            if MASK_C:
                mask = mask & (channel < channels)[None, :]
            inputs = tl.load(x + offset, mask=mask, other=0.0)
            ok_dy = ok[:, None]
            if MASK_K:
                ok_dy = ok_dy & (filter_ < filters)[None, :]
            at_dy = (pixel.to(OFFSET) * filters)[:, None] + filter_[None, :]
            grads = tl.load(dy + at_dy, mask=ok_dy, other=0.0)
            if FILTERS_ON_M:
                acc = tl.dot(tl.trans(grads), inputs, acc, input_precision=HOW, out_dtype=acc.dtype)
            else:
                acc = tl.dot(tl.trans(inputs), grads, acc, input_precision=HOW, out_dtype=acc.dtype)

        if not FILTERS_ON_M:
            acc = tl.trans(acc)
        pitch = (last - first) * BLOCK_C
        within = (entry - first) * BLOCK_C + column
        place = first * (BLOCK_K * BLOCK_C) + lane[:, None] * pitch + within[None, :]
        # a product that shows its divisibility: without it every store is of one number
        base = out + tl.program_id(1).to(tl.int64) * entries * (BLOCK_K * BLOCK_C)
        keep = (within < pitch)[None, :] & (lane >= 0)[:, None]
        tl.store(base + place, acc.to(out.dtype.element_ty), mask=keep)


@triton.jit(do_not_specialize=("units", "parts"))
def sum_parts(parts_at, out, units, parts, UNIT: tl.constexpr, BLOCK: tl.constexpr):
    """out[i] = parts_at[0, i] + parts_at[1, i] + ..., in this order."""
    count = units * UNIT
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    total = tl.zeros((BLOCK,), parts_at.dtype.element_ty)  # float32, or float64
    parts_at += at
    for _ in range(parts):
        total += tl.load(parts_at, mask=mask, other=0.0)
        parts_at += count
    tl.store(out + at, total.to(out.dtype.element_ty), mask=mask)


def launches(
    dy: Tensor,
    x: Tensor,
    tables: Tensor,
    out: Tensor,
    parts: Tensor | None,
    problem: Problem,
    tile: WgradTile | RowWgradTile,
) -> list[Launch]:
    """Return the launches that write ``out`` = dvalues, every element of it.

    Args:
        dy [N, K, P, Q], x [N, C, H, W]: dense channels_last memory, one dtype.
        tables: of ``launch_tables`` for this pattern and geometry.
        out: [entries * block_k, block_c], x's dtype or float32.
        parts: float32 [splits, entries * block_k, block_c], or None for one part.
    """
    splits = 1 if parts is None else len(parts)
    written = out if parts is None else parts
    if isinstance(tile, RowWgradTile):
        found = [wgrad_rows.launch(dy, x, tables, written, splits, problem, tile)]
    else:
        key = "wgrad", tile, splits
        if key not in problem.kept:
            problem.kept[key] = _sizes(problem, tile, splits)
        grid, sizes = problem.kept[key]
        tensors = {"dy": dy, "x": x, "out": written, "tables": tables}
        found = [Launch(wgrad_conv, grid, {**tensors, **sizes}, tile.options)]
    if parts is not None:
        units = {"units": out.numel() // SUM_UNIT, "UNIT": SUM_UNIT, "parts": splits}
        summed = {"parts_at": parts, "out": out, **units, "BLOCK": SUM_BLOCK}
        found.append(Launch(sum_parts, (-(-out.numel() // SUM_BLOCK),), summed, {"num_warps": 4}))
    return found


def _sizes(
    problem: Problem, tile: WgradTile, splits: int
) -> tuple[tuple[int, int], dict[str, Any]]:
    """Return (programs, every argument that is no tensor)."""
    stride = problem.geometry[0]
    k, c, _, _ = problem.shape
    block_k, block_c = problem.block
    pixels = problem.batch * problem.out_size[0] * problem.out_size[1]
    chunk = -(-pixels // (splits * tile.reduce)) * tile.reduce
    start, length = problem.at.tiles[RUNS.index(max(1, tile.columns // block_c))]
    return (length * max(1, block_c // tile.columns), splits), {
        "records_at": problem.at.records, "starts_at": problem.at.starts, "tiles_at": start,
        "pixels": pixels, "chunk": chunk, "entries": problem.entries,
        **pixel_args(problem.out_size),
        "in_h": problem.size[0], "in_w": problem.size[1], "in_units": c // unit(c),
        "out_units": k // unit(k), "step_h": stride[0], "step_w": stride[1],
        "BLOCK_K": block_k, "BLOCK_C": block_c, "COLUMNS": tile.columns, "REDUCE": tile.reduce,
        "FILTERS_ON_M": tile.filters_on_m, "X_UNIT": unit(c), "DY_UNIT": unit(k),
        "MASK_C": c % block_c != 0, "MASK_K": k % block_k != 0,
        "WIDE": problem.wide, "HOW": problem.precision,
    }  # fmt: skip


def new_parts(out: Tensor, splits: int) -> Tensor | None:
    """Return memory for the parts, or None when there is one."""
    if splits == 1:
        return None
    dtype = torch.float64 if out.dtype == torch.float64 else torch.float32
    return torch.empty((splits, *out.shape), dtype=dtype, device=out.device)
