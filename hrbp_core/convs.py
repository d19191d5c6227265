"""The convolutions of a network: which can be sparse, which stay dense, what they cost."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from hrbp_core.shapes import FilterShape, block_grid

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Return every Conv2d of ``model`` by name, in the order of its modules, each once."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}


def check_names(argument: str, names: Collection[str], layers: Collection[str]) -> None:
    """Refuse names that no layer has, and tell the nearest, or some that there are.

    Raises:
        TypeError: one string in place of several.
        ValueError: an unknown name.
    """
    if isinstance(names, str):
        raise TypeError(f"expected {argument} as a collection of names, got {names!r}")
    for name in names:
        if name not in layers:
            near = difflib.get_close_matches(str(name), layers) or list(layers)[:8]
            raise ValueError(f"expected {argument} of {' or '.join(near)}, got {name!r}")


def why_dense(conv: nn.Conv2d, block: int | Sequence[int] | None = None) -> str | None:
    """Return why ``conv`` cannot be replaced by a sparse layer; None when it can.

    Args:
        block: (block_k, block_c), or one int for both; None leaves the layer's size out.
    """
    # first, and without a look at it: spectral_norm moves on when its weight is read
    if is_parametrized(conv) or "weight" not in conv._parameters:
        return "its weight is computed (parametrized) in every forward"
    if is_lazy(conv.weight):
        return "its weight is not initialised yet (a lazy layer that saw no input)"
    if has_own_forward(conv):
        return f"{type(conv).__name__} has a forward of its own"
    if hooks_of(conv):
        return "hooks are registered on it, and would be lost"
    if conv.groups != 1:
        depthwise = conv.groups == conv.in_channels
        return f"{'depthwise' if depthwise else 'grouped'} (groups={conv.groups}, expected 1)"
    if conv.weight.dtype not in DTYPES:
        return f"its weight is {conv.weight.dtype}"
    if block is not None:
        try:
            block_grid(filter_shape(conv), block)
        except ValueError as error:
            return f"smaller than a block ({str(error).removeprefix('expected ')})"
    return None


def hooks_of(module: nn.Module) -> bool:
    """Return whether forward or backward hooks are registered on the module."""
    return bool(
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def has_own_forward(module: nn.Module, known: type[nn.Module] | None = None) -> bool:
    """Return whether the module computes otherwise than the class that it derives from.

    Args:
        known: the class, where it is not one of torch's.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return True
    kind = type(module)
    methods = [kind.forward, kind.__call__, kind.__getattr__]
    if isinstance(module, nn.Conv2d):
        methods.append(getattr(kind, "_conv_forward"))  # noqa: B009
    homes = ("torch.nn.", known.__module__ if known else "torch.nn.")
    own = any(not getattr(m, "__module__", "").startswith(homes) for m in methods)
    names = ("forward", "_conv_forward", "weight", "bias", "values", "running_mean", "running_var")
    put = any(vars(module).get(name) is not None for name in names)  # on this one object
    computed = any(isinstance(getattr(kind, n, None), property) for n in ("weight", "bias"))
    return own or put or computed or is_parametrized(module)


def shared_parameters(model: nn.Module) -> dict[str, str]:
    """Return {module: the other module} of all whose parameters or buffers share memory."""
    spans = []
    for name, module in model.named_modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            spans.append((*_span(tensor), name))
    found: dict[str, str] = {}
    spans.sort(key=lambda span: span[:2])
    end, owner = -1, ""
    for start, stop, name in spans:
        if start < end and name != owner:
            found |= {name: owner, owner: name}
        if stop > end:
            end, owner = stop, name
    return found


def _span(tensor: Tensor) -> tuple[int, int]:
    """Return the addresses (from, to) of a tensor; of one without memory, its own."""
    if is_lazy(tensor) or not tensor.numel() or not tensor.data_ptr():
        return id(tensor), id(tensor) + 1
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def filter_shape(conv: nn.Conv2d) -> FilterShape:
    """Return (K, C, R, S), C of one group."""
    r, s = conv.kernel_size
    return conv.out_channels, conv.in_channels // conv.groups, r, s


def weights_of(layer: nn.Conv2d | nn.Linear) -> int:
    """Return how many weights a layer has, without its bias."""
    if isinstance(layer, nn.Conv2d):
        return math.prod(filter_shape(layer))
    return layer.in_features * layer.out_features


def dense_by_default(model: nn.Module) -> dict[str, str]:
    """Return {name: reason} of the first convolution and of a convolution that classifies.

    Both are small, and sparse training keeps them (Evci et al., ICML 2020). A convolution is
    taken for the classifier when it is the last one and the model has no linear layer.
    """
    names = list(convolutions(model))
    if not names:
        return {}
    found = {names[0]: "the first convolution"}
    if not any(isinstance(m, nn.Linear) for m in model.modules()):
        found.setdefault(names[-1], "the classifier")
    return found


def output_places(model: nn.Module, example: Any) -> dict[str, int]:
    """Return the output pixels (N * P * Q, over all calls) of every convolution and linear layer.

    One forward in eval mode, without gradients; the model is left as it was.

    Args:
        example: the model's input, or a tuple of its positional arguments.
    """
    places: dict[str, int] = {}

    def counter(name: str) -> Callable[..., None]:
        def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
            axis = -1 if isinstance(module, nn.Linear) else -3  # of the channels
            places[name] = places.get(name, 0) + output.numel() // max(output.shape[axis], 1)

        return count

    with contextlib.ExitStack() as stack:
        stack.enter_context(modes_kept(model))
        stack.enter_context(torch.no_grad())
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                stack.callback(module.register_forward_hook(counter(name)).remove)
        model.eval()(*arguments(example))
    return places


def arguments(example: Any) -> tuple[Any, ...]:
    """Return the positional arguments that ``example`` stands for."""
    return tuple(example) if isinstance(example, tuple | list) else (example,)


@contextlib.contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Bring all modules back into their own modes (train or eval) at the end."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def as_evaluated(model: nn.Module) -> Iterator[None]:
    """Put all modules in eval mode, and back into their own modes at the end."""
    with modes_kept(model):
        model.eval()
        yield
