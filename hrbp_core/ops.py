"""``block_sparse_conv2d`` and the operators under it, as torch sees them.

``hrbp::fprop``, ``hrbp::dgrad`` and ``hrbp::wgrad`` take plain tensors and ints and return
channels_last. The three are one trilinear form <dy, conv(x, values)>, so each one's gradients
are the other two, and double backward works. Registered through ``torch.library.Library``,
whose calls cost 3.6 us where ``custom_op`` costs 9.6 us.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hrbp_core.kernels import channels, cpu, gpu
from hrbp_core.launch_tables import Geometry, launch_tables
from hrbp_core.pattern import BlockPattern
from hrbp_core.shapes import FilterShape, Pair, output_extent, pair

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
Ints = int | Sequence[int]

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


def _fprop(
    x: Tensor, values: Tensor, bias: Tensor | None, entries: Tensor, tables: Tensor,
    shape: Sequence[int], block: Sequence[int], *geometry: Sequence[int],
) -> Tensor:  # fmt: skip
    if _has_kernels(x):
        return gpu.fprop(x, values, bias, tables, shape, block, _geometry(*geometry))
    y = cpu.fprop(x, values, cpu.plan_for(entries, shape, block), _geometry(*geometry))
    return y if bias is None else y.add_(bias.view(1, -1, 1, 1))


def _dgrad(
    dy: Tensor, values: Tensor, entries: Tensor, tables: Tensor, input_size: Sequence[int],
    shape: Sequence[int], block: Sequence[int], *geometry: Sequence[int],
) -> Tensor:  # fmt: skip
    if _has_kernels(dy):
        return gpu.dgrad(dy, values, tables, input_size, shape, block, _geometry(*geometry))
    plan = cpu.plan_for(entries, shape, block)
    return cpu.dgrad(dy, values, plan, input_size, _geometry(*geometry))


def _wgrad(
    dy: Tensor, x: Tensor, entries: Tensor, tables: Tensor,
    shape: Sequence[int], block: Sequence[int], *geometry: Sequence[int],
) -> Tensor:  # fmt: skip
    if _has_kernels(x):
        return gpu.wgrad(dy, x, tables, len(entries), shape, block, _geometry(*geometry))
    return cpu.wgrad(dy, x, cpu.plan_for(entries, shape, block), _geometry(*geometry))


def _has_kernels(x: Tensor) -> bool:
    """CUDA tensors go to Triton; float64, where gradcheck runs, to torch's own convolutions."""
    return x.is_cuda and x.dtype != torch.float64


# One implementation a pass: it looks at the tensor itself, which costs less than a second key.
_LIBRARY.impl("permute_channels", channels.permute, "CompositeExplicitAutograd")
_LIBRARY.impl("fprop", _fprop, "CompositeExplicitAutograd")
_LIBRARY.impl("dgrad", _dgrad, "CompositeExplicitAutograd")
_LIBRARY.impl("wgrad", _wgrad, "CompositeExplicitAutograd")


def _output(like: Tensor, n: int, channels: int, h: int, w: int) -> Tensor:
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
    return _output(x, x.shape[0], shape[0], p, q)


@torch.library.register_fake("hrbp::dgrad", lib=_LIBRARY)
def _dgrad_fake(
    dy: Tensor, values: Tensor, entries: Tensor, tables: Tensor, input_size: Sequence[int],
    shape: Sequence[int], *rest: Sequence[int],
) -> Tensor:  # fmt: skip
    return _output(dy, dy.shape[0], shape[1], input_size[0], input_size[1])


@torch.library.register_fake("hrbp::wgrad", lib=_LIBRARY)
def _wgrad_fake(
    dy: Tensor, x: Tensor, entries: Tensor, tables: Tensor,
    shape: Sequence[int], block: Sequence[int], *rest: Sequence[int],
) -> Tensor:  # fmt: skip
    return x.new_empty(entries.shape[0] * block[0], block[1])


@torch.library.register_fake("hrbp::permute_channels", lib=_LIBRARY)
def _permute_fake(x: Tensor, order: Tensor, place: Tensor) -> Tensor:
    return _output(x, *x.shape)


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


def _fprop_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, values, *index = ctx.saved_tensors
    grad = grad.contiguous(memory_format=cpu.CL)  # once for both
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
    grad = grad.contiguous(memory_format=cpu.CL)
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


class IndexTensors(NamedTuple):
    """What the operators need of a pattern, as tensors that a module can keep as buffers.

    Attributes:
        entries: int32 [E, 3].
        tables: int64, the same index as the GPU kernels read it; see ``launch_tables``.
        channel_order, channel_place: int64 [C] or None: the channel at each canonical place,
            and the place of each channel; None when nothing has to move.
        filter_place, filter_order: int64 [K] or None: likewise for filters.
    """

    entries: Tensor
    tables: Tensor
    channel_order: Tensor | None
    channel_place: Tensor | None
    filter_place: Tensor | None
    filter_order: Tensor | None


def index_tensors(pattern: BlockPattern, geometry: Geometry) -> IndexTensors:
    """Return the pattern's index tensors for one (stride, padding, dilation).

    Raises:
        ValueError: channel groups overlap.
    """
    canonical, filter_order, channel_order = pattern.canonical()
    tables = launch_tables(pattern, *geometry)
    if canonical is pattern:
        return IndexTensors(pattern.entries, tables, None, None, None, None)
    orders = (channel_order, torch.argsort(channel_order))
    places = (torch.argsort(filter_order), filter_order)
    return IndexTensors(canonical.entries, tables, *orders, *places)


def run(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    index: IndexTensors,
    shape: FilterShape,
    block: Pair,
    geometry: Geometry,
) -> Tensor:
    """Return y of a pattern given by its index tensors; see ``block_sparse_conv2d``."""
    if not x.is_meta and torch.is_autocast_enabled(x.device.type) and _autocasts(x):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, values = x.to(dtype), values.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    _check(x, values, bias, index.entries, shape, block, geometry)
    if index.channel_order is not None:
        x = torch.ops.hrbp.permute_channels(x, index.channel_order, index.channel_place)
    elif _has_kernels(x):  # here, so that what is saved for wgrad needs no second copy
        x = _channels_last(x)
    if bias is not None and index.filter_order is not None:
        bias = bias[index.filter_order]
    y: Tensor = torch.ops.hrbp.fprop(
        x, values, bias, index.entries, index.tables, shape, block, *geometry
    )
    if index.filter_place is not None:
        y = torch.ops.hrbp.permute_channels(y, index.filter_place, index.filter_order)
    return y


def _channels_last(x: Tensor) -> Tensor:
    if x.is_contiguous(memory_format=cpu.CL):
        return x
    if not torch.compiler.is_compiling():
        gpu.conversions["x"] += 1
    return x.contiguous(memory_format=cpu.CL)


def _autocasts(x: Tensor) -> bool:
    """As torch's own convolutions: float64 stays, and what is no float is refused later."""
    return x.is_floating_point() and x.dtype != torch.float64


def _check(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    entries: Tensor,
    shape: FilterShape,
    block: Pair,
    geometry: Geometry,
) -> None:
    """Raise, naming what was expected and what came, unless the operator can run."""
    k, c, r, s = shape
    if x.dim() != 4 or x.shape[1] != c:
        raise ValueError(f"expected x [N, {c}, H, W], got {list(x.shape)}")
    rows = entries.shape[0] * block[0]
    if values.dim() != 2 or values.shape[0] != rows or values.shape[1] != block[1]:
        raise ValueError(f"expected values [{rows}, {block[1]}], got {list(values.shape)}")
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != k):
        raise ValueError(f"expected bias [{k}], got {list(bias.shape)}")
    if x.dtype not in DTYPES:
        names = ", ".join(str(d).removeprefix("torch.") for d in DTYPES)
        raise TypeError(f"expected x of {names}, got {x.dtype}")
    for name, tensor in (("values", values), ("bias", bias)):
        if tensor is not None and tensor.dtype != x.dtype:
            raise TypeError(f"expected {name} of x's dtype {x.dtype}, got {tensor.dtype}")
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"expected {name} on x's device {x.device}, got {tensor.device}")
    if entries.device != x.device:
        raise ValueError(f"expected the pattern on x's device {x.device}, got {entries.device}")
    stride, padding, dilation = geometry
    extents = [
        output_extent(x.shape[2 + i], (r, s)[i], stride[i], padding[i], dilation[i]) for i in (0, 1)
    ]
    if extents[0] < 1 or extents[1] < 1:
        raise ValueError(f"expected an output with pixels, got {extents} from x {list(x.shape)}")


def block_sparse_conv2d(
    x: Tensor,
    values: Tensor,
    pattern: BlockPattern,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    dilation: Ints = 1,
) -> Tensor:
    """Return y [N, K, P, Q], channels_last, of x [N, C, H, W]; differentiable twice.

    A canonical pattern runs as it is. Any other partitioned one runs canonically between two
    permutations: x's channels before, y's channels after. Inside ``torch.compile`` use the
    module, or call once with the pattern before: what is worked out of it is cached then.

    Args:
        x: float32, bfloat16, float16 or float64, any memory layout. On a GPU, channels_last
            is taken as it is and any other layout is copied (counted in
            ``hrbp_core.kernels.gpu.conversions``); float32 is multiplied as torch's own
            convolutions do (``torch.backends.cudnn.allow_tf32``).
        values: [entries * block_k, block_c], x's dtype and device (see ``BlockPattern.pack``).
            Under autocast x, values and bias are cast to its dtype (float64 stays).
        bias: [K] or None.
        stride, padding, dilation: ints or pairs, as in ``torch.nn.Conv2d``.

    Raises:
        TypeError: a dtype that is not accepted, or dtypes that differ.
        ValueError: shapes or devices that do not match the pattern; an output of no pixels;
            overlapping channel groups; on a GPU, block sizes other than 16, 32, 64 and 128, or
            more than 64 taps (float64 takes any).
    """
    geometry = (
        pair(stride, "stride", least=1),
        pair(padding, "padding", least=0),
        pair(dilation, "dilation", least=1),
    )
    index = pattern.derived(index_tensors, geometry)
    return run(x, values, bias, index, pattern.shape, pattern.block, geometry)
