"""Two dense ways to as few multiply-adds: grouped convolutions, and fewer channels."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from bench.accuracy.models import MODELS, make, step_multiply_adds

_HALVINGS = 14  # of the interval that the scale lies in: 1 / 16384 of it


def group_count(conv: nn.Conv2d, density: float) -> int:
    """Return how many groups bring the multiply-adds closest to ``density``, as a ratio."""
    most = math.gcd(conv.in_channels, conv.out_channels)
    counts = [n for n in range(1, most + 1) if most % n == 0]
    return min(counts, key=lambda n: abs(math.log(n * density)))


@torch.no_grad()
def grouped(conv: nn.Conv2d, density: float) -> nn.Conv2d:
    """Return torch's grouped convolution with the weights of the blocks on ``conv``'s diagonal."""
    groups = group_count(conv, density)
    made = nn.utils.skip_init(
        nn.Conv2d, conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride,
        conv.padding, conv.dilation, groups, conv.bias is not None, conv.padding_mode,
        device=conv.weight.device, dtype=conv.weight.dtype,
    )  # fmt: skip
    rows = conv.weight.chunk(groups, 0)
    made.weight.copy_(torch.cat([row.chunk(groups, 1)[i] for i, row in enumerate(rows)]))
    if conv.bias is not None:
        made.bias.copy_(conv.bias)
    layout = torch.channels_last
    return made.to(memory_format=layout)  # type: ignore[call-overload, no-any-return]


def thin(
    model: str, seed: int, dense: nn.Module, densities: Mapping[str, float], classes: int
) -> nn.Module:
    """Return ``model`` with all hidden channels scaled, to the multiply-adds of these densities.

    Its weights are drawn anew, by the same seed. The multiply-adds of a training step are the
    closest to the sparse network's that a scale of all layers reaches.

    Args:
        dense: the whole network. densities: of its sparse layers, by name.
    """
    kept = {
        name: round(density * dense.get_submodule(name).weight.numel())  # type: ignore[operator]
        for name, density in densities.items()
    }
    wanted = _cost(model, 1.0, classes, kept)
    low, high = 0.0, 1.0
    best = 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        cost = _cost(model, middle, classes, {})
        if abs(cost - wanted) < abs(_cost(model, best, classes, {}) - wanted):
            best = middle
        low, high = (middle, high) if cost < wanted else (low, middle)
    return make(model, seed, classes=classes, scale=best)


def _cost(model: str, scale: float, classes: int, kept: Mapping[str, int]) -> int:
    """Return the multiply-adds of a step on one image; nothing is computed."""
    with torch.device("meta"):
        network = MODELS[model].make(classes=classes, scale=scale)
        images = torch.empty(1, *MODELS[model].image)
    return step_multiply_adds(network, images, kept)
