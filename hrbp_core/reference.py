"""The oracle: masked dense passes in float64, by im2col. Nothing here is fast.

It shares no code with any implementation it judges: explicit column matrices and one matrix
product a pass, no library convolution. Source of the three forms: Chetlur et al., cuDNN,
arXiv:1410.0759, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from hrbp_core.shapes import ConvShape, pair

Ints = int | Sequence[int]


def _shape(
    x_shape: Sequence[int], w_shape: Sequence[int], stride: Ints, padding: Ints, dilation: Ints
) -> ConvShape:
    n, c, h, w = x_shape
    k, wc, r, s = w_shape
    if c != wc:
        raise ValueError(f"expected x with {wc} channels, got {c}")
    geometry = (
        pair(stride, "stride", least=1),
        pair(padding, "padding", least=0),
        pair(dilation, "dilation", least=1),
    )
    return ConvShape(n, c, h, w, k, r, s, *geometry)


def _columns(image: Tensor, shape: ConvShape) -> Tensor:
    """Return im2col of one image [C, H, W] in float64: [C * R * S, P * Q].

    One image at a time: a whole batch of 224x224x64 would take 1.8 GB of columns.
    """
    kernel = (shape.R, shape.S)
    return functional.unfold(image.double(), kernel, shape.dilation, shape.padding, shape.stride)


def _weight_matrix(weight: Tensor, mask: Tensor | None) -> Tensor:
    """Return the masked weight in float64 as [K, C * R * S]."""
    weight = weight.double()
    if mask is not None:
        _check_extents(mask, "mask", weight.shape)
        weight = torch.where(mask, weight, 0.0)
    return weight.reshape(weight.shape[0], -1)


def _check_extents(tensor: Tensor, name: str, extents: Sequence[int]) -> None:
    """Refuse what broadcasting or a reshape would let pass."""
    if tuple(tensor.shape) != tuple(extents):
        raise ValueError(f"expected {name} {list(extents)}, got {list(tensor.shape)}")


def fprop(
    x: Tensor,
    weight: Tensor,
    mask: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    dilation: Ints = 1,
) -> Tensor:
    """Return y [N, K, P, Q] in float64.

    Args:
        x: [N, C, H, W]. weight: [K, C, R, S]. mask: bool like weight, True where kept.
    """
    shape = _shape(x.shape, weight.shape, stride, padding, dilation)
    matrix = _weight_matrix(weight, mask)
    y = torch.stack([matrix @ _columns(image, shape) for image in x])
    return y.view(shape.N, shape.K, shape.P, shape.Q)


def dgrad(
    dy: Tensor,
    weight: Tensor,
    x_shape: Sequence[int],
    mask: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    dilation: Ints = 1,
) -> Tensor:
    """Return dx [N, C, H, W] in float64.

    Args:
        dy: [N, K, P, Q]. weight: [K, C, R, S]. x_shape: (N, C, H, W).
    """
    shape = _shape(x_shape, weight.shape, stride, padding, dilation)
    _check_extents(dy, "dy", (shape.N, shape.K, shape.P, shape.Q))
    matrix = _weight_matrix(weight, mask).T
    kernel, size = (shape.R, shape.S), (shape.H, shape.W)
    geometry = (shape.dilation, shape.padding, shape.stride)
    images = (matrix @ image.double().reshape(shape.K, -1) for image in dy)
    return torch.stack([functional.fold(i, size, kernel, *geometry) for i in images])


def wgrad(
    dy: Tensor,
    x: Tensor,
    w_shape: Sequence[int],
    mask: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    dilation: Ints = 1,
) -> Tensor:
    """Return dweight [K, C, R, S] in float64, zero where the mask is False.

    Args:
        dy: [N, K, P, Q]. x: [N, C, H, W]. w_shape: (K, C, R, S).
    """
    shape = _shape(x.shape, w_shape, stride, padding, dilation)
    _check_extents(dy, "dy", (shape.N, shape.K, shape.P, shape.Q))
    dweight = x.new_zeros((shape.K, shape.C * shape.R * shape.S), dtype=torch.float64)
    for n in range(shape.N):
        dweight += dy[n].double().reshape(shape.K, -1) @ _columns(x[n], shape).T
    dweight = dweight.view(shape.filter_shape)
    if mask is None:
        return dweight
    _check_extents(mask, "mask", shape.filter_shape)
    return torch.where(mask, dweight, 0.0)
