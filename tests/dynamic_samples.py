"""Networks, batches and steps that the tests of dynamic sparse training share."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hrbp_core import BlockSparseConv2d, RigL
from hrbp_core.dynamic import DynamicSparsity, Site
from tests.conversion_samples import converted, model

OPTIMIZERS = ("sgd", "adamw")


def sparse(seed: int = 0, density: float = 0.5, **options: Any) -> Any:
    """Return a float64 network with two sparse layers of 4x4 blocks of 4, 3x3 taps."""
    return copy.deepcopy(_sparse(seed, density, tuple(options.items())))


@lru_cache
def _sparse(seed: int, density: float, options: tuple[tuple[str, Any], ...]) -> nn.Module:
    densities = {"conv1": density, "conv2": density}
    made: nn.Module = converted(model(seed), densities, block=4, seed=seed, **dict(options))[0]
    return made


def layers(network: nn.Module) -> dict[str, BlockSparseConv2d]:
    found = network.named_modules()
    return {name: each for name, each in found if isinstance(each, BlockSparseConv2d)}


def optimizer_of(network: nn.Module, kind: str = "sgd") -> Any:
    if kind == "adamw":
        return torch.optim.AdamW(network.parameters(), 0.01)
    return torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)


def batch(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 + number)
    images = torch.randn(4, 3, 6, 6, generator=generator).double()
    return images, torch.randint(5, (4,), generator=generator)


def loss_of(network: nn.Module, number: int) -> Any:
    images, labels = batch(number)
    return functional.cross_entropy(network(images), labels)


def learn(network: nn.Module, optimizer: Any, number: int) -> None:
    """All of a step but ``dst.step()``."""
    optimizer.zero_grad()
    loss_of(network, number).backward()
    optimizer.step()


def train(network: nn.Module, optimizer: Any, dst: DynamicSparsity, numbers: range) -> None:
    for number in numbers:
        learn(network, optimizer, number)
        dst.step()


class Recording(RigL):
    """RigL that shows the gradients it got."""

    seen: dict[Any, Tensor] = {}

    def growth_scores(self, site: Site, gradient: Tensor | None) -> Tensor:
        assert gradient is not None
        self.seen[site.module] = gradient.clone()
        return super().growth_scores(site, gradient)


class Greedy(RigL):
    """RigL on an adversary's gradients: all growth is wanted in one filter and channel group."""

    uses_gradients = False
    corner = 0

    def growth_scores(self, site: Site, gradient: Tensor | None) -> Tensor:
        scores = torch.full(site.kept.shape, 1e-3, dtype=torch.float64)
        scores[self.corner] += 1
        scores[:, self.corner] += 2
        return scores


def dense_of(layer: BlockSparseConv2d, values: Tensor) -> Tensor:
    return layer.pattern.unpack(values.detach())


def followers_of(parameter: Tensor, optimizer: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the gradient and the optimizer's state of the parameter's shape, by name."""
    if parameter.grad is not None:
        yield "grad", parameter.grad
    for name, kept in optimizer.state[parameter].items():
        if isinstance(kept, Tensor) and kept.shape == parameter.shape:
            yield name, kept
