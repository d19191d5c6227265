"""Follows the channels of each value through the modules of a traced graph."""

from __future__ import annotations

from dataclasses import replace

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd

from hrbp_core.convs import has_own_forward, hooks_of, shared_parameters
from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.spaces import operations as ops
from hrbp_core.spaces.table import (
    CHANNELS,
    EACH,
    FEATURES_IN,
    FEATURES_OUT,
    FILTERS,
    Axis,
    Fixed,
    Spaces,
    Value,
)
from hrbp_core.spaces.tracer import modules_of
from hrbp_core.spaces.values import Values

INPUT, OUTPUT = "the model's input", "the model's output"


class Reader:
    """Reads graphs of one model into one table of spaces."""

    def __init__(self, model: nn.Module) -> None:
        self.spaces = Spaces()
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.names = {id(m): name for name, m in model.named_modules()}  # the first of several
        self.shared = shared_parameters(model)
        self.stuck = self.spaces.stuck
        self.read_directly: set[str] = set()  # modules whose tensors a forward takes itself
        self.ranks = {n: t.dim() for n, t in (*model.named_parameters(), *model.named_buffers())}

    def read(self, graph: fx.Graph, boxes: dict[str, str], left: list[fx.Node]) -> None:
        """Follow the channels of a graph.

        Args:
            boxes: modules that it leaves closed, and why.
            left: values that the forward keeps in attributes.
        """
        self.spaces.boxes.update(boxes)
        for box, why in boxes.items():
            for inner in modules_of(self.modules[box]):
                if id(inner) in self.names:
                    name = self.names[id(inner)]
                    self.stuck.setdefault(name, f"torch.fx cannot trace {box}: {why}")
        self.values = Values(self.spaces)
        for node in graph.nodes:
            if node.op == "get_attr":
                self._note_reading(str(node.target))
        for node in graph.nodes:
            self.values.of[node] = self._value(node)
        for node in left:
            value = self.values.of.get(node)
            if isinstance(value, Axis):
                self.spaces.pin(value.spaces, "the forward keeps it in an attribute")

    def in_box(self, name: str) -> bool:
        """Return whether a module lies in one that stayed closed."""
        return any(name == box or name.startswith(box + ".") for box in self.spaces.boxes)

    def result(self) -> Spaces:
        """Return the table; what a module in doubt touches is pinned."""
        for name, reason in self.stuck.items():
            for spaces in self.spaces.roles.get(name, {}).values():
                self.spaces.pin(spaces, reason)
        return self.spaces

    def _note_reading(self, target: str) -> None:
        owner = target.rpartition(".")[0]
        if owner in self.modules:
            name = self.names[id(self.modules[owner])]
            self.read_directly.add(name)
            self.stuck[name] = f"a tensor of {name or 'the model'} is used in a forward itself"

    def _value(self, node: fx.Node) -> Value:
        if node.op == "placeholder":
            return Fixed(INPUT, None, node)  # to a convolution it is images
        if node.op == "get_attr":
            why = f"{node.target} is used in a forward itself"
            return Fixed(why, self.ranks.get(str(node.target)))
        if node.op == "output":
            return self.values.refuse(node, OUTPUT)
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            return self._module(node, module, self.names[id(module)])
        return self.values.operation(node)

    def _module(self, node: fx.Node, module: nn.Module, name: str) -> Value:
        inputs = self.values.inputs(node)
        why = self._why_unknown(module, name, len(inputs))
        if why is not None:
            return self._stick(node, name, why)
        value = inputs[0]
        if not ops.takes_rank(_plain_name(module), value.rank or 4):
            return self._stick(node, name, f"{name} reads {value.rank} dimensions")
        if isinstance(module, nn.Conv2d | BlockSparseConv2d):
            return self._convolution(node, module, name, value)
        if isinstance(module, nn.Linear):
            return self._linear(node, module, name, value)
        size = ops.normalised_channels(module)
        if size is not None:
            return self._each(node, name, value, size)
        if isinstance(module, ops.POINTWISE_MODULES):
            return value if isinstance(value, Fixed) else _pixels(module, value)
        if isinstance(value, Fixed):
            return self.values.refuse(node, value.reason)
        if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
            return value.flattened()
        return self._stick(node, name, f"{type(module).__name__} ({name}) may mix channels")

    def _stick(self, node: fx.Node, name: str, reason: str, rank: int | None = None) -> Fixed:
        """Nothing may move here, nor in another call of the same module."""
        self.stuck.setdefault(name, reason)
        return self.values.refuse(node, reason, rank)

    def _why_unknown(self, module: nn.Module, name: str, inputs: int) -> str | None:
        kind = type(module).__name__
        if name in self.spaces.boxes:
            return f"torch.fx cannot trace {name}: {self.spaces.boxes[name]}"
        if name in self.shared:
            return f"{name} shares a tensor with {self.shared[name]}"
        if hooks_of(module):
            return f"{kind} ({name}) has hooks"
        ours = BlockSparseConv2d if isinstance(module, BlockSparseConv2d) else None
        if has_own_forward(module, ours) and not ops.is_norm_with_activation(module):
            return f"{kind} ({name}) may mix channels"
        if inputs != 1:
            return f"{kind} ({name}) takes {inputs} tensors"
        return None

    def _convolution(
        self, node: fx.Node, conv: nn.Conv2d | BlockSparseConv2d, name: str, value: Axis | Fixed
    ) -> Value:
        groups = getattr(conv, "groups", 1)
        if value.rank not in (4, None):  # three: one image without a batch
            self._stick(node, name, f"{name} reads {value.rank} dimensions")
        if groups == conv.in_channels == conv.out_channels and groups > 1:
            passed = self._each(node, name, value, groups)
            return replace(passed, ones=frozenset()) if isinstance(passed, Axis) else passed
        if groups != 1:
            return self._stick(node, name, f"{name} is a grouped convolution", value.rank)
        self._reads(name, CHANNELS, value, conv.in_channels, rank=4)
        ones = value.ones if isinstance(value, Axis) and _looks_at_one_pixel(conv) else frozenset()
        made = self._makes(name, FILTERS, conv.out_channels, 4, value.batch, ones)
        return made if value.rank in (4, None) else self.values.refuse(node, f"{name} reads fewer")

    def _linear(self, node: fx.Node, linear: nn.Linear, name: str, value: Axis | Fixed) -> Value:
        if isinstance(value, Fixed):  # of any rank
            return self._stick(node, name, value.reason)
        if value.rank != 2:
            return self._stick(node, name, f"{name} works on the last of {value.rank} dimensions")
        self._reads(name, FEATURES_IN, value, linear.in_features, rank=2)
        return self._makes(name, FEATURES_OUT, linear.out_features, 2, value.batch)

    def _reads(self, name: str, role: str, value: Axis | Fixed, size: int, rank: int) -> None:
        """Note that a layer reads ``value`` with ``size`` channels or features."""
        reason = f"{name} reads it otherwise"
        if isinstance(value, Fixed):
            reason = value.reason
        else:
            repeat = self._repeat(value, size) if value.rank == rank else None
            if repeat == self.spaces.repeats.setdefault(name, repeat or 1):
                self.spaces.add_role(name, role, value.spaces)
                return
            self.spaces.pin(value.spaces, reason)
        self.spaces.add_role(name, role, (self.spaces.new(size, reason),))

    def _makes(
        self, name: str, role: str, size: int, rank: int, batch: object,
        ones: frozenset[int] = frozenset(),
    ) -> Axis:  # fmt: skip
        made = self.spaces.roles[name].get(role)
        if made is None:
            made = (self.spaces.new(size),)
            self.spaces.add_role(name, role, made)
        return Axis(made, rank, batch, ones=ones)

    def _each(self, node: fx.Node, name: str, value: Axis | Fixed, size: int) -> Value:
        """One weight a channel: it follows the order, and hands it on."""
        if isinstance(value, Fixed):
            self.stuck.setdefault(name, value.reason)
            return value
        repeat = self._repeat(value, size)
        if repeat is None or self.spaces.repeats.setdefault(name, repeat) != repeat:
            return self._stick(node, name, f"{name} reads it otherwise")
        self.spaces.add_role(name, EACH, value.spaces)
        return value

    def _repeat(self, value: Axis, size: int) -> int | None:
        """Return the features a channel when ``size`` are read; None where that cannot be."""
        width = self.spaces.width(value.spaces)
        if size == width:
            return 1
        return size // width if value.flat and size % width == 0 else None


def _plain_name(module: nn.Module) -> str:
    """Return the class's name where it says how many dimensions the module takes."""
    if isinstance(module, nn.Conv2d | BlockSparseConv2d | _BatchNorm):
        return ""  # a norm refuses other ranks itself; see below for convolutions
    return _torch_name(module)


def _torch_name(module: nn.Module) -> str:
    """Return the name of torch's own class that the module is, whatever a subclass is called."""
    kinds = (kind for kind in type(module).__mro__ if kind.__module__.startswith("torch."))
    return next(kinds, type(module)).__name__


def _pixels(module: nn.Module, value: Axis) -> Axis:
    """Return the axis after a module on each channel, which may change its pixels."""
    if isinstance(module, _AdaptiveAvgPoolNd | _AdaptiveMaxPoolNd):
        ones = {2, 3} if ops.pooled_to_one(module.output_size) else set()
        return replace(value, ones=frozenset(ones))
    changes = ops.changes_pixels(_torch_name(module).lower())
    return replace(value, ones=frozenset()) if changes else value


def _looks_at_one_pixel(conv: nn.Conv2d | BlockSparseConv2d) -> bool:
    return conv.kernel_size == (1, 1) and conv.padding in ((0, 0), "valid", "same")
