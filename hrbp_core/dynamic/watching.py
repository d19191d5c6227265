"""The gradient of a layer's dense weight, caught while the layer trains as ever.

A forward hook keeps x, and a hook on the output makes one dense wgrad of x and dy when the
backward comes by. Nothing of what the training computes changes. On such steps alone, a layer
costs a dense wgrad more, the memory of one dense weight (float32 at least), and x for as long as
it is needed; autograd keeps x itself anyway, unless it is cast or permuted first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hrbp_core.dynamic.sites import Site

WRITTEN = "its input was written to before the backward"


class Watch:
    """The gradients of one update step, by layer.

    Attributes:
        gradients: summed over all backwards since the start.
        spoilt: layers whose gradient cannot be known, and why.
    """

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}
        self.spoilt: dict[str, str] = {}
        self._handles: list[RemovableHandle] = []

    def start(self, sites: Mapping[str, Site]) -> None:
        """Watch the sites' layers from now on, with nothing seen yet."""
        self.stop()
        for name, site in sites.items():
            listener = Listener(self, name, site)
            self._handles.append(site.module.register_forward_hook(listener, with_kwargs=True))

    def stop(self) -> None:
        """Leave the layers as they were, and forget what was seen."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        # new ones: a backward of before, that still comes, adds to what nobody reads
        self.gradients, self.spoilt = {}, {}


class Listener:
    """The forward hook of one layer; no copy of the model takes it along."""

    def __init__(self, watch: Watch, name: str, site: Site) -> None:
        self.watch, self.name, self.site = watch, name, site

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Tensor
    ) -> None:
        if torch.compiler.is_compiling():
            return  # a compiled backward calls no hooks; that nothing was seen is found out
        if module is not self.site.module or not y.requires_grad:
            return  # a copy, or a forward without a backward
        x: Tensor = (args[0] if args else kwargs["x"]).detach()
        version, gradients, spoilt = x._version, self.watch.gradients, self.watch.spoilt

        def backward(dy: Tensor) -> None:
            if x._version != version:
                spoilt[self.name] = WRITTEN
                return
            with torch.no_grad():
                more = self.site.gradient(x, dy.detach())
                have = gradients.get(self.name)
                gradients[self.name] = more if have is None else have.add_(more)

        y.register_hook(backward)

    def __reduce__(self) -> tuple[Any, ...]:
        return deaf, ()


def deaf() -> Any:
    """Return the hook that a copied or pickled layer has instead."""
    return nothing


def nothing(*_: Any) -> None:
    """Do nothing."""
