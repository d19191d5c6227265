"""wgrad of whole blocks: the gradients of three taps above each other from the same rows of pixels.

For kernels of three rows, stride and dilation 1. A program makes three entries: one block (or a
run of small ones), one column of taps, all three rows. A step loads ``ROWS`` rows of dy and
``ROWS`` + 2 rows of x, and does 3 * ``ROWS`` products with them: 65 multiply-adds a byte with two
rows and blocks of 64, against 32 of a tile of ``wgrad``.

On an H200 (bfloat16, 512 channels of 28 x 28, a quarter of blocks of 64) 240 us against 414 us;
with blocks of 32, 334 us against 663 us.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from hrbp_core.kernels.fastdiv import divide, magic
from hrbp_core.kernels.launch import Launch
from hrbp_core.kernels.problem import Problem, unit
from hrbp_core.kernels.tile_types import RowWgradTile
from hrbp_core.launch_tables import RUNS

SIZES = (
    "records_at", "starts_at", "blocks_at", "lanes", "bands", "steps", "chunk", "entries",
    "grid_w", "w_mult", "w_shift", "in_h", "in_w", "in_units", "out_h", "out_units",
    "base_h", "base_w",
)  # fmt: skip


@triton.jit
def block_channels(records, column, room, BLOCK_C: tl.constexpr, COLUMNS: tl.constexpr):
    """Return (channel, in the list) of each column; ``records`` points at the run's first block."""
    if COLUMNS == BLOCK_C:
        group = (tl.load(records) >> 40).to(tl.int32)
        channel = group * BLOCK_C + column
        live = column >= 0
    else:
        record = tl.max_constancy(tl.load(records + column // BLOCK_C), [BLOCK_C])
        group = tl.max_constancy((record >> 40).to(tl.int32), [BLOCK_C])
        channel = group * BLOCK_C + column % BLOCK_C
        live = tl.max_constancy(column // BLOCK_C < room, [BLOCK_C])
    return channel, live


@triton.jit
def multiply_pixels(grads, inputs, acc, FILTERS_ON_M: tl.constexpr, HOW: tl.constexpr):
    """Return acc + grads^T . inputs, or its transpose: a sum over pixels."""
    if FILTERS_ON_M:
        acc = tl.dot(tl.trans(grads), inputs, acc, input_precision=HOW, out_dtype=acc.dtype)
    else:
        acc = tl.dot(tl.trans(inputs), grads, acc, input_precision=HOW, out_dtype=acc.dtype)
    return acc


@triton.jit(do_not_specialize=SIZES)
def row_wgrad(
    dy, x, out, tables, records_at, starts_at, blocks_at, lanes, bands, steps, chunk, entries,
    grid_w, w_mult, w_shift, in_h, in_w, in_units, out_h, out_units, base_h, base_w,
    BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr, COLUMNS: tl.constexpr, LANES: tl.constexpr,
    ROWS: tl.constexpr, S: tl.constexpr, FILTERS_ON_M: tl.constexpr,
    X_UNIT: tl.constexpr, DY_UNIT: tl.constexpr,
    MASK_C: tl.constexpr, MASK_K: tl.constexpr, WIDE: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """Three entries over one part of the pixels; ``launch`` says what is what."""
    OFFSET: tl.constexpr = tl.int64 if WIDE else tl.int32
    ACC: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    word = tl.load(tables + blocks_at + tl.program_id(0) // S)
    if word >= 0:  # the list is as long as it can get; the rest of it is -1
        s = tl.program_id(0) % S
        group, entry = (word >> 32).to(tl.int32), word.to(tl.int32)
        first = tl.load(tables + starts_at + group).to(tl.int32)
        count = tl.load(tables + starts_at + group + 1).to(tl.int32) - first
        blocks = count // (3 * S)
        column, lane = tl.arange(0, COLUMNS), tl.arange(0, BLOCK_K)
        channels, filters = in_units * X_UNIT, out_units * DY_UNIT
        channel, live = block_channels(
            tables + records_at + entry, column, first + blocks - entry, BLOCK_C, COLUMNS
        )
        filter_ = group * BLOCK_K + lane
        begin = tl.program_id(1) * chunk

        accs = ()
        for _ in tl.static_range(3):
            accs += (tl.zeros((BLOCK_K, COLUMNS) if FILTERS_ON_M else (COLUMNS, BLOCK_K), ACC),)
        for step in range(begin, tl.minimum(begin + chunk, steps)):
            tile = step // bands
            top = (step - tile * bands) * ROWS
            pair = tile * LANES + tl.arange(0, LANES)
            image = divide(pair, w_mult, w_shift)
            col = pair - image * grid_w
            from_left = col + base_w + s
            at_dy = ((image.to(OFFSET) * out_h + top) * grid_w + col) * filters
            at_dy = dy + at_dy[:, None] + filter_[None, :]
            at_x = (image.to(OFFSET) * in_h + top + base_h) * in_w + from_left
            at_x = x + (at_x * channels)[:, None] + channel[None, :]
            inside = (pair < lanes) & (from_left >= 0) & (from_left < in_w)
            grads = ()
            for t in tl.static_range(ROWS):
                ok = ((pair < lanes) & (top + t < out_h))[:, None]
                if MASK_K:
                    ok = ok & (filter_ < filters)[None, :]
                grads += (tl.load(at_dy + t * grid_w * filters, mask=ok, other=0.0),)
            for d in tl.static_range(ROWS + 2):
                row = top + base_h + d
                mask = (inside & (row >= 0) & (row < in_h))[:, None]
                if COLUMNS > BLOCK_C:
                    mask = mask & live[None, :]
                if MASK_C:
                    mask = mask & (channel < channels)[None, :]
                inputs = tl.load(at_x + d * in_w * channels, mask=mask, other=0.0)
                kept = ()
                for r in tl.static_range(3):
                    if d - r >= 0 and d - r < ROWS:
                        acc = multiply_pixels(grads[d - r], inputs, accs[r], FILTERS_ON_M, HOW)
                        kept += (acc,)
                    else:
                        kept += (accs[r],)
                accs = kept

        # a product that shows its divisibility: without it every store is of one number
        base = out + tl.program_id(1).to(tl.int64) * entries * (BLOCK_K * BLOCK_C)
        keep = live[None, :] & (lane >= 0)[:, None]
        for r in tl.static_range(3):
            acc = accs[r] if FILTERS_ON_M else tl.trans(accs[r])
            within = (entry - first + (r * S + s) * blocks) * BLOCK_C + column
            place = first * (BLOCK_K * BLOCK_C) + lane[:, None] * (count * BLOCK_C)
            tl.store(base + place + within[None, :], acc.to(out.dtype.element_ty), mask=keep)


def launch(
    dy: Tensor, x: Tensor, tables: Tensor, out: Tensor, splits: int, problem: Problem,
    tile: RowWgradTile,
) -> Launch:  # fmt: skip
    """Return the launch that writes ``out``: dvalues, or ``splits`` parts of it.

    Args:
        dy [N, K, P, Q], x [N, C, H, W]: dense channels_last memory, one dtype.
        tables: of ``launch_tables`` for this pattern and geometry.
        problem: one that has rows.
    """
    key = "row_wgrad", tile, splits
    if key not in problem.kept:
        problem.kept[key] = _sizes(problem, tile, splits)
    grid, sizes = problem.kept[key]
    tensors = {"dy": dy, "x": x, "out": out, "tables": tables}
    return Launch(row_wgrad, grid, {**tensors, **sizes}, tile.options)


def _sizes(
    problem: Problem, tile: RowWgradTile, splits: int
) -> tuple[tuple[int, int], dict[str, Any]]:
    """Return (programs, every argument that is no tensor)."""
    _, padding, _ = problem.geometry
    k, c, _, s = problem.shape
    (in_h, in_w), (out_h, out_w) = problem.size, problem.out_size
    block_k, block_c = problem.block
    bands, lanes = -(-out_h // tile.rows), problem.batch * out_w
    steps = bands * -(-lanes // tile.reduce)
    (w_mult, w_shift), at = magic(out_w), problem.at
    start, length = at.blocks[RUNS.index(tile.columns // block_c)]
    return (length * s, splits), {
        "records_at": at.records, "starts_at": at.starts, "blocks_at": start, "lanes": lanes,
        "bands": bands, "steps": steps, "chunk": -(-steps // splits), "entries": problem.entries,
        "grid_w": out_w, "w_mult": w_mult, "w_shift": w_shift, "in_h": in_h, "in_w": in_w,
        "in_units": c // unit(c), "out_h": out_h, "out_units": k // unit(k),
        "base_h": -padding[0], "base_w": -padding[1],
        "BLOCK_K": block_k, "BLOCK_C": block_c, "COLUMNS": tile.columns, "LANES": tile.reduce,
        "ROWS": tile.rows, "S": s, "FILTERS_ON_M": tile.filters_on_m,
        "X_UNIT": unit(c), "DY_UNIT": unit(k), "MASK_C": c % block_c != 0,
        "MASK_K": k % block_k != 0, "WIDE": problem.wide, "HOW": problem.precision,
    }  # fmt: skip
