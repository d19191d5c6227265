"""What each operation of a traced graph does to the channels: which ones let an order through."""

from __future__ import annotations

import operator
import re
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

from hrbp_core.convs import has_own_forward, hooks_of

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
SAME_RANK = _named(("permute", "transpose", "softmax", "log_softmax", "layer_norm", "roll", "flip"))
SAME_RANK |= {"permute", "transpose", "softmax", "log_softmax", "roll", "flip", "repeat"}
SAME_RANK |= CONCATENATE
_DROPPING = ("std", "var", "max", "min", "median", "mode", "prod", "norm", "logsumexp", "unbind")
MAY_DROP = SQUEEZE | REDUCE | FLATTEN | _named(_DROPPING) | set(_DROPPING)
TAKES_ONE = INDEX | {torch.select, "select"}
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


def takes_rank(name: str, rank: int) -> bool:
    """Return whether what is called so reads the first dimension of ``rank`` as the batch.

    A module or function for 2-d images takes three dimensions for one image without a batch.
    """
    sized = re.search(r"([123])d$", name)
    return sized is None or rank == int(sized[1]) + 2


def changes_pixels(name: str) -> bool:
    """Return whether a pointwise operation may make one pixel several."""
    return any(part in name for part in ("pool", "pad", "interpolate", "upsample"))


def pooled_to_one(size: Any) -> bool:
    """Return whether an adaptive pool of this output size leaves one pixel."""
    return size in (1, (1, 1), [1, 1])


def known_rank(node: fx.Node, rank: int | None) -> int | None:
    """Return the rank of what an operation of unknown effect makes of a tensor, if that is sure."""
    sizes = node.args[1:]
    if node.target in RESHAPE:
        if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
            sizes = tuple(sizes[0])
        return len(sizes) or None
    if node.target in MAY_DROP:
        return -1  # the batch may be gone: no convolution takes that for granted
    if rank is not None and node.target in TAKES_ONE and isinstance(sizes[-1], int):
        return rank - 1
    return rank if node.target in SAME_RANK or node.target is getattr else None


def is_norm_with_activation(module: nn.Module) -> bool:
    """Return whether the module is a known norm whose own forward adds an activation."""
    kind = type(module)
    if (kind.__module__, kind.__name__) not in NORMS_AND_ACTIVATIONS or "forward" in vars(module):
        return False
    return all(_is_activation(child) and not hooks_of(child) for child in module.children())


def _is_activation(module: nn.Module) -> bool:
    if type(module).__module__ == OTHERS_ACTIVATIONS:
        return "forward" not in vars(module)
    return isinstance(module, POINTWISE_MODULES) and not has_own_forward(module)


def makes_tensor(node: fx.Node) -> bool:
    """Return whether a call on numbers alone returns a tensor, such as ``torch.zeros``."""
    module = getattr(node.target, "__module__", None) or ""
    return node.op == "call_function" and module not in ("_operator", "builtins", "math")


def asks_about(node: fx.Node) -> bool:
    """Return whether the call on a tensor returns a size, a dtype or the like."""
    return node.target in ABOUT or (node.target is getattr and node.args[1] in ATTRIBUTES)


def flattens(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Return whether ``flatten`` with these arguments keeps the batch alone."""
    given = dict(zip(("start_dim", "end_dim"), args, strict=False)) | kwargs
    return given.get("start_dim", 0) == 1 and given.get("end_dim", -1) == -1


def batch_of_reshape(sizes: Sequence[Any]) -> fx.Node | None:
    """Return the tensor whose batch ``view(its batch, -1)`` keeps; None for other sizes."""
    if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
        sizes = sizes[0]
    if len(sizes) != 2 or sizes[1] != -1 or not isinstance(sizes[0], fx.Node):
        return None
    size = sizes[0]  # size(0), size()[0], shape[0]
    if size.target == "size" and tuple(size.args[1:]) == (0,):
        return size.args[0] if isinstance(size.args[0], fx.Node) else None
    asked = size.args[0] if size.target in INDEX and size.args[1] == 0 else None
    if not isinstance(asked, fx.Node):
        return None
    shape = asked.target is getattr and asked.args[1] == "shape"
    if not shape and (asked.target != "size" or len(asked.args) > 1):
        return None
    return asked.args[0] if isinstance(asked.args[0], fx.Node) else None


def pixel_dims(dims: Any, rank: int) -> set[int] | None:
    """Return the dimensions as places from 2 on; None when others are among them."""
    if isinstance(dims, int):
        dims = (dims,)
    if not isinstance(dims, tuple | list) or not all(isinstance(d, int) for d in dims):
        return None
    places = {d % rank for d in dims}
    return None if places & {0, 1} or not places else places


def keeps_channels(index: Any, rank: int) -> bool:
    """Return whether ``x[index]`` takes all images and channels, and only cuts the pixels."""
    if not isinstance(index, tuple) or len(index) > rank:
        return False
    whole = slice(None, None, None)
    if index[:1] == (Ellipsis,):
        index = (whole,) * (rank - len(index) + 1) + index[1:]
    return index[:2] == (whole, whole) and all(isinstance(i, slice) for i in index[2:])
