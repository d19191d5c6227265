"""Keep-scores of a network's convolutions: how much each weight matters, higher is better.

Every rule returns ``{layer name: tensor [K, C, R, S] >= 0}``, detached, on the device of the
layer's weight, for each Conv2d that :func:`hrbp_core.convs.why_dense` lets be sparse, in the order
of the modules. ``skip`` names those to leave out: layers that a loss does not reach, say.

Rules that run the network run a copy, in eval mode (no dropout), so that the model's weights,
buffers, gradients, flags and modes are never touched, nor is the caller's random state. Frozen
weights are scored like others. With ``bn="batch"`` BatchNorm normalises by the batch, as the
published code of SNIP and GraSP does; with "running" by its running statistics, which at
initialisation are the identity.

Every rule raises:
    TypeError: ``skip`` as one string, a batch of another form.
    ValueError: an unknown layer, no convolution that can be sparse, an argument out of range, a
        layer that the loss does not reach, weights, gradients or scores that are NaN or infinite.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hrbp_core.convs import arguments, check_names, convolutions, why_dense

RULES = ("random", "magnitude", "snip", "grasp", "synflow")

Scores = dict[str, Tensor]
Names = Collection[str]
Batch = tuple[Any, Tensor]
Shares = list[tuple[tuple[Any, ...], Tensor, float]]  # positional arguments, targets, share
Loss = Callable[[Any, Tensor], Tensor]


def random(model: nn.Module, *, seed: int = 0, skip: Names = ()) -> Scores:
    """Return float32 draws from [0, 1): one generator, seeded, draws all layers in their order."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"expected seed as an int >= 0, got {seed!r}")
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on every device
    return {
        name: torch.rand(weight.shape, generator=generator).to(weight.device)
        for name, weight in _weights(model, _layers(model, skip)).items()
    }


def magnitude(model: nn.Module, *, skip: Names = ()) -> Scores:
    """Return |w|."""
    weights = _weights(model, _layers(model, skip))
    return _finite("weights", {name: _wide(w.detach()).abs() for name, w in weights.items()})


def snip(
    model: nn.Module,
    *batches: Batch,
    loss: Loss = nn.functional.cross_entropy,
    bn: str = "batch",
    normalise: str = "global",
    skip: Names = (),
) -> Scores:
    """Return |w * g|, g the gradient of the loss: SNIP (Lee et al., ICLR 2019).

    The weights are scored as they are; the paper's code initialises the network anew first.

    Args:
        batches: (inputs, targets) each; inputs are a tensor or a tuple of positional arguments.
            Gradients of several are averaged, weighted by their numbers of targets.
        loss: of (outputs, targets), one number; a mean over the targets.
        normalise: to sum 1 (0 stays 0): all scores ("global", as published) or each "layer".
    """
    if normalise not in ("global", "layer"):
        raise ValueError(f"expected normalise as 'global' or 'layer', got {normalise!r}")
    layers, shares = _layers(model, skip), _shares(batches)
    with _copied(model, bn) as net:
        weights = _weights(net, layers)
        gradients = _sum(_slopes_of_each(net, weights, shares, loss), needed=layers)
        scores = _products("w * g", weights, gradients)
    sums = {name: float(s.abs().sum(dtype=torch.float64)) for name, s in scores.items()}
    parts = sums if normalise == "layer" else dict.fromkeys(sums, sum(sums.values()))
    return {name: s.abs() / (parts[name] or 1.0) for name, s in scores.items()}


def grasp(
    model: nn.Module,
    *batches: Batch,
    loss: Loss = nn.functional.cross_entropy,
    bn: str = "batch",
    temperature: float = 200.0,
    skip: Names = (),
) -> Scores:
    """Return w * Hg minus its minimum over all layers: GraSP (Wang et al., ICLR 2020).

    GraSP removes the weights with the highest -w * Hg, those without which the gradient flows
    best; so w * Hg says what to keep, and the shift only makes it >= 0. Differences between scores
    mean something, sums of them do not. H and g belong to the weights of all convolutions and
    linear layers, as in the published code; convolutions alone are returned.

    Args:
        batches, loss: as for :func:`snip`; g is their mean gradient, H their mean Hessian.
        temperature: the loss is that of outputs / temperature.
    """
    if not temperature > 0:
        raise ValueError(f"expected temperature > 0, got {temperature}")
    layers, shares = _layers(model, skip), _shares(batches)
    with _copied(model, bn) as net:
        names = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        weights = {n: w for n, w in _weights(net, names).items() if w.is_leaf and w.requires_grad}
        slopes = functools.partial(
            _slopes_of_each, net, weights, shares, lambda y, targets: loss(y / temperature, targets)
        )
        gradients = _sum(slopes(), needed=layers)
        along = (
            sum(((gradients[name] * s).sum() for name, s in part.items()), torch.zeros(()))
            for part in slopes(create_graph=True)
        )
        products = _sum(_slopes(value, weights) for value in along)
        scores = _products("w * Hg", {name: weights[name] for name in layers}, products)
    least = min(float(score.min()) for score in scores.values())
    return {name: score - least for name, score in scores.items()}


def synflow(
    model: nn.Module,
    example: Any,
    *,
    density: float,
    rounds: int = 100,
    dtype: torch.dtype = torch.float64,
    skip: Names = (),
) -> Scores:
    """Return |w * dR/dw|, R the output of a network of |w| for ones.

    SynFlow (Tanaka et al., NeurIPS 2020) needs no data. Round k of n scores the network, then keeps
    its best density**(k/n) of all scored weights, counted exactly; of equal ones, the first. The
    last round's scores are returned, 0 where dropped before: their best ``density`` is its mask.

    Args:
        example: the model's input, or a tuple of its positional arguments; floats become ones.
        density, rounds: in (0, 1], of the scored layers together, in n >= 1 rounds.
        dtype: float32 or float64. R grows by a factor a layer and leaves a narrower range.
    """
    if not 0 < density <= 1:
        raise ValueError(f"expected density in (0, 1], got {density}")
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"expected rounds as an int >= 1, got {rounds!r}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"expected dtype float32 or float64, got {dtype}")
    layers, scores = _layers(model, skip), dict[str, Tensor]()
    ones = [(tuple(_ones(value, dtype) for value in arguments(example)), torch.empty(0), 1.0)]
    with _copied(model, "running") as net:
        for tensor in [*net.to(dtype).parameters(), *net.buffers()]:
            if tensor.is_floating_point():
                tensor.data.abs_()
        weights = _weights(net, layers)
        for k in range(rounds):
            if k:
                _keep(weights, scores, density ** (k / rounds))
            slopes = _slopes_of_each(net, weights, ones, lambda outputs, _: outputs.sum())
            products = _products("w * dR/dw", weights, _sum(slopes, needed=layers))
            scores = {name: product.abs() for name, product in products.items()}
    return scores


def _ones(value: Any, dtype: torch.dtype) -> Any:
    floats = isinstance(value, Tensor) and value.is_floating_point()
    return torch.ones_like(value, dtype=dtype) if floats else value


def _keep(weights: Scores, scores: Scores, density: float) -> None:
    """Set all weights but the best to 0; of equal ones, the first are kept."""
    device = next(iter(scores.values())).device
    flat = torch.cat([s.flatten().to(device) for s in scores.values()])
    count = max(round(len(flat) * density), 1)
    threshold = flat.kthvalue(len(flat) - count + 1).values
    kept = flat > threshold  # with >= all equal ones would stay
    ties = (flat == threshold).nonzero().flatten()
    kept[ties[: count - int(kept.sum())]] = True
    masks = kept.split([w.numel() for w in weights.values()])
    for weight, mask in zip(weights.values(), masks, strict=True):
        weight.data.mul_(mask.to(weight.device).view_as(weight))


def _layers(model: nn.Module, skip: Names) -> list[str]:
    """Return the names of the layers to score, in the order of the modules."""
    reasons = {name: why_dense(conv) for name, conv in convolutions(model).items()}
    check_names("skip", skip, reasons)
    found = [name for name, why in reasons.items() if why is None and name not in skip]
    if not found:
        said = [f"{name}: {why or 'skipped'}" for name, why in reasons.items()]
        raise ValueError(f"expected a convolution to score, got none ({'; '.join(said) or '-'})")
    return found


def _weights(model: nn.Module, layers: Iterable[str]) -> Scores:
    return {name: model.get_submodule(name).weight for name in layers}  # type: ignore[misc]


@contextlib.contextmanager
def _copied(model: nn.Module, bn: str) -> Iterator[nn.Module]:
    """Give a copy to run in eval mode: what happens to it reaches neither model nor random state.

    Gradients are on and autocast is off: the dtypes are the model's and the caller's.
    """
    if bn not in ("batch", "running"):
        raise ValueError(f"expected bn as 'batch' or 'running', got {bn!r}")
    devices = {p.device for p in model.parameters()}
    cuda = [device for device in devices if device.type == "cuda"]
    uncast = torch.autocast(next(iter(devices)).type, enabled=False)
    with torch.random.fork_rng(cuda), torch.enable_grad(), uncast:
        net = copy.deepcopy(model).eval()
        for module in net.modules():
            if isinstance(module, _BatchNorm):
                module.train(bn == "batch")
        for parameter in net.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        yield net


def _shares(batches: tuple[Batch, ...]) -> Shares:
    """Return the batches, each with its share of all targets."""
    for batch in batches or [()]:
        items = list(batch) if isinstance(batch, tuple | list) else [batch]
        if len(items) != 2 or not isinstance(items[1], Tensor):
            got = ", ".join(type(item).__name__ for item in items)
            raise TypeError(f"expected batches of (inputs, targets as a tensor), got ({got})")
    counts = [targets.shape[0] if targets.dim() else 1 for _, targets in batches]
    whole = max(sum(counts), 1)
    return [(arguments(x), y, n / whole) for (x, y), n in zip(batches, counts, strict=True)]


def _slopes_of_each(
    net: nn.Module, weights: Scores, shares: Shares, loss: Loss, *, create_graph: bool = False
) -> Iterator[Scores]:
    """Give each batch's part in the mean gradients."""
    for inputs, targets, share in shares:
        value = loss(net(*inputs), targets)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise ValueError(f"expected the loss as a tensor of one number, got {value!r:.80}")
        yield _slopes(value * share, weights, create_graph)


def _slopes(value: Tensor, weights: Scores, create_graph: bool = False) -> Scores:
    """Return d value / d weight of the weights that ``value`` depends on."""
    if not value.requires_grad:
        return {}
    every = list(weights.values())
    slopes = torch.autograd.grad(value, every, create_graph=create_graph, allow_unused=True)
    return {name: s for name, s in zip(weights, slopes, strict=True) if s is not None}


def _sum(parts: Iterable[Scores], needed: Iterable[str] = ()) -> Scores:
    """Return the sum of the batches' parts; a needed layer must have one."""
    sums: Scores = {}
    for part in parts:
        for name, values in part.items():
            sums[name] = sums[name] + _wide(values) if name in sums else _wide(values)
    lost = ", ".join(name for name in needed if name not in sums)
    if lost:
        raise ValueError(f"expected a loss that reaches {lost} (or skip to name it), got none")
    return _finite("gradients", sums)


def _products(what: str, weights: Scores, factors: Scores) -> Scores:
    """Return weights * factors, 0 without a factor."""
    found = {name: _wide(w.detach()) * factors.get(name, 0.0) for name, w in weights.items()}
    return _finite(what, found)


def _wide(values: Tensor) -> Tensor:
    """Return float32 or wider: products of half-precision numbers underflow."""
    return values.float() if values.itemsize < 4 else values


def _finite(what: str, found: Scores) -> Scores:
    """Return ``found`` if it holds neither NaN nor infinity."""
    wrong = []
    for name, values in found.items():
        places = (~values.isfinite()).nonzero()
        if len(places):
            first = tuple(places[0].tolist())
            wrong.append(f"{len(places)} of {values.numel()} in {name!r}, the first at {first}")
    if wrong:
        raise ValueError(f"expected finite {what}, got NaN or infinity: {'; '.join(wrong)}")
    return found
