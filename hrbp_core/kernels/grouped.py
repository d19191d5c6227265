"""fprop, dgrad and wgrad through oneDNN's grouped convolution.

All take canonical patterns (contiguous groups) and return channels_last. The code is plain
torch: it also runs in float64 and on any device, which is where gradcheck runs.

dgrad and wgrad have two forms. R cuts the pattern over filter groups: x is gathered, and dx is
summed back over the copies. C cuts it over channel groups (the twin): dy is gathered, dx needs
no sum. Measured (3x3, blocks of 32, fp32 and bf16, 7^2 to 28^2, two Zen 4 cores) they differ
by less than noise when the pattern is balanced, and by their padded work otherwise; so the
cheaper cut is taken, by counting, and the same bits come out in every process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from hrbp_core.kernels.buckets import Bucket, Side
from hrbp_core.kernels.plan import Plan
from hrbp_core.launch_tables import Geometry
from hrbp_core.shapes import Pair, output_extent

CL = torch.channels_last
# A gathered copy of x or dy holds one row a kept block; batches are cut so that it stays below.
GATHER_LIMIT_BYTES = 256 * 2**20


def fprop(x: Tensor, values: Tensor, plan: Plan, geometry: Geometry) -> Tensor:
    """Return y [N, K, P, Q]. x: [N, C, H, W]; values as BlockPattern packs them."""
    side, (block_k, block_c) = plan.by_filter, plan.block
    x = pad_channels(x, plan.grid[1] * block_c)
    weights = [_filter_weight(b, values, plan) for b in side.buckets]
    size = output_size(x, plan, geometry)
    chunks = []
    for piece in _pieces(len(x), _gathered_bytes(x, side, plan.grid[1])):
        part = x[piece]
        outs = (
            _convolve(b.take(part, block_c), w, geometry, b.conv_groups)
            for b, w in zip(side.buckets, weights, strict=True)
        )
        chunks.append(_assemble(outs, side, (len(part), *size), block_k, x))
    return trim(_join(chunks), plan.shape[0])


def dgrad(
    dy: Tensor, values: Tensor, plan: Plan, input_size: Sequence[int], geometry: Geometry
) -> Tensor:
    """Return dx [N, C, H, W] for input_size (H, W). dy: [N, K, P, Q]."""
    dy = pad_channels(dy, plan.grid[0] * plan.block[0])
    # On equal cost C: it rounds each element once, where R rounds every copy before it sums.
    over_channels = plan.by_channel.cost <= plan.by_filter.cost
    form = _dgrad_over_channels if over_channels else _dgrad_over_filters
    return trim(form(dy, values, plan, (input_size[0], input_size[1]), geometry), plan.shape[1])


def wgrad(dy: Tensor, x: Tensor, plan: Plan, geometry: Geometry) -> Tensor:
    """Return dvalues [entries * block_k, block_c]. dy: [N, K, P, Q]; x: [N, C, H, W]."""
    block_k, block_c = plan.block
    dy = pad_channels(dy, plan.grid[0] * block_k)
    x = pad_channels(x, plan.grid[1] * block_c)
    # On equal cost R: its gradient segments are already in the order of values.
    over_filters = plan.by_filter.cost <= plan.by_channel.cost
    side = plan.by_filter if over_filters else plan.by_channel
    gathered = (
        _gathered_bytes(x, side, plan.grid[1])
        if over_filters
        else _gathered_bytes(dy, side, plan.grid[0])
    )
    total: Tensor | None = None
    for piece in _pieces(len(x), gathered):
        part = _wgrad_piece(dy[piece], x[piece], plan, side, over_filters, geometry)
        if total is None:
            total = part
        else:  # several pieces: sum in float32 at least
            total = total.to(torch.promote_types(total.dtype, torch.float32)) + part
    if total is None:
        return x.new_zeros(plan.entry_count * block_k, block_c)
    return total.to(x.dtype)


def _wgrad_piece(
    dy: Tensor, x: Tensor, plan: Plan, side: Side, over_filters: bool, geometry: Geometry
) -> Tensor:
    block_k, block_c = plan.block
    dvalues = x.new_empty(plan.entry_count * block_k, block_c)
    for bucket in side.buckets:
        if over_filters:
            ins, outs = bucket.take(x, block_c), bucket.own(dy, block_k)
        else:
            ins, outs = bucket.own(x, block_c), bucket.take(dy, block_k)
        shape = (outs.shape[1], ins.shape[1] // bucket.conv_groups, *plan.shape[2:])
        weight = _unwritten(x, shape)  # only its extents are read
        dweight = _backward(outs, ins, weight, geometry, bucket.conv_groups, want=1)
        segments = dweight.permute(0, 2, 3, 1).reshape(-1, block_c)
        if bucket.run == (0, len(dvalues)):
            return segments
        bucket.scatter(segments, dvalues)
    return dvalues


def _dgrad_over_channels(
    dy: Tensor, values: Tensor, plan: Plan, input_size: Pair, geometry: Geometry
) -> Tensor:
    side, (block_k, block_c) = plan.by_channel, plan.block
    weights = [_channel_weight(b, values, plan) for b in side.buckets]
    chunks = []
    for piece in _pieces(len(dy), _gathered_bytes(dy, side, plan.grid[0])):
        part = dy[piece]
        outs = (
            _input_gradient(
                b.take(part, block_k), w, len(b.rows) * block_c, input_size, geometry, b.conv_groups
            )
            for b, w in zip(side.buckets, weights, strict=True)
        )
        chunks.append(_assemble(outs, side, (len(part), *input_size), block_c, dy))
    return _join(chunks)


def _dgrad_over_filters(
    dy: Tensor, values: Tensor, plan: Plan, input_size: Pair, geometry: Geometry
) -> Tensor:
    side, (block_k, block_c) = plan.by_filter, plan.block
    weights = [_filter_weight(b, values, plan) for b in side.buckets]
    chunks = []
    # the copies are x's size and those of all buckets live at once
    places = sum(len(b.take.groups) for b in side.buckets)
    image_bytes = places * block_c * input_size[0] * input_size[1] * dy.element_size()
    for piece in _pieces(len(dy), image_bytes):
        part = dy[piece]
        copies = [
            _input_gradient(
                b.own(part, block_k),
                w,
                len(b.take.groups) * block_c,
                input_size,
                geometry,
                b.conv_groups,
            )
            for b, w in zip(side.buckets, weights, strict=True)
        ]
        rows = [c.permute(0, 2, 3, 1).reshape(-1, block_c) for c in copies]
        pixels = len(part) * input_size[0] * input_size[1]
        index, offsets = side.sum_index(pixels, dy.device)
        # embedding_bag sums rows 2-9 times faster than index_add_
        dx = functional.embedding_bag(index, _join_rows(rows), offsets, mode="sum")
        shape = (len(part), *input_size, side.in_groups * block_c)
        chunks.append(dx.view(shape).permute(0, 3, 1, 2))
    return _join(chunks)


def _filter_weight(bucket: Bucket, values: Tensor, plan: Plan) -> Tensor:
    """Return [rows * block_k, width * block_c, R, S], channels_last in memory."""
    (block_k, block_c), (r, s) = plan.block, plan.shape[2:]
    shape = (len(bucket.rows) * block_k, r, s, bucket.cols.shape[1] * block_c)
    return bucket.collect(values).view(shape).permute(0, 3, 1, 2)


def _channel_weight(bucket: Bucket, values: Tensor, plan: Plan) -> Tensor:
    """Return [rows * width * block_k, block_c, R, S], or the shared form; channels_last."""
    (block_k, block_c), (r, s) = plan.block, plan.shape[2:]
    rows, width = bucket.cols.shape
    shape = (
        (width * block_k, r, s, rows * block_c)
        if bucket.shared
        else (rows * width * block_k, r, s, block_c)
    )
    return bucket.collect(values).view(shape).permute(0, 3, 1, 2)


def _convolve(x: Tensor, weight: Tensor, geometry: Geometry, groups: int) -> Tensor:
    stride, padding, dilation = geometry
    dtype = _safe_dtype(x, geometry)
    out = torch.ops.aten.convolution(
        x.to(dtype), weight.to(dtype), None, stride, padding, dilation, False, [0, 0], groups
    )
    return out.to(x.dtype)


def _safe_dtype(x: Tensor, geometry: Geometry) -> torch.dtype:
    """Return the dtype to compute in: float32 where oneDNN's bfloat16 cannot be trusted.

    With a stride wider than the image its forward can crash and its wgrad leaves memory
    unwritten (torch 2.13, x [1, 19, 4, 1], weight [25, 19, 2, 1], stride (1, 2), padding
    (1, 3), dilation (1, 3)); 3,600 calls with narrower strides were right.
    """
    wide = geometry[0][1] > x.shape[3] or geometry[0][0] > x.shape[2]
    return torch.float32 if wide and x.dtype == torch.bfloat16 else x.dtype


def _backward(
    dy: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, groups: int, *, want: int
) -> Tensor:
    """Return the gradient of x (want=0) or of weight (want=1)."""
    given = dy.dtype
    stride, padding, dilation = geometry
    wanted = [want == 0, want == 1, False]
    dtype = _safe_dtype(x, geometry)
    dy, x, weight = dy.to(dtype), x.to(dtype), weight.to(dtype)
    grads = torch.ops.aten.convolution_backward(
        dy, x, weight, None, stride, padding, dilation, False, [0, 0], groups, wanted
    )
    return grads[want].to(given)


def _input_gradient(
    dy: Tensor, weight: Tensor, channels: int, size: Pair, geometry: Geometry, groups: int
) -> Tensor:
    x = _unwritten(dy, (len(dy), channels, *size))  # only its extents are read
    return _backward(dy, x, weight, geometry, groups, want=0)


def _unwritten(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=CL)


def _assemble(
    outs: Iterator[Tensor], side: Side, size: tuple[int, int, int], width: int, like: Tensor
) -> Tensor:
    """Put each bucket's [N, rows * width, ., .] in its place; zeros where no bucket writes."""
    if len(side.buckets) == 1 and side.complete:
        return next(outs)
    n, h, w = size
    if side.tiled:
        # 0.03 ms where a strided copy takes 0.11 (bf16, 14^2, 256 filters, batch 8)
        return torch.cat([out.permute(0, 2, 3, 1) for out in outs], 3).permute(0, 3, 1, 2)
    result = _unwritten(like, (n, side.groups * width, h, w))
    if not side.complete:
        result.zero_()
    places = result.permute(0, 2, 3, 1).view(n, h, w, side.groups, width)
    for bucket, out in zip(side.buckets, outs, strict=True):
        rows = bucket.rows
        source = out.permute(0, 2, 3, 1).reshape(n, h, w, len(rows), width)
        if rows[-1] - rows[0] + 1 == len(rows):
            places[..., rows[0] : rows[-1] + 1, :] = source
        else:
            places[..., torch.from_numpy(rows).to(like.device), :] = source
    return result


def _gathered_bytes(source: Tensor, side: Side, groups: int) -> int:
    """Return the bytes of one image's largest gathered copy."""
    image = source[0].numel() * source.element_size() if len(source) else 0
    places = max((len(b.take.groups) for b in side.buckets), default=0)
    return image * places // groups


def _pieces(batch: int, image_bytes: int) -> list[slice]:
    """Cut the batch so that a piece's gathered copy stays below the limit."""
    step = max(1, GATHER_LIMIT_BYTES // max(image_bytes, 1))
    return [slice(i, min(i + step, batch)) for i in range(0, max(batch, 1), step)]


def output_size(x: Tensor, plan: Plan, geometry: Geometry) -> Pair:
    stride, padding, dilation = geometry
    p, q = (
        output_extent(x.shape[2 + i], plan.shape[2 + i], stride[i], padding[i], dilation[i])
        for i in (0, 1)
    )
    return p, q


def pad_channels(tensor: Tensor, channels: int) -> Tensor:
    """Return the tensor channels_last, with zero channels up to a whole number of groups."""
    missing = channels - tensor.shape[1]
    if missing:
        tensor = functional.pad(tensor, (0, 0, 0, 0, 0, missing))
    return tensor.contiguous(memory_format=CL)


def trim(tensor: Tensor, channels: int) -> Tensor:
    if tensor.shape[1] != channels:
        tensor = tensor[:, :channels]
    return tensor.contiguous(memory_format=CL)


def _join(chunks: list[Tensor]) -> Tensor:
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks).contiguous(memory_format=CL)


def _join_rows(rows: list[Tensor]) -> Tensor:
    return rows[0] if len(rows) == 1 else torch.cat(rows)
