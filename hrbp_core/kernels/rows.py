"""fprop and dgrad of whole blocks: each row of pixels is loaded once for the three taps above it.

For kernels of three rows, stride and dilation 1. A program makes ``ROWS`` output rows of
``LANES`` (image, column) pairs; a step takes one channel group and one column of taps, loads
``ROWS`` + 2 rows of pixels and three weights, and does 3 * ``ROWS`` products with them. A tile of
``gather`` reads both operands of each product from L2, which is its limit: with groups of 64 it
reaches 52 multiply-adds a byte, four rows reach 87.

On an H200 (bfloat16, 512 channels of 28 x 28, a quarter of blocks of 64) 225 us against 296 us;
with blocks of 32, 342 us against 490 us.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from hrbp_core.kernels.fastdiv import divide, magic
from hrbp_core.kernels.gather import multiply
from hrbp_core.kernels.launch import Launch
from hrbp_core.kernels.problem import Problem, unit
from hrbp_core.kernels.tile_types import RowTile
from hrbp_core.shapes import Pass

TAP_ROWS = 3
SIZES = (
    "records_at", "places_at", "starts_at", "lanes", "tiles", "bands", "groups",
    "grid_w", "w_mult", "w_shift", "in_h", "in_w", "in_units", "out_h", "out_w", "out_units",
    "base_h", "base_w",
)  # fmt: skip


@triton.jit
def tap_weights(
    weights_at, place, group_entries, at, column, sub, k, lane, block_out,
    BLOCK_IN: tl.constexpr, S: tl.constexpr, DGRAD: tl.constexpr,
):  # fmt: skip
    """Return the three weights of a column of taps, for input rows 0, 1 and 2 of an output row.

    fprop: [BLOCK_OUT, REDUCE] each, the group's entries lie side by side: tap by tap, block by
    block. dgrad: [REDUCE, BLOCK_OUT], the rows of a twin entry; its taps are mirrored.
    """
    blocks = group_entries // (3 * S)  # of the group that the weights belong to
    if DGRAD:
        pitch = (place >> 32).to(tl.int32)
        between = pitch // (3 * S) * block_out
        rows = place.to(tl.int32) + (sub + k) * pitch
        first = weights_at + (rows * block_out)[:, None] + lane[None, :]
        first += (S - 1 - column) * between
        w0 = tl.load(first + 2 * S * between)
        w1 = tl.load(first + S * between)
        w2 = tl.load(first)
    else:
        first = weights_at + (column * blocks + at) * BLOCK_IN + sub
        w0 = tl.load(first)
        w1 = tl.load(first + S * blocks * BLOCK_IN)
        w2 = tl.load(first + 2 * S * blocks * BLOCK_IN)
    return w0, w1, w2


@triton.jit(do_not_specialize=SIZES)
def row_conv(
    source, values, out, bias, tables,
    records_at, places_at, starts_at, lanes, tiles, bands, groups,
    grid_w, w_mult, w_shift, in_h, in_w, in_units, out_h, out_w, out_units, base_h, base_w,
    BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr, LANES: tl.constexpr, REDUCE: tl.constexpr,
    ROWS: tl.constexpr, S: tl.constexpr, DGRAD: tl.constexpr, OUT_ON_M: tl.constexpr,
    IN_UNIT: tl.constexpr, OUT_UNIT: tl.constexpr, MASK_IN: tl.constexpr, MASK_OUT: tl.constexpr,
    HAS_BIAS: tl.constexpr, GROUPS_INSIDE: tl.constexpr, WIDE: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """One band of rows; ``launch`` says what each argument is."""
    SUB: tl.constexpr = BLOCK_IN // REDUCE
    OFFSET: tl.constexpr = tl.int64 if WIDE else tl.int32
    ACC: tl.constexpr = tl.float64 if source.dtype.element_ty == tl.float64 else tl.float32
    pid, spots = tl.program_id(0), tiles * bands
    group, spot = (pid % groups, pid // groups) if GROUPS_INSIDE else (pid // spots, pid % spots)
    band, tile = spot % bands, spot // bands  # neighbours share rows in L2
    channels, out_channels = in_units * IN_UNIT, out_units * OUT_UNIT
    first = tl.load(tables + starts_at + group).to(tl.int32)
    count = tl.load(tables + starts_at + group + 1).to(tl.int32) - first

    pair = tile * LANES + tl.arange(0, LANES)
    image = divide(pair, w_mult, w_shift)
    column = pair - image * grid_w
    k, lane = tl.arange(0, REDUCE), tl.arange(0, BLOCK_OUT)
    top = band * ROWS + base_h
    left = column + base_w
    corner = (image.to(OFFSET) * in_h + top) * in_w + left
    inputs_at = source + (corner * channels)[:, None] + k[None, :]
    weights_at = values
    if not DGRAD:
        weights_at += first * (BLOCK_OUT * BLOCK_IN) + k[None, :]
        weights_at += lane[:, None] * (count * BLOCK_IN)
    records, places = tables + records_at + first, tables + places_at + first
    record, place = tl.load(records), tl.load(places)

    accs = ()
    for _ in tl.static_range(ROWS):
        accs += (tl.zeros((BLOCK_OUT, LANES) if OUT_ON_M else (LANES, BLOCK_OUT), ACC),)
    for step in range(count // (3 * S) * (S * SUB)):
        at = step // (S * SUB)
        s = step // SUB % S
        sub = step % SUB * REDUCE
        block = (record >> 40).to(tl.int32) * BLOCK_IN + sub
        inside = (pair < lanes) & (left + s >= 0) & (left + s < in_w)
        weights = tap_weights(
            weights_at, place, count, at, s, sub, k, lane, BLOCK_OUT, BLOCK_IN, S, DGRAD
        )
        # loading the index in the step that uses it would cost a stage of the pipeline
        ahead = (step + 1) // (S * SUB)
        record, place = tl.load(records + ahead), tl.load(places + ahead)
        here = inputs_at + (s * channels + block)
        for d in tl.static_range(ROWS + 2):
            mask = (inside & (top + d >= 0) & (top + d < in_h))[:, None]
            if MASK_IN:
                mask = mask & (block + k < channels)[None, :]
            inputs = tl.load(here + d * in_w * channels, mask=mask, other=0.0)
            kept = ()
            for t in tl.static_range(ROWS):
                if d - t >= 0 and d - t <= 2:
                    acc = multiply(weights[d - t], inputs, accs[t], OUT_ON_M, DGRAD, HOW)
                    kept += (acc,)
                else:
                    kept += (accs[t],)
            accs = kept

    channel = group * BLOCK_OUT + lane
    shown = (pair < lanes)[:, None] & (channel < (out_channels if MASK_OUT else 2**30))[None, :]
    for t in tl.static_range(ROWS):
        row = band * ROWS + t
        acc = tl.trans(accs[t]) if OUT_ON_M else accs[t]
        if HAS_BIAS:
            acc += tl.load(bias + channel, mask=channel < out_channels, other=0.0)[None, :].to(ACC)
        spot = ((image.to(OFFSET) * out_h + row) * out_w + column) * out_channels
        place_out = out + spot[:, None] + channel[None, :]
        tl.store(place_out, acc.to(out.dtype.element_ty), mask=shown & (row < out_h))


def launch(
    conv_pass: Pass, source: Tensor, values: Tensor, tables: Tensor, out: Tensor,
    bias: Tensor | None, problem: Problem, tile: RowTile, large: bool,
) -> Launch:  # fmt: skip
    """Return the launch that writes ``out``, every element of it.

    Args:
        source, out: x and y (fprop), or dy and dx (dgrad); dense channels_last memory, one dtype.
        values: [entries * block_k, block_c].
        tables: of ``launch_tables`` for this pattern and geometry.
        bias: [K] or None; None for dgrad.
        problem: one that has rows.
        large: ``source`` is larger than L2: groups then come fastest.
    """
    key = "rows", conv_pass, tile, bias is not None, large
    if key not in problem.kept:
        problem.kept[key] = _sizes(conv_pass, problem, tile, bias is not None, large)
    programs, sizes = problem.kept[key]
    tensors = {"source": source, "values": values, "out": out, "tables": tables}
    args = {**tensors, "bias": values if bias is None else bias, **sizes}
    return Launch(row_conv, (programs,), args, tile.options)


def _sizes(
    conv_pass: Pass, problem: Problem, tile: RowTile, has_bias: bool, large: bool
) -> tuple[int, dict[str, Any]]:
    """Return (programs, every argument that is no tensor)."""
    dgrad, (_, padding, _) = conv_pass is Pass.DGRAD, problem.geometry
    k, c, r, s = problem.shape
    (out_channels, channels) = (c, k) if dgrad else (k, c)
    block_out, block_in = problem.block[::-1] if dgrad else problem.block
    sizes = (problem.out_size, problem.size) if dgrad else (problem.size, problem.out_size)
    (in_h, in_w), (out_h, out_w) = sizes
    # the first row and column that an output needs: dgrad walks the mirrored kernel
    base = [p - (extent - 1) if dgrad else -p for p, extent in zip(padding, (r, s), strict=True)]
    lanes = problem.batch * out_w
    tiles, bands, groups = -(-lanes // tile.lanes), -(-out_h // tile.rows), problem.groups[dgrad]
    (w_mult, w_shift), at = magic(out_w), problem.at
    return tiles * bands * groups, {
        "records_at": at.twins if dgrad else at.records, "places_at": at.places,
        "starts_at": at.heads if dgrad else at.starts,
        "lanes": lanes, "tiles": tiles, "bands": bands, "groups": groups,
        "grid_w": out_w, "w_mult": w_mult, "w_shift": w_shift,
        "in_h": in_h, "in_w": in_w, "in_units": channels // unit(channels),
        "out_h": out_h, "out_w": out_w, "out_units": out_channels // unit(out_channels),
        "base_h": base[0], "base_w": base[1],
        "BLOCK_OUT": block_out, "BLOCK_IN": block_in, "LANES": tile.lanes,
        "REDUCE": tile.reduce, "ROWS": tile.rows, "S": s, "DGRAD": dgrad,
        "OUT_ON_M": tile.out_on_m, "IN_UNIT": unit(channels), "OUT_UNIT": unit(out_channels),
        "MASK_IN": channels % block_in != 0, "MASK_OUT": out_channels % block_out != 0,
        "HAS_BIAS": has_bias, "GROUPS_INSIDE": large, "WIDE": problem.wide,
        "HOW": problem.precision,
    }  # fmt: skip
