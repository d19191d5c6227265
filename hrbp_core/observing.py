"""How a model really calls its layers: one forward that leaves the model as it was."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from hrbp_core.convs import arguments, modes_kept
from hrbp_core.policy import TwoWays


@dataclass(frozen=True)
class Call:
    """What a layer's time depends on: its input, and the modes around it.

    Attributes:
        shape, dtype, device: of x.
        channels_last: whether x lies so.
        x_grad: whether x requires a gradient.
        grad, inference: whether gradients are recorded; whether inference mode is on.
        autocast: its dtype; None where it is off.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    channels_last: bool
    x_grad: bool
    grad: bool
    inference: bool
    autocast: torch.dtype | None

    @classmethod
    def of(cls, x: Tensor) -> Call:
        """Return the call that takes ``x`` now."""
        kind = x.device.type
        return cls(
            tuple(x.shape),
            x.dtype,
            x.device,
            x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last),
            x.requires_grad,
            torch.is_grad_enabled() and not torch.is_inference_mode_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None,
        )

    def modes(self) -> AbstractContextManager[object]:
        """Return the modes around forward and backward: gradients, and no autocast."""
        stack = contextlib.ExitStack()
        stack.enter_context(torch.inference_mode(self.inference))
        stack.enter_context(torch.set_grad_enabled(self.grad))
        stack.enter_context(torch.autocast(self.device.type, enabled=False))
        return stack

    def autocasting(self) -> AbstractContextManager[object]:
        """Return what is around the forward alone."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)

    def random(
        self, shape: tuple[int, ...] | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return noise like x, or of another shape and dtype; no random state moves."""
        generator = torch.Generator(self.device).manual_seed(0)
        made = torch.randn(
            shape or self.shape, generator=generator, device=self.device, dtype=dtype or self.dtype
        )
        return made.contiguous(memory_format=torch.channels_last) if self.channels_last else made

    def __str__(self) -> str:
        words = [str(self.dtype).removeprefix("torch."), str(list(self.shape))]
        if self.autocast is not None:
            words.append(f"autocast {str(self.autocast).removeprefix('torch.')}")
        return " ".join(words)


def observe(model: nn.Module, layers: Mapping[str, nn.Module], x: Any) -> dict[str, Counter[Call]]:
    """Return how often ``model(x)`` calls each layer, and with what; the model stays as it was.

    Args:
        layers: of the model, by name.
        x: the input; a tuple or list of positional arguments; a dict of arguments by name.

    Raises:
        ValueError: lazy layers that saw no input yet; no memory; x on another device.
    """
    devices = _checked_devices(model, x)
    found: dict[str, Counter[Call]] = {name: Counter() for name in layers}

    def watch(name: str) -> Any:
        def before(module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
            found[name][Call.of(args[0] if args else kwargs["x"])] += 1

        return before

    args, kwargs = ((), x) if isinstance(x, dict) else (arguments(x), {})
    with contextlib.ExitStack() as stack:
        stack.enter_context(as_it_was(model))
        stack.enter_context(random_kept(devices))
        for name, layer in layers.items():
            handle = layer.register_forward_pre_hook(watch(name), with_kwargs=True)
            stack.callback(handle.remove)
        model(*args, **kwargs)
    return found


def _checked_devices(model: nn.Module, x: Any) -> set[torch.device]:
    """Return where the model is."""
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ValueError(f"expected parameters that have a shape, got a lazy one: {name}")
        if parameter.is_meta:
            raise ValueError(f"expected parameters with memory, got {name} on meta")
    here = {t.device for t in (*model.parameters(), *model.buffers())}
    for leaf in tree_leaves(x):
        if isinstance(leaf, Tensor) and here and leaf.device not in here:
            told = " or ".join(sorted(map(str, here)))
            raise ValueError(f"expected x on the model's device {told}, got {leaf.device}")
    return here


@contextlib.contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """At the end bring parameters, buffers, gradients and modes back, to the bit.

    What already is as it was is not written to: a graph may hold it.
    """
    stores: list[tuple[MutableMapping[str, Any], dict[str, Any]]] = [
        (store, dict(store)) for m in model.modules() for store in (m._parameters, m._buffers)
    ]
    ours = [(m, dict(vars(m))) for m in model.modules() if isinstance(m, TwoWays)]
    gradients = [(p, p.grad) for p in model.parameters()]
    held = [t for _, known in stores for t in known.values()] + [g for _, g in gradients]
    copies = {id(t): (t, t.detach().clone()) for t in held if t is not None}
    try:
        with modes_kept(model):
            yield
    finally:
        for module, attributes in ours:  # with another stride, a forward makes other tables
            vars(module).update(attributes)
        for store, known in stores:
            if any(store.get(name) is not tensor for name, tensor in known.items()) or (
                store.keys() != known.keys()
            ):
                store.clear()
                store.update(known)
        for parameter, gradient in gradients:
            if parameter.grad is not gradient:
                parameter.grad = gradient
        for tensor, copy in copies.values():
            if not _same(tensor, copy):
                with torch.no_grad():
                    tensor.copy_(copy)


def _same(one: Tensor, other: Tensor) -> bool:
    """Return whether all elements are equal, the signs of zeros too; NaN is not."""
    if not torch.equal(one, other):
        return False
    return not one.is_floating_point() or torch.equal(one.signbit(), other.signbit())


@contextlib.contextmanager
def random_kept(devices: set[torch.device]) -> Iterator[None]:
    """Bring the random states of torch, numpy and Python back at the end."""
    python, numpy = random.getstate(), np.random.get_state()
    cuda = [d.index or 0 for d in devices if d.type == "cuda"]
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
