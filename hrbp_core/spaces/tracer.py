"""A torch.fx tracer that goes around what it cannot trace, and notices what a trace may miss.

The model is traced on a copy without memory (the meta device): a forward cannot change the
user's model, and one that computes with weights behind fx's back is found out.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from hrbp_core.convs import hooks_of
from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.spaces.operations import PER_CHANNEL_NORMS

LEAVES = (BlockSparseConv2d, nn.Conv2d, nn.Linear, torch.jit.ScriptModule, *PER_CHANNEL_NORMS)


class Tracer(fx.Tracer):
    """Takes convolutions and norms as they are, and what it cannot trace as a box.

    Args:
        closed: names of submodules that are boxes from the start, and why.

    Attributes:
        boxes: submodules that stayed closed, and why.
        called: names of all submodules that were called.
    """

    proxy_buffer_attributes = True

    def __init__(self, closed: dict[str, str]) -> None:
        super().__init__()
        self.closed = closed
        self.boxes: dict[str, str] = {}
        self.called: set[str] = set()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Add ours, and subclasses of torch's layers, whose insides say nothing here."""
        return isinstance(m, LEAVES) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Trace a submodule; one that cannot be traced becomes one step of the graph."""
        name = self.path_of_module(m)
        self.called.add(name)
        if name in self.closed:
            return self._box(m, name, self.closed[name], args, kwargs)
        if not self.is_leaf_module(m, name) and hooks_of(m):
            return self._box(m, name, "it has hooks", args, kwargs)
        before, stack = next(iter(reversed(self.graph.nodes)), None), self.module_stack.copy()
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:  # whatever its Python does with a proxy
            self.module_stack = stack
            for inner in [box for box in self.boxes if box.startswith(name + ".")]:
                del self.boxes[inner]
            outside = self._erase_after(before)
            return self._box(m, name, first_line(error), (*args, *outside), kwargs)

    def create_arg(self, a: Any) -> Any:
        """Refuse tensors that were worked out of weights: nothing would tell which."""
        if isinstance(a, Tensor) and a.is_meta and not self._is_own(a):
            raise TypeError("weights are worked with where torch.fx cannot follow")
        return super().create_arg(a)

    def _is_own(self, tensor: Tensor) -> bool:
        own = (*self.root.parameters(), *self.root.buffers())
        return any(tensor is each for each in own)

    def _box(self, m: nn.Module, name: str, why: str, args: Any, kwargs: Any) -> fx.Proxy:
        """Return what a closed submodule makes of its arguments and of what was left in it."""
        self.boxes[name] = why
        return self.create_proxy("call_module", name, (*args, *left_in(m)), kwargs)

    def _erase_after(self, before: fx.Node | None) -> list[fx.Proxy]:
        """Erase what a failed trace left; return the older values that it took."""
        taken: dict[fx.Node, None] = {}
        for node in reversed(list(self.graph.nodes)):
            if node is before:
                break
            taken |= dict.fromkeys(node.all_input_nodes)
            taken.pop(node, None)
            self.graph.erase_node(node)
        return [fx.Proxy(node, self) for node in taken]


def trace(
    model: nn.Module, training: bool | None, given: dict[str, Any], closed: dict[str, str]
) -> tuple[fx.Graph, Tracer, list[fx.Node]]:
    """Return (graph, its tracer, values that the forward left in attributes) of one trace.

    Args:
        training: the mode of all modules; None for those that they are in.
        given: arguments of the forward that have these values.
    """
    twin = without_memory(model)
    if training is not None:
        twin.train(training)
    tracer = Tracer(closed)
    with _nothing_drawn(), _no_gradients_of_their_own():
        graph = tracer.trace(twin, concrete_args=given or None)
    left = [proxy.node for module in twin.modules() for proxy in left_in(module, deep=False)]
    return graph, tracer, left


def without_memory(model: nn.Module) -> nn.Module:
    """Return a copy whose parameters and buffers are on the meta device."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = empty
    return copy.deepcopy(model, memo)


def left_in(module: nn.Module, *, deep: bool = True) -> list[fx.Proxy]:
    """Return the traced values in the attributes of a module, and of those in it."""
    found = []
    for each in module.modules() if deep else (module,):
        held = {key: value for key, value in vars(each).items() if key != "_modules"}
        found += [leaf for leaf in tree_leaves(held) if isinstance(leaf, fx.Proxy)]
    return found


def modules_of(module: nn.Module) -> list[nn.Module]:
    """Return the modules in a module, and those that lie in lists or the like of its attributes."""
    found = list(module.modules())
    for each in list(found):
        held = {key: value for key, value in vars(each).items() if key != "_modules"}
        for leaf in tree_leaves(held):
            if isinstance(leaf, nn.Module):
                found += leaf.modules()
    return found


@contextlib.contextmanager
def _nothing_drawn() -> Iterator[None]:
    """Leave the random states as they were: a forward may throw dice."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextlib.contextmanager
def _no_gradients_of_their_own() -> Iterator[None]:
    """Refuse autograd functions: fx would see their forward alone."""
    function: Any = torch.autograd.Function
    original = vars(function)["apply"]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(leaf, fx.Proxy) for leaf in tree_leaves((args, kwargs))):
            raise TypeError(f"{cls.__name__} has a gradient of its own")
        return original.__get__(None, cls)(*args, **kwargs)

    function.apply = classmethod(apply)
    try:
        yield
    finally:
        function.apply = original


def first_line(error: Exception) -> str:
    """Return the error's kind and the first line of what it says."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
