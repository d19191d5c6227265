"""``block_sparse_conv2d``: checks, autocast, and the way through the operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hrbp_core import one_sided, operators
from hrbp_core.launch_tables import Geometry, launch_tables
from hrbp_core.pattern import BlockPattern
from hrbp_core.shapes import FilterShape, Pair, output_extent, pair

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
Ints = int | Sequence[int]


class IndexTensors(NamedTuple):
    """What the operators need of a pattern, as tensors that a module can keep as buffers.

    Attributes:
        entries: int32 [E, 3].
        tables: int64, the same index as the GPU kernels read it; see ``launch_tables``.
        channel_order, channel_place: int64 [C] or None: the channel at each canonical place,
            and the place of each channel; None when nothing has to move.
        filter_place, filter_order: int64 [K] or None: likewise for filters.
        copies, rounds: how channels spread when filter groups choose their own (see
            ``hrbp_core.one_sided``); None and () when they do not.
    """

    entries: Tensor
    tables: Tensor
    channel_order: Tensor | None
    channel_place: Tensor | None
    filter_place: Tensor | None
    filter_order: Tensor | None
    copies: Tensor | None = None
    rounds: tuple[int, ...] = ()


def index_tensors(pattern: BlockPattern, geometry: Geometry) -> IndexTensors:
    """Return the pattern's index tensors for one (stride, padding, dilation)."""
    if not pattern.partitioned:
        return _one_sided_tensors(pattern, geometry)
    canonical, filter_order, channel_order = pattern.canonical()
    tables = launch_tables(pattern, *geometry)
    if canonical is pattern:
        return IndexTensors(pattern.entries, tables, None, None, None, None)
    orders = (channel_order, torch.argsort(channel_order))
    places = (torch.argsort(filter_order), filter_order)
    return IndexTensors(canonical.entries, tables, *orders, *places)


def _one_sided_tensors(pattern: BlockPattern, geometry: Geometry) -> IndexTensors:
    found = one_sided.spread(pattern)
    tables = launch_tables(found.pattern, *geometry)
    order = pattern.filters.reshape(-1)[: pattern.shape[0]].long()
    filters: tuple[Tensor | None, Tensor | None] = (torch.argsort(order), order)
    if torch.equal(order, torch.arange(len(order), device=order.device)):
        filters = (None, None)
    return IndexTensors(pattern.entries, tables, None, None, *filters, found.copies, found.rounds)


def spread_width(index: IndexTensors) -> int:
    """Return the channels of the spread input of a one-sided pattern, padding included."""
    if index.copies is None:
        raise ValueError("expected the index of a pattern whose filter groups choose channels")
    return index.copies.shape[0] // 2  # each place, and its turn in the rounds or padding


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
    x, values, bias = prepared(x, values, bias, index.entries, shape, block, geometry)
    if index.channel_order is not None:
        x = torch.ops.hrbp.permute_channels(x, index.channel_order, index.channel_place)
    elif operators.has_kernels(x):  # here, so that what is saved for wgrad needs no second copy
        x = operators.channels_last(x, "x")
    if bias is not None and index.filter_order is not None:
        bias = bias[index.filter_order]
    y: Tensor
    if index.copies is None:
        y = torch.ops.hrbp.fprop(
            x, values, bias, index.entries, index.tables, shape, block, *geometry
        )
    else:
        places = spread_width(index)
        y = torch.ops.hrbp.one_sided_fprop(
            x, values, bias, index.entries, index.tables, index.copies, index.rounds,
            (shape[0], places, *shape[2:]), block, *geometry,
        )  # fmt: skip
    if index.filter_place is not None:
        y = torch.ops.hrbp.permute_channels(y, index.filter_place, index.filter_order)
    return y


def prepared(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    entries: Tensor,
    shape: FilterShape,
    block: Pair,
    geometry: Geometry,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return (x, values, bias) as autocast has them.

    Raises:
        TypeError, ValueError: what ``block_sparse_conv2d`` refuses.
    """
    if not x.is_meta and torch.is_autocast_enabled(x.device.type) and _autocasts(x):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, values = x.to(dtype), values.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    _check(x, values, bias, entries, shape, block, geometry)
    return x, values, bias


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
    permutations: x's channels before, y's channels after. Where filter groups choose their own
    channels, these are gathered (``hrbp_core.one_sided``). Inside ``torch.compile`` use the
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
            on a GPU, block sizes other than 16, 32, 64 and 128, or
            more than 64 taps (float64 takes any).
    """
    geometry = (
        pair(stride, "stride", least=1),
        pair(padding, "padding", least=0),
        pair(dilation, "dilation", least=1),
    )
    index = pattern.derived(index_tensors, geometry)
    return run(x, values, bias, index, pattern.shape, pattern.block, geometry)
