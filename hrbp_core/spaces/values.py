"""Follows the channels of each value through the functions and methods of a traced graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import fx

from hrbp_core.spaces import operations as ops
from hrbp_core.spaces.table import Axis, Fixed, Spaces, Value

LOST = Fixed("a submodule that torch.fx cannot trace keeps it")


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
        found = (self.of.get(n, LOST) for n in node.all_input_nodes)
        return [value for value in found if value is not None]

    def refuse(self, node: fx.Node, reason: str, rank: int | None = None) -> Fixed:
        """Pin what goes in; what comes out, of this rank, is pinned likewise."""
        for value in self.inputs(node):
            if isinstance(value, Axis):
                self.spaces.pin(value.spaces, reason)
        return Fixed(reason, rank)

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
        value, first = inputs[0], node.args[0] if node.args else None
        if len(inputs) == 1 and isinstance(first, fx.Node) and self.of.get(first, LOST) is value:
            if isinstance(value, Axis):
                changed = self._changed(node, value)
                if changed is not None:
                    return changed
            elif ops.is_pointwise(target) and ops.takes_rank(called(node), value.rank or 0):
                return value
            return self.refuse(node, _mixes(node, value), ops.known_rank(node, value.rank))
        return self.refuse(node, f"{called(node)} may mix channels")

    def _changed(self, node: fx.Node, value: Axis) -> Axis | None:
        """Return what an operation on one tensor makes of its channels, if they keep apart."""
        target, args, kwargs = node.target, node.args[1:], dict(node.kwargs)
        if ops.is_pointwise(target):
            return (
                self._pointwise(node, value) if ops.takes_rank(called(node), value.rank) else None
            )
        if target in ops.FLATTEN:
            return value.flattened() if ops.flattens(args, kwargs) else None
        if target in ops.RESHAPE:
            source = ops.batch_of_reshape(args)
            theirs = None if source is None else self.of.get(source)
            same = theirs is not None and value.batch is not None and theirs.batch == value.batch
            return value.flattened() if same else None
        if target in ops.REDUCE or target in ops.SQUEEZE:
            return _fewer_pixels(node, value)
        if target in ops.PAD:
            sides = args[0] if args else kwargs.get("pad", ())
            inside = isinstance(sides, tuple | list) and len(sides) <= 2 * (value.rank - 2)
            return replace(value, ones=frozenset()) if inside else None
        if target in ops.INDEX and ops.keeps_channels(args[0], value.rank):
            return value
        return None

    def _pointwise(self, node: fx.Node, value: Axis) -> Axis:
        """Return the axis after an operation on each channel, which may change its pixels."""
        name = called(node)
        if name.startswith("adaptive"):
            size = node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size")
            return replace(value, ones=frozenset({2, 3} if ops.pooled_to_one(size) else ()))
        if ops.changes_pixels(name):
            return replace(value, ones=frozenset())
        return value

    def _binary(self, node: fx.Node) -> Value:
        values = self.inputs(node)
        fixed = [v for v in values if isinstance(v, Fixed)]
        axes = [v for v in values if isinstance(v, Axis)]
        if fixed:
            ranks = [v.rank for v in values]
            rank = None if None in ranks else max(r for r in ranks if r is not None)
            return self.refuse(node, fixed[0].reason, rank)
        if len(axes) == 1:
            return axes[0]
        if len(axes) > 2:
            return self.refuse(node, f"{called(node)} of {len(axes)} tensors")
        one, other = axes
        if (one.rank, one.flat) != (other.rank, other.flat):
            return self.refuse(node, f"{called(node)} of {one.rank} and {other.rank} dimensions")
        batch = one.batch if one.batch == other.batch else None
        joined = replace(one, ones=one.ones & other.ones, batch=batch)
        widths = [self.spaces.width(axis.spaces) for axis in axes]
        if widths[0] == widths[1]:
            self.spaces.tie(one.spaces, other.spaces)
            return joined
        if 1 in widths and not one.flat:  # one value for all channels
            return replace(joined, spaces=axes[widths.index(max(widths))].spaces)
        return self.refuse(node, f"{called(node)} of {widths[0]} and {widths[1]} channels")

    def _concatenated(self, node: fx.Node) -> Value:
        tensors = node.args[0] if node.args else node.kwargs.get("tensors")
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        values = [self.of.get(n, LOST) for n in _nodes(tensors)]
        fixed = [v for v in values if isinstance(v, Fixed)]
        axes = [v for v in values if isinstance(v, Axis)]
        if fixed or not axes:
            known = [v.rank for v in fixed]
            why = fixed[0].reason if fixed else f"{called(node)} is dynamic"
            return self.refuse(node, why, known[0] if known else None)
        rank = axes[0].rank
        if any(axis.flat or axis.rank != rank for axis in axes):
            return self.refuse(node, f"{called(node)} of flattened tensors")
        if not isinstance(dim, int) or dim % rank != 1:
            return self.refuse(node, f"{called(node)} along dimension {dim}")
        spaces = tuple(n for axis in axes for n in axis.spaces)
        batch = axes[0].batch if all(axis.batch == axes[0].batch for axis in axes) else None
        return Axis(spaces, rank, batch, ones=frozenset.intersection(*(a.ones for a in axes)))


def _nodes(tensors: Any) -> Iterator[fx.Node]:
    for item in tensors if isinstance(tensors, tuple | list) else (tensors,):
        if isinstance(item, fx.Node):
            yield item


def _fewer_pixels(node: fx.Node, value: Axis) -> Axis | None:
    """Return the axis after a reduction over pixels, or without dimensions of extent 1."""
    args, kwargs = node.args[1:], node.kwargs
    dims = ops.pixel_dims(args[0] if args else kwargs.get("dim"), value.rank)
    if dims is None or value.flat:
        return None
    if node.target in ops.SQUEEZE:
        return value.without(dims) if dims <= value.ones else None
    if args[1] if len(args) > 1 else kwargs.get("keepdim", False):
        return replace(value, ones=value.ones | dims)
    return value.without(dims)


def _mixes(node: fx.Node, value: Axis | Fixed) -> str:
    return value.reason if isinstance(value, Fixed) else f"{called(node)} may mix channels"


def called(node: fx.Node) -> str:
    """Return the name of what a node calls, for a message."""
    target = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))
