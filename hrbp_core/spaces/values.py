"""Follows the channels of each value through the functions and methods of a traced graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import fx

from hrbp_core.spaces import operations as ops
from hrbp_core.spaces.table import Axis, Fixed, Spaces, Value


class Values:
    """The values of one graph.

    Attributes:
        of: node -> its Axis; Fixed where channels, if there are any, have to stay; None for a
            number, a size, a dtype.
    """

    def __init__(self, spaces: Spaces) -> None:
        self.spaces = spaces
        self.of: dict[fx.Node, Value] = {}

    def inputs(self, node: fx.Node) -> list[Axis | Fixed]:
        """Return what the node takes, numbers and sizes left out."""
        found = (self.of[n] for n in node.all_input_nodes)
        return [value for value in found if value is not None]

    def refuse(self, node: fx.Node, reason: str) -> Fixed:
        """Pin what goes in; what comes out is pinned likewise."""
        for value in self.inputs(node):
            if isinstance(value, Axis):
                self.spaces.pin(value.spaces, reason)
        return Fixed(reason)

    def operation(self, node: fx.Node) -> Value:
        """Return the value of a call of a function or method."""
        target, inputs = node.target, self.inputs(node)
        if not inputs:
            return Fixed(f"{called(node)} makes a tensor") if ops.makes_tensor(node) else None
        if ops.asks_about(node):
            return None
        if target in ops.BINARY:
            return self._binary(node)
        if target in ops.CONCATENATE:
            return self._concatenated(node)
        value = inputs[0]
        if len(inputs) == 1 and node.args and isinstance(node.args[0], fx.Node):
            if isinstance(value, Fixed):
                return value
            changed = self._changed(node, value) if self.of[node.args[0]] is value else None
            if changed is not None:
                return changed
        return self.refuse(node, f"{called(node)} may mix channels")

    def _changed(self, node: fx.Node, value: Axis) -> Axis | None:
        """Return what an operation on one tensor makes of its channels, if they keep apart."""
        target, args, kwargs = node.target, node.args[1:], node.kwargs
        if ops.is_pointwise(target):
            return value
        if target in ops.FLATTEN:
            return value.flattened() if [*args, *kwargs.values()] in ([1], [1, -1]) else None
        if target in ops.RESHAPE:
            return value.flattened() if ops.flattens(args) else None
        if target in ops.REDUCE or target in ops.SQUEEZE:
            dims = args[0] if args else kwargs.get("dim")
            keep = args[1] if len(args) > 1 else kwargs.get("keepdim", False)
            rank = None if value.flat else ops.reduced_rank(value.rank, dims, bool(keep))
            return None if rank is None else Axis(value.spaces, rank)
        if target in ops.PAD:
            sides = args[0] if args else kwargs.get("pad", ())
            inside = isinstance(sides, tuple | list) and len(sides) <= 2 * (value.rank - 2)
            return value if inside else None
        if target in ops.INDEX and ops.keeps_channels(args[0], value.rank):
            return value
        return None

    def _binary(self, node: fx.Node) -> Value:
        values = self.inputs(node)
        fixed = [v for v in values if isinstance(v, Fixed)]
        if fixed:
            return self.refuse(node, fixed[0].reason)
        axes = [v for v in values if isinstance(v, Axis)]
        if len(axes) == 1:
            return axes[0]
        if len(axes) > 2:
            return self.refuse(node, f"{called(node)} of {len(axes)} tensors")
        one, other = axes
        if (one.rank, one.flat) != (other.rank, other.flat):
            return self.refuse(node, f"{called(node)} of {one.rank} and {other.rank} dimensions")
        widths = [self.spaces.width(axis.spaces) for axis in axes]
        if 1 in widths and widths[0] != widths[1]:  # one value for all channels
            return axes[widths.index(max(widths))]
        self.spaces.tie(one.spaces, other.spaces)
        return one

    def _concatenated(self, node: fx.Node) -> Value:
        tensors = node.args[0] if node.args else node.kwargs.get("tensors")
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        values = [self.of[n] for n in _nodes(tensors)]
        fixed = [v for v in values if isinstance(v, Fixed)]
        axes = [v for v in values if isinstance(v, Axis)]
        if fixed or not axes:
            return self.refuse(node, fixed[0].reason if fixed else f"{called(node)} is dynamic")
        rank = axes[0].rank
        if any(axis.flat or axis.rank != rank for axis in axes):
            return self.refuse(node, f"{called(node)} of flattened tensors")
        if not isinstance(dim, int) or dim % rank != 1:
            return self.refuse(node, f"{called(node)} along dimension {dim}")
        return Axis(tuple(n for axis in axes for n in axis.spaces), rank)


def _nodes(tensors: Any) -> Iterator[fx.Node]:
    for item in tensors if isinstance(tensors, tuple | list) else (tensors,):
        if isinstance(item, fx.Node):
            yield item


def called(node: fx.Node) -> str:
    """Return the name of what a node calls, for a message."""
    target = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))
