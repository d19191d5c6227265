"""The operators ``hrbp::fprop``, ``dgrad``, ``wgrad`` and ``permute_channels``, as torch has them.

They take plain tensors and ints and return channels_last. The three passes are one trilinear
form <dy, conv(x, values)>, so each one's gradients are the other two, and double backward works.
Registered through ``torch.library.Library``, whose calls cost 3.6 us where ``custom_op`` costs
9.6 us.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hrbp_core.kernels import channels, cpu, gpu
from hrbp_core.launch_tables import Geometry
from hrbp_core.shapes import output_extent

_LIBRARY = torch.library.Library("hrbp", "DEF")
_TAIL = "int[] shape, int[] block, int[] stride, int[] padding, int[] dilation) -> Tensor"
_INDEX = "Tensor entries, Tensor tables, "
_LIBRARY.define("fprop(Tensor x, Tensor values, Tensor? bias, " + _INDEX + _TAIL)
_LIBRARY.define("dgrad(Tensor dy, Tensor values, " + _INDEX + "SymInt[] input_size, " + _TAIL)
_LIBRARY.define("wgrad(Tensor dy, Tensor x, " + _INDEX + _TAIL)
_LIBRARY.define("permute_channels(Tensor x, Tensor order, Tensor place) -> Tensor")


def _geometry(*sizes: Sequence[int]) -> Geometry:
    stride, padding, dilation = ((int(a), int(b)) for a, b in sizes)
    return stride, padding, dilation


def fprop(
    x: Tensor, values: Tensor, bias: Tensor | None, entries: Tensor, tables: Tensor,
    shape: Sequence[int], block: Sequence[int], *geometry: Sequence[int],
) -> Tensor:  # fmt: skip
    """Return y; the operator's own arguments, here without its dispatch."""
    if has_kernels(x):
        return gpu.fprop(x, values, bias, tables, shape, block, _geometry(*geometry))
    plan = cpu.plan_for(entries, shape, block)
    return cpu.fprop(x, values, plan, _geometry(*geometry), bias)


def dgrad(
    dy: Tensor, values: Tensor, entries: Tensor, tables: Tensor, input_size: Sequence[int],
    shape: Sequence[int], block: Sequence[int], *geometry: Sequence[int],
) -> Tensor:  # fmt: skip
    """Return dx; the operator's own arguments, here without its dispatch."""
    if has_kernels(dy):
        return gpu.dgrad(dy, values, tables, input_size, shape, block, _geometry(*geometry))
    plan = cpu.plan_for(entries, shape, block)
    return cpu.dgrad(dy, values, plan, input_size, _geometry(*geometry))


def wgrad(
    dy: Tensor, x: Tensor, entries: Tensor, tables: Tensor,
    shape: Sequence[int], block: Sequence[int], *geometry: Sequence[int],
) -> Tensor:  # fmt: skip
    """Return dvalues; the operator's own arguments, here without its dispatch."""
    if has_kernels(x):
        return gpu.wgrad(dy, x, tables, len(entries), shape, block, _geometry(*geometry))
    return cpu.wgrad(dy, x, cpu.plan_for(entries, shape, block), _geometry(*geometry))


def has_kernels(x: Tensor) -> bool:
    """CUDA tensors go to Triton; float64, where gradcheck runs, to torch's own convolutions."""
    return x.is_cuda and x.dtype != torch.float64


# One implementation a pass: it looks at the tensor itself, which costs less than a second key.
_LIBRARY.impl("permute_channels", channels.permute, "CompositeExplicitAutograd")
_LIBRARY.impl("fprop", fprop, "CompositeExplicitAutograd")
_LIBRARY.impl("dgrad", dgrad, "CompositeExplicitAutograd")
_LIBRARY.impl("wgrad", wgrad, "CompositeExplicitAutograd")


def empty_output(like: Tensor, n: int, channels: int, h: int, w: int) -> Tensor:
    """Return an unwritten channels_last tensor."""
    return torch.empty(
        (n, channels, h, w), dtype=like.dtype, device=like.device, memory_format=cpu.CL
    )


@torch.library.register_fake("hrbp::fprop", lib=_LIBRARY)
def _fprop_fake(
    x: Tensor, values: Tensor, bias: Tensor | None, entries: Tensor, tables: Tensor,
    shape: Sequence[int], block: Sequence[int],
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
) -> Tensor:  # fmt: skip
    p, q = (
        output_extent(x.shape[2 + i], shape[2 + i], stride[i], padding[i], dilation[i])
        for i in (0, 1)
    )
    return empty_output(x, x.shape[0], shape[0], p, q)


@torch.library.register_fake("hrbp::dgrad", lib=_LIBRARY)
def _dgrad_fake(
    dy: Tensor, values: Tensor, entries: Tensor, tables: Tensor, input_size: Sequence[int],
    shape: Sequence[int], *rest: Sequence[int],
) -> Tensor:  # fmt: skip
    return empty_output(dy, dy.shape[0], shape[1], input_size[0], input_size[1])


@torch.library.register_fake("hrbp::wgrad", lib=_LIBRARY)
def _wgrad_fake(
    dy: Tensor, x: Tensor, entries: Tensor, tables: Tensor,
    shape: Sequence[int], block: Sequence[int], *rest: Sequence[int],
) -> Tensor:  # fmt: skip
    return x.new_empty(entries.shape[0] * block[0], block[1])


@torch.library.register_fake("hrbp::permute_channels", lib=_LIBRARY)
def _permute_fake(x: Tensor, order: Tensor, place: Tensor) -> Tensor:
    return empty_output(x, *x.shape)


def _save_orders(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1], inputs[2])


def _permute_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    order, place = ctx.saved_tensors
    return torch.ops.hrbp.permute_channels(grad, place, order), None, None


torch.library.register_autograd(
    "hrbp::permute_channels", _permute_backward, setup_context=_save_orders, lib=_LIBRARY
)


def _save_fprop(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, values, _, entries, tables, *rest = inputs
    ctx.save_for_backward(x, values, entries, tables)
    ctx.rest = rest


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, entries, tables = inputs[:4]
    ctx.save_for_backward(*tensors, entries, tables)
    ctx.rest = inputs[4:]


def channels_last(tensor: Tensor, name: str) -> Tensor:
    """Return the tensor channels_last; a copy on its way to the kernels is counted."""
    if tensor.is_contiguous(memory_format=cpu.CL):
        return tensor
    if has_kernels(tensor) and not torch.compiler.is_compiling():
        gpu.conversions[name] += 1
    return tensor.contiguous(memory_format=cpu.CL)


def _fprop_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, values, *index = ctx.saved_tensors
    grad = channels_last(grad, "dy")  # once for both
    dx = dvalues = dbias = None
    if ctx.needs_input_grad[0]:
        dx = torch.ops.hrbp.dgrad(grad, values, *index, x.shape[2:], *ctx.rest)
    if ctx.needs_input_grad[1]:
        dvalues = torch.ops.hrbp.wgrad(grad, x, *index, *ctx.rest)
    if ctx.needs_input_grad[2]:
        dbias = grad.sum((0, 2, 3))
    return dx, dvalues, dbias, *([None] * 7)


def _dgrad_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    dy, values, *index = ctx.saved_tensors
    _, *rest = ctx.rest
    grad = channels_last(grad, "x")
    ddy = dvalues = None
    if ctx.needs_input_grad[0]:
        ddy = torch.ops.hrbp.fprop(grad, values, None, *index, *rest)
    if ctx.needs_input_grad[1]:
        dvalues = torch.ops.hrbp.wgrad(dy, grad, *index, *rest)
    return ddy, dvalues, *([None] * 8)


def _wgrad_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    dy, x, *index = ctx.saved_tensors
    ddy = dx = None
    if ctx.needs_input_grad[0]:
        ddy = torch.ops.hrbp.fprop(x, grad, None, *index, *ctx.rest)
    if ctx.needs_input_grad[1]:
        dx = torch.ops.hrbp.dgrad(dy, grad, *index, x.shape[2:], *ctx.rest)
    return ddy, dx, *([None] * 7)


for _name, _backward, _setup in (
    ("fprop", _fprop_backward, _save_fprop),
    ("dgrad", _dgrad_backward, _save),
    ("wgrad", _wgrad_backward, _save),
):
    torch.library.register_autograd(f"hrbp::{_name}", _backward, setup_context=_setup, lib=_LIBRARY)
