"""Real scores: weight magnitudes of two networks, before and after training on the digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.accuracy.data import Split, digits
from bench.accuracy.models import DigitsCNN, ResidualBlock
from bench.accuracy.plan import AccuracyPlan
from bench.accuracy.train import Training


class CifarStyle(nn.Module):
    """[N, 3, 16, 16] -> logits [N, 10]: a residual network of CIFAR's form, 64-128-256 wide."""

    WIDTHS = (64, 128, 256)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, self.WIDTHS[0], 3, padding=1, bias=False)
        layers: list[nn.Module] = [ResidualBlock(self.WIDTHS[0])]
        for narrow, wide in zip(self.WIDTHS, self.WIDTHS[1:], strict=False):
            down = nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False)
            layers += [down, nn.BatchNorm2d(wide), nn.ReLU(), ResidualBlock(wide)]
        self.blocks = nn.Sequential(*layers)
        self.classifier = nn.Linear(self.WIDTHS[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, 10]."""
        y = self.blocks(functional.relu(self.stem(x)))
        logits: Tensor = self.classifier(y.mean((2, 3)))
        return logits


def enlarged_digits() -> Split:
    """Return the digits as 16x16 images of three equal channels."""
    split = digits()
    train_x, test_x = (
        functional.interpolate(x, scale_factor=2, mode="bilinear")
        .expand(-1, 3, -1, -1)
        .contiguous(memory_format=torch.channels_last)
        for x in (split.train_x, split.test_x)
    )
    return replace(split, train_x=train_x, test_x=test_x)


class Source(NamedTuple):
    """A network, what it is trained on and for how long, and the layer whose weight is scored."""

    make: Callable[[], nn.Module]
    data: Callable[[], Split]
    epochs: int
    layer: str


SOURCES = {
    "digits": Source(DigitsCNN, digits, 10, "blocks.1.conv1"),
    "cifar_style": Source(CifarStyle, enlarged_digits, 5, "blocks.8.conv1"),
}
STATES = ("untrained", "trained")
NAMES = tuple(f"{name}_{state}" for name in SOURCES for state in STATES)


@cache
def magnitudes(name: str, seed: int) -> Tensor:
    """Return |weight| [K, C, R, S] of one layer of a network of ``NAMES``.

    Training takes some seconds; its result is not bit-equal between machines, so a line of
    results carries the scores' hash.
    """
    network_name, state = name.rsplit("_", 1)
    source = SOURCES[network_name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = source.make().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if state == "trained":
            plan = AccuracyPlan(epochs=source.epochs)
            split = source.data()
            outcome = Training(network, split, plan, seed, len(split.train_y)).run()
            if outcome.reason is not None:
                raise RuntimeError(f"expected {name} to train, but {outcome.reason}")
    weight = network.get_submodule(source.layer).weight
    return weight.detach().abs().contiguous()  # type: ignore[union-attr, operator]
