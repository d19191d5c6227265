"""A torch.fx tracer that goes around what it cannot trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.spaces.operations import PER_CHANNEL_NORMS


class Tracer(fx.Tracer):
    """Takes convolutions and norms as they are, and what it cannot trace as a box."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes: dict[str, str] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Add ours, and subclasses of torch's layers, whose insides say nothing here."""
        ours = isinstance(m, (BlockSparseConv2d, nn.Conv2d, nn.Linear, *PER_CHANNEL_NORMS))
        return ours or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Trace a submodule; one that cannot be traced becomes one step of the graph."""
        before = next(iter(reversed(self.graph.nodes)), None)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:  # whatever its Python does with a proxy
            name = self.path_of_module(m)
            if not any(inner.startswith(name + ".") for inner in self.boxes):
                self.boxes[name] = first_line(error)
            for node in reversed(list(self.graph.nodes)):
                if node is before:
                    break
                self.graph.erase_node(node)
            return self.create_proxy("call_module", name, args, kwargs)


def first_line(error: Exception) -> str:
    """Return the error's kind and the first line of what it says."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
