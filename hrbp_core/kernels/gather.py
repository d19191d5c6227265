"""The Triton kernel under fprop and dgrad: an implicit GEMM that walks one group's entries.

fprop's output tile is filters x pixels and its loop runs over the filter group's entries;
dgrad's is channels x pixels and its loop runs over the channel group's twin entries. They read
other lists and the weights the other way round, and are otherwise the same.

- Pixels outside the image cost one bit test: the prologue works out, for each pixel of the
  tile, the set of taps that stay inside.
- The index is loaded one step before its use; loading it in the step that uses it costs
  pipeline stages.
- Blocks of 16 and 32 are glued, 2 or 4 entries a step, so that a step is deep enough for the
  matrix unit.
"""

from __future__ import annotations

import triton
import triton.language as tl

from hrbp_core.kernels.fastdiv import split_pixel

# Sizes are never specialized on: one binary a tile and kernel size serves every shape.
SIZES = (
    "records_at", "places_at", "starts_at", "pixels", "tiles", "slots", "groups",
    "grid_hw", "grid_w", "hw_mult", "hw_shift", "w_mult", "w_shift",
    "in_h", "in_w", "in_units", "out_h", "out_w", "out_units",
    "step_h", "step_w", "phases_h", "phases_w", "pad_h", "pad_w", "dil_h", "dil_w",
)  # fmt: skip


@triton.jit
def load_ahead(records, GLUE: tl.constexpr):
    """Return the next one to four records; the rest are the first one again, unused."""
    r0 = tl.load(records)
    r1, r2, r3 = r0, r0, r0
    if GLUE >= 2:
        r1 = tl.load(records + 1)
    if GLUE == 4:
        r2 = tl.load(records + 2)
        r3 = tl.load(records + 3)
    return r0, r1, r2, r3


@triton.jit
def spread(v0, v1, v2, v3, k, BLOCK: tl.constexpr, GLUE: tl.constexpr):
    """Return one number a column: v0 for the first BLOCK of them, then v1, ..."""
    if GLUE == 1:
        out = v0
    else:
        slot = tl.max_constancy(k // BLOCK, [BLOCK])
        out = tl.where(slot == 0, v0, v1)
        if GLUE == 4:
            out = tl.where(slot < 2, out, tl.where(slot == 2, v2, v3))
        out = tl.max_constancy(out, [BLOCK])
    return out


@triton.jit
def shift_of(record, row, channels, BLOCK: tl.constexpr):
    """Return how far the entry's input lies from the pixel's own place, in elements."""
    low = record.to(tl.int32)
    dh = low >> 16
    dw = (low << 16) >> 16
    group = (record >> 40).to(tl.int32)
    return (dh * row + dw) * channels + group * BLOCK


@triton.jit
def tap_bit(record, live, BITS: tl.constexpr):
    """Return the tap's bit, or none when the record is beyond the list."""
    tap = (record >> 32).to(tl.int32) & 0xFF
    bit = tl.full((), 1, BITS) << tap.to(BITS)
    return tl.where(live, bit, tl.zeros((), BITS))


@triton.jit
def taps_inside(
    row, column, ok, phase_h, phase_w, in_h, in_w, phases_h, phases_w, pad_h, pad_w, dil_h, dil_w,
    R: tl.constexpr, S: tl.constexpr, DGRAD: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """Return the set of taps, as bits, whose input pixel lies inside the image."""
    bits = tl.zeros_like(row).to(BITS)
    for r in tl.static_range(R):
        if DGRAD:  # exact for taps of this phase; no other tap is asked for
            h = row + (phase_h + pad_h - r * dil_h) // phases_h
        else:
            h = row + r * dil_h - pad_h
        ok_h = ok & (h >= 0) & (h < in_h)
        for s in tl.static_range(S):
            if DGRAD:
                w = column + (phase_w + pad_w - s * dil_w) // phases_w
            else:
                w = column + s * dil_w - pad_w
            bit = tl.full((), 1, BITS) << (r * S + s)
            bits |= tl.where(ok_h & (w >= 0) & (w < in_w), bit, tl.zeros((), BITS))
    return bits


@triton.jit
def step_inputs(
    inputs_at, inside, a0, a1, a2, a3, at, sub, count, in_w, channels, k,
    BLOCK_IN: tl.constexpr, GLUE: tl.constexpr, BITS: tl.constexpr, MASK_IN: tl.constexpr,
):  # fmt: skip
    """Return (addresses, mask) [PIXELS, REDUCE] of the inputs that one step multiplies."""
    shift = spread(
        shift_of(a0, in_w, channels, BLOCK_IN), shift_of(a1, in_w, channels, BLOCK_IN),
        shift_of(a2, in_w, channels, BLOCK_IN), shift_of(a3, in_w, channels, BLOCK_IN),
        k, BLOCK_IN, GLUE,
    )  # fmt: skip
    bit = spread(
        tap_bit(a0, True, BITS), tap_bit(a1, at + 1 < count, BITS),
        tap_bit(a2, at + 2 < count, BITS), tap_bit(a3, at + 3 < count, BITS),
        k, BLOCK_IN, GLUE,
    )  # fmt: skip
    if GLUE == 1:
        mask = ((inside & bit) != 0)[:, None]
        inputs_at += shift + sub
    else:
        mask = (inside[:, None] & bit[None, :]) != 0
        inputs_at += shift[None, :]
    if MASK_IN:
        group = spread(a0 >> 40, a1 >> 40, a2 >> 40, a3 >> 40, k, BLOCK_IN, GLUE).to(tl.int32)
        mask = mask & (group * BLOCK_IN + sub + k % BLOCK_IN < channels)[None, :]
    return inputs_at, mask


@triton.jit
def twin_rows(
    p0, p1, p2, p3, at, sub, count, k, BLOCK_IN: tl.constexpr, GLUE: tl.constexpr
):  # fmt: skip
    """Return (row of ``values``, inside the list) of each filter that a dgrad step reduces."""
    row = spread(
        p0.to(tl.int32), p1.to(tl.int32), p2.to(tl.int32), p3.to(tl.int32), k, BLOCK_IN, GLUE
    )
    pitch = spread(
        (p0 >> 32).to(tl.int32), (p1 >> 32).to(tl.int32), (p2 >> 32).to(tl.int32),
        (p3 >> 32).to(tl.int32), k, BLOCK_IN, GLUE,
    )  # fmt: skip
    return row + (sub + k % BLOCK_IN) * pitch, at + k // BLOCK_IN < count


@triton.jit
def multiply(weights, inputs, acc, OUT_ON_M: tl.constexpr, DGRAD: tl.constexpr, HOW: tl.constexpr):
    """Return acc + weights . inputs; DGRAD says that the weights' outputs lie along columns."""
    if OUT_ON_M:
        if DGRAD:
            weights = tl.trans(weights)
        acc = tl.dot(weights, tl.trans(inputs), acc, input_precision=HOW, out_dtype=acc.dtype)
    else:
        if not DGRAD:
            weights = tl.trans(weights)
        acc = tl.dot(inputs, weights, acc, input_precision=HOW, out_dtype=acc.dtype)
    return acc


@triton.jit(do_not_specialize=SIZES)
def gather_conv(
    source, values, out, bias, tables,
    records_at, places_at, starts_at, pixels, tiles, slots, groups,
    grid_hw, grid_w, hw_mult, hw_shift, w_mult, w_shift,
    in_h, in_w, in_units, out_h, out_w, out_units,
    step_h, step_w, phases_h, phases_w, pad_h, pad_w, dil_h, dil_w,
    BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr, PIXELS: tl.constexpr, REDUCE: tl.constexpr,
    R: tl.constexpr, S: tl.constexpr, DGRAD: tl.constexpr, OUT_ON_M: tl.constexpr,
    IN_UNIT: tl.constexpr, OUT_UNIT: tl.constexpr, MASK_IN: tl.constexpr, MASK_OUT: tl.constexpr,
    HAS_BIAS: tl.constexpr, GROUPS_INSIDE: tl.constexpr, WIDE: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """One output tile; ``fprop.launch`` and ``dgrad.launch`` say what each argument is."""
    SUB: tl.constexpr = BLOCK_IN // REDUCE if BLOCK_IN > REDUCE else 1
    GLUE: tl.constexpr = REDUCE // BLOCK_IN if REDUCE > BLOCK_IN else 1
    BITS: tl.constexpr = tl.int32 if R * S <= 32 else tl.int64
    OFFSET: tl.constexpr = tl.int64 if WIDE else tl.int32
    ACC: tl.constexpr = tl.float64 if source.dtype.element_ty == tl.float64 else tl.float32
    pid = tl.program_id(0)
    slot, tile = (pid % slots, pid // slots) if GROUPS_INSIDE else (pid // tiles, pid % tiles)
    group, phase = slot % groups, slot // groups
    phase_h, phase_w = phase // phases_w, phase % phases_w
    channels, out_channels = in_units * IN_UNIT, out_units * OUT_UNIT
    first = tl.load(tables + starts_at + slot).to(tl.int32)
    count = tl.load(tables + starts_at + slot + 1).to(tl.int32) - first

    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    image, i, j = split_pixel(pixel, grid_hw, grid_w, hw_mult, hw_shift, w_mult, w_shift)
    row, column = i * step_h, j * step_w
    inside = taps_inside(
        row, column, pixel < pixels, phase_h, phase_w, in_h, in_w, phases_h, phases_w,
        pad_h, pad_w, dil_h, dil_w, R, S, DGRAD, BITS,
    )  # fmt: skip
    k, lane = tl.arange(0, REDUCE), tl.arange(0, BLOCK_OUT)
    corner = (image.to(OFFSET) * in_h + row) * in_w + column
    inputs_at = source + (corner * channels)[:, None] + (k % BLOCK_IN)[None, :]
    weights_at = values + first * (BLOCK_OUT * BLOCK_IN) + k[None, :]
    weights_at += lane[:, None] * (count * BLOCK_IN)
    records, places = tables + records_at + first, tables + places_at + first
    a0, a1, a2, a3 = load_ahead(records, GLUE)
    p0, p1, p2, p3 = load_ahead(places, GLUE)

    acc = tl.zeros((BLOCK_OUT, PIXELS) if OUT_ON_M else (PIXELS, BLOCK_OUT), ACC)
    for step in range((count + GLUE - 1) // GLUE * SUB):
        at = step // SUB * GLUE
        sub = step % SUB * REDUCE
        ahead = (step + 1) // SUB * GLUE
        inputs_now, mask = step_inputs(
            inputs_at, inside, a0, a1, a2, a3, at, sub, count, in_w, channels, k,
            BLOCK_IN, GLUE, BITS, MASK_IN,
        )  # fmt: skip
        inputs = tl.load(inputs_now, mask=mask, other=0.0)
        if DGRAD:
            rows, listed = twin_rows(p0, p1, p2, p3, at, sub, count, k, BLOCK_IN, GLUE)
            weights_now = values + (rows * BLOCK_OUT)[:, None] + lane[None, :]
            live = listed[:, None]
        else:
            weights_now = weights_at + step * REDUCE
            live = (step * REDUCE + k < count * BLOCK_IN)[None, :]
        if GLUE == 1:
            weights = tl.load(weights_now)
        else:
            weights = tl.load(weights_now, mask=live, other=0.0)
        a0, a1, a2, a3 = load_ahead(records + ahead, GLUE)
        if DGRAD:
            p0, p1, p2, p3 = load_ahead(places + ahead, GLUE)
        acc = multiply(weights, inputs, acc, OUT_ON_M, DGRAD, HOW)

    if OUT_ON_M:
        acc = tl.trans(acc)
    channel = group * BLOCK_OUT + lane
    i, j = i * phases_h + phase_h, j * phases_w + phase_w
    ok = (pixel < pixels) & (i < out_h) & (j < out_w)
    keep = ok[:, None]
    if MASK_OUT:
        keep = keep & (channel < out_channels)[None, :]
    if HAS_BIAS:
        acc += tl.load(bias + channel, mask=channel < out_channels, other=0.0)[None, :].to(ACC)
    place = ((image.to(OFFSET) * out_h + i) * out_w + j) * out_channels
    tl.store(out + place[:, None] + channel[None, :], acc.to(out.dtype.element_ty), mask=keep)
