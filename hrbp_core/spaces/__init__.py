"""The channel spaces of a network: which layers see one and the same channels in one order.

The network is traced by torch.fx and each tensor's channels are followed. A space is made by a
convolution's (or linear layer's) filters; BatchNorm, activations, pooling and so on hand it on;
an addition makes one space of two; a concatenation puts spaces side by side. What the model
takes and returns is pinned: nobody may reorder it; so is what an operation touches whose effect
on channels is not known here.

Traces are taken in train and in eval mode, with and without each optional argument, and with
both values of each flag. A layer that none of them calls stands behind a branch that they do not
take: the submodule around it is then left as it is, or the whole model is.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Collection, Iterator
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from hrbp_core.convs import hooks_of
from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.spaces.reader import Reader
from hrbp_core.spaces.table import CHANNELS, EACH, FEATURES_IN, FEATURES_OUT, FILTERS, Spaces
from hrbp_core.spaces.tracer import first_line, trace

__all__ = [
    "CHANNELS",
    "EACH",
    "FEATURES_IN",
    "FEATURES_OUT",
    "FILTERS",
    "Spaces",
    "channel_spaces",
]
MOST_VARIANTS = 16


def channel_spaces(model: nn.Module, unused: Collection[str] = ()) -> Spaces:
    """Return the spaces of ``model``.

    The model is not run and not changed. One that cannot be traced comes back as such. Arguments
    whose default is neither None nor a bool are taken at their default.

    Args:
        unused: submodules that no forward ever calls, by the word of the caller.
    """
    if isinstance(model, BlockSparseConv2d | nn.Conv2d | nn.Linear):
        return Spaces(untraced="the model is a single layer: it has no neighbours")
    if "forward" in vars(model) or not inspect.isfunction(getattr(type(model), "forward", None)):
        return Spaces(untraced="the model's forward is no function of its class")
    if hooks_of(model):
        return Spaces(untraced="hooks are registered on the model itself")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            return Spaces(untraced=f"{name} is not initialised yet: run the model once")
    variants = list(_variants(model))
    if len(variants) > MOST_VARIANTS:
        return Spaces(untraced=f"its forward has {len(variants)} forms by its optional arguments")
    closed: dict[str, str] = {}
    while True:
        reader, called = Reader(model), {""}
        for training, given in variants:
            try:
                graph, tracer, left = trace(model, training, given, closed)
            except Exception as error:  # whatever the model's Python does with a proxy
                kind = type(model).__name__
                return Spaces(untraced=f"torch.fx cannot trace {kind}: {first_line(error)}")
            reader.read(graph, tracer.boxes, left)
            called |= tracer.called
        around = _behind_branches(model, reader, called, unused)
        if "" in around:
            return Spaces(untraced=around[""])
        if not around:
            return reader.result()
        closed |= around


def _variants(model: nn.Module) -> Iterator[tuple[bool | None, dict[str, Any]]]:
    """Yield (mode, given arguments): every form that the forward may take.

    The modes are train, eval, and where the modules are in different ones, that (None).
    """
    mixed = len({module.training for module in model.modules()}) > 1
    choices: dict[str, tuple[Any, ...]] = {}
    traced = object()
    for name, parameter in inspect.signature(type(model).forward).parameters.items():
        default = parameter.default
        if isinstance(default, bool):
            choices[name] = (default, not default)
        elif default is None:
            choices[name] = (None, traced)
        elif default is not inspect.Parameter.empty:
            choices[name] = (default,)
    for training in (True, False, *([None] if mixed else [])):
        for values in itertools.product(*choices.values()):
            given = dict(zip(choices, values, strict=True))
            yield training, {name: value for name, value in given.items() if value is not traced}


def _behind_branches(
    model: nn.Module, reader: Reader, called: set[str], unused: Collection[str]
) -> dict[str, str]:
    """Return {submodule: why} around each layer that no trace called; "" is the model."""
    found: dict[str, str] = {}
    seen = called | reader.read_directly
    for name, module in model.named_modules():
        held = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        parts = name.split(".")
        above = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
        if not held or name in seen or reader.in_box(name) or above & {*unused}:
            continue
        parents = (".".join(parts[:n]) for n in range(len(parts) - 1, -1, -1))
        around = next(parent for parent in parents if parent in called)
        found[around] = f"no trace calls {name}: another branch may (else: unused=...)"
    return found
