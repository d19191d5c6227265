"""What each operation of a traced graph does to the channels: which ones let an order through."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.pooling import (
    _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd,
    _AvgPoolNd,
    _LPPoolNd,
    _MaxPoolNd,
)

# every channel by itself and alike, its pixels wherever they are
POINTWISE_MODULES: tuple[type[nn.Module], ...] = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU,
    nn.Mish, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink,
    nn.Softplus, nn.Softsign, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Threshold, nn.RReLU,
    _DropoutNd, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd, _LPPoolNd,
    nn.Upsample, nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d,
)  # fmt: skip
PER_CHANNEL_NORMS = (_BatchNorm, _InstanceNorm)

# a norm and an activation in one module (timm), and one draw an image (torchvision)
NORMS_AND_ACTIVATIONS = {("timm.layers.norm_act", "BatchNormAct2d")}
OTHERS_POINTWISE = {("torchvision.ops.stochastic_depth", "stochastic_depth")}
OTHERS_ACTIVATIONS = "timm.layers.activations"

_POINTWISE = (
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardtanh",
    "hardswish", "hardsigmoid", "hardshrink", "softshrink", "tanhshrink", "softplus", "softsign",
    "sigmoid", "logsigmoid", "tanh", "threshold", "rrelu", "dropout", "dropout2d", "alpha_dropout",
    "feature_dropout", "feature_alpha_dropout", "avg_pool2d", "max_pool2d", "lp_pool2d",
    "adaptive_avg_pool2d", "adaptive_max_pool2d", "interpolate", "upsample", "abs", "neg", "exp",
    "log", "sqrt", "rsqrt", "square", "pow", "clamp", "clip", "clone", "detach",
)  # fmt: skip
_POINTWISE_METHODS = ("contiguous", "to", "float", "half", "double", "bfloat16", "requires_grad_")
_BINARY = ("add", "sub", "mul", "div", "truediv", "true_divide", "maximum", "minimum")
_IN_PLACE_BINARY = ("iadd", "isub", "imul", "itruediv")
_REDUCE = ("mean", "sum", "amax", "amin")
ATTRIBUTES = ("shape", "dtype", "device", "ndim", "is_cuda", "layout", "requires_grad")


def _named(names: Iterable[str]) -> set[Any]:
    """Return the functions of these names in torch, torch.nn.functional and operator."""
    homes = (torch, functional, operator)
    spelled = [n + end for n in names for end in ("", "_")]
    return {getattr(home, n) for home in homes for n in spelled if hasattr(home, n)}


def _methods(names: Iterable[str]) -> set[Any]:
    return {n + end for n in names for end in ("", "_")}


# functions stand here themselves, methods by their names: no string is a function
POINTWISE = _named(_POINTWISE) | _methods(_POINTWISE) | set(_POINTWISE_METHODS)
BINARY = _named((*_BINARY, *_IN_PLACE_BINARY)) | _methods(_BINARY)
REDUCE = _named(_REDUCE) | set(_REDUCE)
FLATTEN = {torch.flatten, "flatten"}
RESHAPE = {torch.reshape, "reshape", "view"}
SQUEEZE = {torch.squeeze, "squeeze"}
CONCATENATE = {torch.cat, torch.concat, torch.concatenate}
PAD = {functional.pad}
INDEX = {operator.getitem}
ABOUT = {"size", "dim", "numel", "stride", "ndimension", "is_contiguous"}


def is_pointwise(target: Any) -> bool:
    """Return whether a function or method treats every channel by itself and alike."""
    home = (getattr(target, "__module__", None), getattr(target, "__name__", None))
    return target in POINTWISE or home in OTHERS_POINTWISE


def normalised_channels(module: nn.Module) -> int | None:
    """Return the channels of a module with one weight for each that mixes none, or None."""
    if isinstance(module, PER_CHANNEL_NORMS):
        return module.num_features
    if isinstance(module, nn.GroupNorm) and module.num_groups in (1, module.num_channels):
        return module.num_channels
    if isinstance(module, nn.PReLU) and module.num_parameters > 1:
        return module.num_parameters
    return None


def is_norm_with_activation(module: nn.Module) -> bool:
    """Return whether the module is a known norm whose own forward adds an activation."""
    kind = type(module)
    return (kind.__module__, kind.__name__) in NORMS_AND_ACTIVATIONS and all(
        isinstance(child, POINTWISE_MODULES) or type(child).__module__ == OTHERS_ACTIVATIONS
        for child in module.children()
    )


def makes_tensor(node: fx.Node) -> bool:
    """Return whether a call on numbers alone returns a tensor, such as ``torch.zeros``."""
    module = getattr(node.target, "__module__", None) or ""
    return node.op == "call_function" and module not in ("_operator", "builtins", "math")


def asks_about(node: fx.Node) -> bool:
    """Return whether the call on a tensor returns a size, a dtype or the like."""
    return node.target in ABOUT or (node.target is getattr and node.args[1] in ATTRIBUTES)


def flattens(sizes: Sequence[Any]) -> bool:
    """Return whether ``view`` or ``reshape`` to these sizes is ``flatten(1)``."""
    if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
        sizes = sizes[0]
    return len(sizes) == 2 and sizes[1] == -1 and _is_batch(sizes[0])


def _is_batch(size: Any) -> bool:
    """Return whether ``size`` is a traced tensor's first extent: size(0), size()[0], shape[0]."""
    if not isinstance(size, fx.Node):
        return False
    if size.target == "size":
        return tuple(size.args[1:]) == (0,)
    source = size.args[0] if size.target in INDEX and size.args[1] == 0 else None
    if not isinstance(source, fx.Node):
        return False
    return source.target == "size" or (source.target is getattr and source.args[1] == "shape")


def reduced_rank(rank: int, dims: Any, keepdim: bool) -> int | None:
    """Return the rank after reducing ``dims``; None when batch or channels are among them."""
    if isinstance(dims, int):
        dims = (dims,)
    if not isinstance(dims, tuple | list) or not all(isinstance(d, int) for d in dims):
        return None
    places = {d % rank for d in dims}
    if places & {0, 1}:
        return None
    return rank if keepdim else rank - len(places)


def keeps_channels(index: Any, rank: int) -> bool:
    """Return whether ``x[index]`` takes all images and channels, and only cuts the pixels."""
    if not isinstance(index, tuple) or len(index) > rank:
        return False
    whole = slice(None, None, None)
    if index[:1] == (Ellipsis,):
        index = (whole,) * (rank - len(index) + 1) + index[1:]
    return index[:2] == (whole, whole) and all(isinstance(i, slice) for i in index[2:])
