"""The three passes of patterns whose filter groups choose their own channels.

Such a pattern is a gather and a canonical pattern: every channel list becomes a channel group of
a *spread* input x' [N, lists * block_c, H, W] in which a channel stands once for each list that
has it. fprop and wgrad gather x'; dgrad computes dx' and adds the copies up. The batch is cut so
that x' stays below 256 MiB, and what autograd saves is x, not x'.

The sums of dgrad are deterministic: on a CPU the copies are added in their order, on a GPU one
round for each n-th copy of the channels, in which no channel stands twice, so that no two
additions meet. Both add in float32 at least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hrbp_core import operators
from hrbp_core.kernels.cpu import CL
from hrbp_core.pattern import BlockPattern
from hrbp_core.shapes import output_extent
from hrbp_core.tables import contiguous_groups

SPREAD_LIMIT_BYTES = 256 * 2**20

_LIBRARY = torch.library.Library("hrbp", "FRAGMENT")
_TAIL = (
    "Tensor entries, Tensor tables, Tensor copies, int[] rounds, int[] shape, int[] block, "
    "int[] stride, int[] padding, int[] dilation) -> Tensor"
)
_LIBRARY.define("one_sided_fprop(Tensor x, Tensor values, Tensor? bias, " + _TAIL)
_LIBRARY.define("one_sided_dgrad(Tensor dy, Tensor values, SymInt[] input_size, " + _TAIL)
_LIBRARY.define("one_sided_wgrad(Tensor dy, Tensor x, " + _TAIL)


class Spread(NamedTuple):
    """How a pattern's channels spread.

    Attributes:
        pattern: canonical, over the spread channels; its entries and values are the pattern's.
        copies: int64: the channel at each spread place (0 in padding), then the places of real
            channels by rounds, then the places of padding.
        rounds: how many places each round has; no channel stands twice in one.
    """

    pattern: BlockPattern
    copies: Tensor
    rounds: tuple[int, ...]


def spread(pattern: BlockPattern) -> Spread:
    """Return the canonical pattern of the spread input, and how to make that input."""
    k, _, r, s = pattern.shape
    lists = pattern.channels.reshape(-1).long().cpu()
    tables = (
        contiguous_groups(k, pattern.block[0], pattern.device),
        contiguous_groups(len(lists), pattern.block[1], pattern.device),
    )
    shape = (k, len(lists), r, s)
    canonical = BlockPattern(shape, pattern.block, *tables, pattern.entries)
    real = (lists >= 0).nonzero().view(-1)
    by_channel = real[torch.argsort(lists[real], stable=True)]
    counts = torch.bincount(lists[real])
    first = torch.cumsum(counts, 0) - counts
    turn = torch.arange(len(real)) - first[lists[by_channel]]
    places = by_channel[torch.argsort(turn, stable=True)]
    padding = (lists < 0).nonzero().view(-1)
    copies = torch.cat((lists.clamp(min=0), places, padding)).to(pattern.device)
    return Spread(canonical, copies, tuple(torch.bincount(turn).tolist()))


def _parts(copies: Tensor, rounds: Sequence[int], width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return (channel of each place, real places by rounds, places of padding)."""
    real = sum(rounds)
    return copies[:width], copies[width : width + real], copies[width + real :]


def _pieces(batch: int, image_bytes: int) -> Iterator[slice]:
    """Yield runs of images whose spread input stays below the limit; one at least."""
    step = max(1, SPREAD_LIMIT_BYTES // max(image_bytes, 1))
    for start in range(0, max(batch, 1), step):
        yield slice(start, start + step)


def _spread_bytes(x: Tensor, width: int) -> int:
    return width * x.shape[2] * x.shape[3] * x.element_size()


def _gather(x: Tensor, channel: Tensor, padding: Tensor) -> Tensor:
    """Return x' [N, places, H, W] of x [N, C, H, W], channels_last; zero in padding."""
    n, c, h, w = x.shape
    rows = x.contiguous(memory_format=CL).permute(0, 2, 3, 1).reshape(-1, c)
    if x.is_cuda:
        taken = rows.index_select(1, channel)
    else:  # in bfloat16 a sixth to a half of index_select's time; in float32 the same
        taken = torch.gather(rows, 1, channel.expand(len(rows), -1))
    if len(padding):
        taken.index_fill_(1, padding, 0)
    return taken.view(n, h, w, len(channel)).permute(0, 3, 1, 2)


def _add_up(
    spread_dx: Tensor, channel: Tensor, places: Tensor, rounds: Sequence[int], channels: int
) -> Tensor:
    """Return dx [N, channels, H, W]: the sums of every channel's copies."""
    n, width, h, w = spread_dx.shape
    rows = spread_dx.permute(0, 2, 3, 1).reshape(-1, width)
    exact = torch.promote_types(rows.dtype, torch.float32)
    dx = rows.new_zeros(len(rows), channels, dtype=exact)
    if len(places) == width and not rows.is_cuda:  # a CPU adds in the order of the places
        dx.index_add_(1, channel, rows.to(exact))
    else:
        for turn in places.split(list(rounds)):
            dx.index_add_(1, channel[turn], rows.index_select(1, turn).to(exact))
    return dx.to(rows.dtype).view(n, h, w, channels).permute(0, 3, 1, 2)


def _fprop(
    x: Tensor, values: Tensor, bias: Tensor | None, entries: Tensor, tables: Tensor,
    copies: Tensor, rounds: Sequence[int], shape: Sequence[int], *rest: Sequence[int],
) -> Tensor:  # fmt: skip
    channel, _, padding = _parts(copies, rounds, shape[1])
    outs = [
        operators.fprop(_gather(x[piece], channel, padding), values, bias, entries, tables,
                        shape, *rest)
        for piece in _pieces(len(x), _spread_bytes(x, shape[1]))
    ]  # fmt: skip
    return _join(outs)


def _dgrad(
    dy: Tensor, values: Tensor, input_size: Sequence[int], entries: Tensor, tables: Tensor,
    copies: Tensor, rounds: Sequence[int], shape: Sequence[int], *rest: Sequence[int],
) -> Tensor:  # fmt: skip
    channel, places, _ = _parts(copies, rounds, shape[1])
    channels, size = input_size[0], input_size[1:]
    image_bytes = shape[1] * size[0] * size[1] * dy.element_size()
    outs = []
    for piece in _pieces(len(dy), image_bytes):
        copied = operators.dgrad(dy[piece], values, entries, tables, size, shape, *rest)
        outs.append(_add_up(copied, channel, places, rounds, channels))
    return _join(outs)


def _wgrad(
    dy: Tensor, x: Tensor, entries: Tensor, tables: Tensor,
    copies: Tensor, rounds: Sequence[int], shape: Sequence[int], *rest: Sequence[int],
) -> Tensor:  # fmt: skip
    channel, _, padding = _parts(copies, rounds, shape[1])
    total: Tensor | None = None
    for piece in _pieces(len(x), _spread_bytes(x, shape[1])):
        taken = _gather(x[piece], channel, padding)
        part = operators.wgrad(dy[piece], taken, entries, tables, shape, *rest)
        if total is None:
            total = part
        else:  # several pieces: sum in float32 at least
            total = total.to(torch.promote_types(total.dtype, torch.float32)) + part
    return total.to(x.dtype)  # type: ignore[union-attr]


def _join(outs: list[Tensor]) -> Tensor:
    joined = outs[0] if len(outs) == 1 else torch.cat(outs)
    return joined.contiguous(memory_format=CL)


_LIBRARY.impl("one_sided_fprop", _fprop, "CompositeExplicitAutograd")
_LIBRARY.impl("one_sided_dgrad", _dgrad, "CompositeExplicitAutograd")
_LIBRARY.impl("one_sided_wgrad", _wgrad, "CompositeExplicitAutograd")


@torch.library.register_fake("hrbp::one_sided_fprop", lib=_LIBRARY)
def _fprop_fake(
    x: Tensor, values: Tensor, bias: Tensor | None, entries: Tensor, tables: Tensor,
    copies: Tensor, rounds: Sequence[int], shape: Sequence[int], block: Sequence[int],
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
) -> Tensor:  # fmt: skip
    p, q = (
        output_extent(x.shape[2 + i], shape[2 + i], stride[i], padding[i], dilation[i])
        for i in (0, 1)
    )
    return operators.empty_output(x, x.shape[0], shape[0], p, q)


@torch.library.register_fake("hrbp::one_sided_dgrad", lib=_LIBRARY)
def _dgrad_fake(dy: Tensor, values: Tensor, input_size: Sequence[int], *rest: Any) -> Tensor:
    return operators.empty_output(dy, dy.shape[0], *input_size)


@torch.library.register_fake("hrbp::one_sided_wgrad", lib=_LIBRARY)
def _wgrad_fake(
    dy: Tensor, x: Tensor, entries: Tensor, tables: Tensor, copies: Tensor,
    rounds: Sequence[int], shape: Sequence[int], block: Sequence[int], *rest: Any,
) -> Tensor:  # fmt: skip
    return x.new_empty(entries.shape[0] * block[0], block[1])


def _save_fprop(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, values, _, entries, tables, copies, *rest = inputs
    ctx.save_for_backward(x, values, entries, tables, copies)
    ctx.rest = rest


def _save_dgrad(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    dy, values, _, entries, tables, copies, *rest = inputs
    ctx.save_for_backward(dy, values, entries, tables, copies)
    ctx.rest = rest


def _save_wgrad(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.rest = inputs[5:]


def _fprop_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, values, *index = ctx.saved_tensors
    grad = operators.channels_last(grad, "dy")  # once for both
    dx = dvalues = dbias = None
    if ctx.needs_input_grad[0]:
        dx = torch.ops.hrbp.one_sided_dgrad(grad, values, x.shape[1:], *index, *ctx.rest)
    if ctx.needs_input_grad[1]:
        dvalues = torch.ops.hrbp.one_sided_wgrad(grad, x, *index, *ctx.rest)
    if ctx.needs_input_grad[2]:
        dbias = grad.sum((0, 2, 3))
    return dx, dvalues, dbias, *([None] * 9)


def _dgrad_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    dy, values, *index = ctx.saved_tensors
    grad = operators.channels_last(grad, "x")
    ddy = dvalues = None
    if ctx.needs_input_grad[0]:
        ddy = torch.ops.hrbp.one_sided_fprop(grad, values, None, *index, *ctx.rest)
    if ctx.needs_input_grad[1]:
        dvalues = torch.ops.hrbp.one_sided_wgrad(dy, grad, *index, *ctx.rest)
    return ddy, dvalues, *([None] * 10)


def _wgrad_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    dy, x, *index = ctx.saved_tensors
    ddy = dx = None
    if ctx.needs_input_grad[0]:
        ddy = torch.ops.hrbp.one_sided_fprop(x, grad, None, *index, *ctx.rest)
    if ctx.needs_input_grad[1]:
        dx = torch.ops.hrbp.one_sided_dgrad(dy, grad, x.shape[1:], *index, *ctx.rest)
    return ddy, dx, *([None] * 9)


for _name, _backward, _setup in (
    ("one_sided_fprop", _fprop_backward, _save_fprop),
    ("one_sided_dgrad", _dgrad_backward, _save_dgrad),
    ("one_sided_wgrad", _wgrad_backward, _save_wgrad),
):
    torch.library.register_autograd(f"hrbp::{_name}", _backward, setup_context=_setup, lib=_LIBRARY)
