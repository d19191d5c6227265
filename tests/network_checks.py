"""What the tests of whole networks check: one function, gradients, and a model left as it was."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hrbp_core.conversion import convert
from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.pattern import BlockPattern
from hrbp_core.permute import Absorption, absorb

DTYPE_ERRORS = {torch.float64: 1e-10, torch.float32: 1e-5}
BOTH = (True, False)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Tiny tensors: threads that wait for one another take five times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def randomised(model: nn.Module, seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
    """Draw all parameters and floating-point buffers, so that no two channels are alike."""
    generator = torch.Generator().manual_seed(seed)
    model = model.to(dtype)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            fan_in = max(tensor[0].numel(), 1) if tensor.dim() > 1 else 1
            drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            if name.endswith("running_var"):
                drawn = drawn.square() + 0.3
            tensor.copy_(drawn / fan_in**0.5)
    return model


def image(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a random image, by default [2, 3, 8, 8]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape or (2, 3, 8, 8), generator=generator, dtype=torch.float64).to(dtype)


def sparse(model: nn.Module, **options: Any) -> Any:
    """Return the randomised model in blocks of 4, with random orders everywhere.

    With ``joint=False`` no two layers agree on any order.
    """
    chosen: dict[str, Any] = {"block": 4, "method": "shuffled", "densities": 0.5} | options
    network = convert(randomised(model), **chosen)[0]
    if not chosen.get("joint", True) and chosen["method"] == "shuffled":
        generator = torch.Generator().manual_seed(7)  # one seed gave them all one order
        for name, layer in network.named_modules():
            if isinstance(layer, BlockSparseConv2d):
                _shuffle(layer, model.get_parameter(name + ".weight").detach(), generator)
    return network


@torch.no_grad()
def _shuffle(layer: BlockSparseConv2d, weight: Tensor, generator: torch.Generator) -> None:
    """Draw other members of the layer's groups."""
    old = layer.pattern
    tables = []
    for table, size in zip((old.filters, old.channels), old.shape[:2], strict=True):
        drawn = torch.randperm(size, generator=generator).to(torch.int32)
        tables.append(torch.where(table < 0, table, drawn[table.clamp(min=0).long()]))
    filters, channels = tables
    layer.adopt(BlockPattern(old.shape, old.block, filters, channels, old.entries))
    layer.values.copy_(layer.pattern.pack(weight))


def outcome(network: nn.Module, inputs: Sequence[Any], **options: Any) -> list[Tensor]:
    """Return the outputs of one call, and the gradients of a sum of them by the inputs."""
    torch.manual_seed(3)  # for what draws
    given = [x.clone().requires_grad_() if isinstance(x, Tensor) else x for x in inputs]
    outputs = [y for y in tree_leaves(network(*given, **options)) if isinstance(y, Tensor)]
    total = torch.zeros((), dtype=torch.float64)
    for y in outputs:
        weights = torch.linspace(-1, 1.5, y.numel(), dtype=torch.float64).cos()
        total = total + (y.double().reshape(-1) * weights).sum()
    wanted = [x for x in given if isinstance(x, Tensor)]
    return [y.detach() for y in outputs] + list(torch.autograd.grad(total, wanted))


def assert_same(one: nn.Module, other: nn.Module, inputs: Sequence[Any], **options: Any) -> None:
    """Fail unless both return the same, and the same gradients, up to rounding."""
    expected, got = outcome(one, inputs, **options), outcome(other, inputs, **options)
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        limit = DTYPE_ERRORS[theirs.dtype] * float(theirs.abs().max())
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        assert float((ours - theirs).abs().max()) <= limit
        assert bool((theirs != 0).any()), "all zero: this compares nothing"


def assert_same_in_both_modes(
    one: nn.Module, other: nn.Module, inputs: Sequence[Any] = (), **options: Any
) -> None:
    """``assert_same`` in train mode, then in eval mode."""
    for training in (True, False):  # the second with the first one's statistics
        assert_same(one.train(training), other.train(training), inputs or (image(),), **options)


def train_a_little(network: nn.Module, inputs: Sequence[Any], steps: int = 2) -> None:
    """Take a few steps of SGD with momentum and weight decay."""
    network.train()
    wanted = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(wanted, lr=0.01, momentum=0.9, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        outputs = [y for y in tree_leaves(network(*inputs)) if isinstance(y, Tensor)]
        torch.stack([y.square().mean() for y in outputs]).sum().backward()
        optimizer.step()


def state(model: nn.Module) -> dict[Any, Any]:
    """Return everything that a model holds: tensors by value, the rest as it is."""
    found: dict[Any, Any] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers"):
                for each, tensor in value.items():
                    found[path, each] = None if tensor is None else _held(tensor)
            elif name == "_modules":
                found[path, name] = [(each, id(child)) for each, child in value.items()]
            elif isinstance(value, Tensor):
                found[path, name] = _held(value)
            else:
                found[path, name] = copy.copy(value) if isinstance(value, list | dict) else value
    return found


def _held(tensor: Tensor) -> tuple[Any, ...]:
    values = tuple(tensor.detach().double().reshape(-1).tolist())
    return id(tensor), values, tensor.dtype, tensor.requires_grad, tensor.stride()


def absorbed(network: nn.Module) -> tuple[Any, Absorption]:
    """``absorb``, and everything that has to hold whatever the network is."""
    before = state(network)
    copied, report = absorb(network)
    assert state(network) == before
    layers = {n: m for n, m in copied.named_modules() if isinstance(m, BlockSparseConv2d)}
    assert {*report.canonical, *report.standalone} == layers.keys()
    assert len(report.canonical) + len(report.standalone) == len(layers)
    for name, layer in layers.items():
        assert layer.pattern.is_canonical == (name in report.canonical), name
        assert report.standalone.get(name, "why") != "", name
    assert_same_storage(network, copied)
    return copied, report


def assert_same_storage(one: nn.Module, other: nn.Module) -> None:
    """Fail unless all tensors that are saved are of one kind, and both hold their own."""
    mine, theirs = one.state_dict(keep_vars=True), other.state_dict(keep_vars=True)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        kinds = [
            (t.dtype, t.shape, t.stride(), t.requires_grad, t.grad_fn)
            for t in (tensor, theirs[name])
        ]
        assert kinds[0] == kinds[1], name
        assert tensor.data_ptr() != theirs[name].data_ptr(), name
    for here, there in zip(one.modules(), other.modules(), strict=True):
        assert (type(here), here.training) == (type(there), there.training)


def assert_absorbs(model: nn.Module, inputs: Sequence[Any] = (), **options: Any) -> Any:
    """Fail unless the sparse model and its absorbed copy agree; return (copy, report).

    Its layers do not agree on any order, unless that is asked for.
    """
    network = sparse(model, **({"joint": False} | options))
    copied, report = absorbed(network)
    assert report.untraced is None, "this tests nothing"
    assert report.moved
    assert_same_in_both_modes(network, copied, inputs)
    return copied, report
