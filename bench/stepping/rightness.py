"""A step of the sparse network must be that of its masked dense twin, or no time counts.

The twin is ``to_dense`` of the sparse network: the same weights, zeros where nothing is kept. It
steps by torch's own convolutions and a plain optimizer. Compared are the loss, and by parameter
the update: gradient + weight decay, of which the optimizer takes the rate's share off; of the
twin's, what the pattern keeps. In float32 the bounds are tight (WRN-28-10, batch 4: 6e-6 is
off), except where the network itself magnifies rounding (ResNet-50, batch 2: 1e-2): then both
steps are held against the twin in float64, and ours may be off a factor more than the twin's. In
bfloat16 two right steps always differ by a good part (0.4), so the twin in float32 is what both
are held against; and the float32 step is checked as well.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from bench.stepping.stepper import LR, Stepper
from hrbp_core import BlockSparseConv2d, to_dense

LOSS, UPDATE, WEIGHTS = 1e-4, 2e-3, 1e-5  # relative, in float32
FLOOR = 1e-5  # of the whole update: a bias before BatchNorm has a gradient of rounding alone
AMP_FACTOR = 2.5  # of the twin's own error in bfloat16, over all parameters
FACTOR = 4  # of the twin's own error in float32, each parameter's
BATCHES = 4
OTHERS = 2**20  # seeds that no batch of a comparison has
TINY = 1e-30
SLIPPED = "the optimizer moved weights by another update than the gradients ask for"
Batch = tuple[Tensor, Tensor]


class Wrong(Exception):
    """A step that is not the twin's; the text says in what."""


def check(sparse: nn.Module, batch: Batch, mode: str, amp: bool) -> dict[str, float]:
    """Return how far a first step lies off from the twin's; the network stays as it is.

    Returns:
        ``loss``, ``update`` and ``weights`` in float32, over their norms, the worst parameter's,
        and the twin's own against float64 (``twin_update``) where that was needed; with ``amp``
        also ``amp_loss`` and ``amp_update`` of the whole, and the twin's own (``amp_twin_loss``,
        ``amp_twin_update``).

    Raises:
        Wrong: something lies beyond its bound.
    """
    found = _exact_somewhere(sparse, batch, "eager" if amp else mode)
    if amp:
        twin = _Stepped(Stepper(to_dense(sparse), batch, plain=True), sparse)
        yardstick = _Stepped(Stepper(to_dense(sparse), batch, amp=True, plain=True), sparse)
        found |= _rough(_stepped(sparse, batch, mode, True), yardstick, twin)
    return found


def _exact_somewhere(sparse: nn.Module, batch: Batch, mode: str) -> dict[str, float]:
    """Compare in float32 on this batch; on others too, if it is off there.

    Where an activation lies within rounding of 0, ReLU lets one step see it and the other not,
    and the gradients differ by what hangs on it: ResNet-20 was off by 1 %, torch by 0.7 %, on one
    batch of three, and by 2e-5 on another. An error of ours is there on every batch.

    Raises:
        Wrong: off on all of them; the text is of the first.
    """
    errors: list[Wrong] = []
    for number in range(BATCHES):
        images = batch[0]
        if number:
            generator = torch.Generator().manual_seed(OTHERS + number)
            images = torch.empty_like(images).copy_(torch.randn(images.shape, generator=generator))
        other = images, batch[1]
        twin = _Stepped(Stepper(to_dense(sparse), other, plain=True), sparse)
        try:
            ours = _stepped(sparse, other, mode, False)
            return _exact(ours, twin, partial(_in_float64, sparse, other))
        except Wrong as error:
            errors.append(error)
    raise errors[0]


def _in_float64(sparse: nn.Module, batch: Batch) -> _Stepped:
    doubled = batch[0].double(), batch[1]
    return _Stepped(Stepper(to_dense(sparse).double(), doubled, plain=True), sparse)


class _Stepped:
    """One first step: its loss, its updates and its weights, in the sparse network's layout."""

    def __init__(self, stepper: Stepper, sparse: nn.Module) -> None:
        patterns = {
            name: module.pattern
            for name, module in sparse.named_modules()
            if isinstance(module, BlockSparseConv2d)
        }
        before = {name: p.detach().clone() for name, p in stepper.network.named_parameters()}
        self.loss = float(stepper().double())
        after = dict(stepper.network.named_parameters())
        self.update: dict[str, Tensor] = {}
        self.slip = 0.0
        for name, update in stepper.updates().items():
            moved = before[name].double() - LR * update.double()
            slip = _norm(after[name].detach().double() - moved) / max(_norm(moved), TINY)
            self.slip = max(self.slip, slip)
            layer = name.removesuffix(".weight")
            if name != layer and layer in patterns and not name.endswith(".values"):
                name, update = f"{layer}.values", patterns[layer].pack(update)
            self.update[name] = update.double()


def _stepped(sparse: nn.Module, batch: Batch, mode: str, amp: bool) -> _Stepped:
    """Step a copy of the network for the first time, as it is timed: compiled, captured."""
    network = copy.deepcopy(sparse)
    stepper = Stepper(network, batch, mode, amp)
    if mode != "eager":
        stepper.prepare()  # which steps
        with torch.no_grad():
            for ours, first in zip(_tensors(network), _tensors(sparse), strict=True):
                ours.copy_(first)
        stepper.forget()
    return _Stepped(stepper, sparse)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _exact(ours: _Stepped, twin: _Stepped, in_float64: Callable[[], _Stepped]) -> dict[str, float]:
    """Compare parameter by parameter.

    Args:
        in_float64: makes the twin's step in float64, where one is needed.

    Raises:
        Wrong: beyond the bounds of float32, and of what the network makes of rounding.
    """
    loss = _relative(ours.loss, twin.loss)
    _refuse_unless(loss <= LOSS, f"its loss is {ours.loss:.6g}, the twin's {twin.loss:.6g}")
    if ours.update.keys() != twin.update.keys():
        other = sorted(ours.update.keys() ^ twin.update.keys())
        raise Wrong(f"expected the twin's parameters, got others: {', '.join(other[:3])}")
    _refuse_unless(ours.slip <= WEIGHTS, SLIPPED)
    floor = FLOOR * _whole(twin.update)
    off = {name: _norm(ours.update[name] - theirs) for name, theirs in twin.update.items()}
    bounds = {name: UPDATE * _norm(theirs) + floor for name, theirs in twin.update.items()}
    found = {"loss": loss, "weights": ours.slip}
    if not all(off[name] <= bounds[name] for name in off):
        true = in_float64().update
        own = {name: _norm(twin.update[name] - true[name]) for name in off}
        off = {name: _norm(ours.update[name] - true[name]) for name in off}
        bounds = {name: bound + FACTOR * own[name] for name, bound in bounds.items()}
        found["twin_update"] = max(own[n] / max(_norm(true[n]), floor, TINY) for n in off)
    for name, bound in bounds.items():
        told = f"the update of {name} is off by {off[name]:.3g}, with {bound:.3g} allowed"
        _refuse_unless(off[name] <= bound, told)
    worst = max(off[n] / max(_norm(theirs), floor, TINY) for n, theirs in twin.update.items())
    return found | {"update": worst}


def _rough(ours: _Stepped, yardstick: _Stepped, twin: _Stepped) -> dict[str, float]:
    """Compare the whole with what bfloat16 does to the twin.

    Raises:
        Wrong: further off than ``AMP_FACTOR`` times that.
    """
    whole = _whole(twin.update)
    found = {}
    for name, step in (("amp", ours), ("amp_twin", yardstick)):
        found[f"{name}_loss"] = _relative(step.loss, twin.loss)
        off = {key: step.update[key] - theirs for key, theirs in twin.update.items()}
        found[f"{name}_update"] = _whole(off) / max(whole, TINY)
    for what in ("loss", "update"):
        got, bound = found[f"amp_{what}"], AMP_FACTOR * found[f"amp_twin_{what}"] + 1e-2
        told = f"in bfloat16 its {what} is off by {got:.3g}, with {bound:.3g} allowed"
        _refuse_unless(got <= bound, told)
    _refuse_unless(ours.slip <= WEIGHTS, SLIPPED)
    return found


def _refuse_unless(right: bool, told: str) -> None:
    if not right:  # NaN is not right either
        raise Wrong(told)


def _relative(value: float, reference: float) -> float:
    return abs(value - reference) / max(abs(reference), TINY)


def _norm(tensor: Tensor) -> float:
    return float(tensor.norm())


def _whole(update: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(_norm(each) ** 2 for each in update.values()))
