"""The networks of the accuracy runs, and what a training step of them costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm around an identity: x -> relu(x + f(x))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return y [N, channels, H, W] of x, the same extents."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(x + self.norm2(self.conv2(y)))


class DigitsCNN(nn.Module):
    """[N, 1, 8, 8] -> logits [N, 10]: a stem, two residual blocks, pooling, a classifier.

    The stem halves the image to 4x4: the four convolutions behind it then cost a quarter, and
    a sweep fits two processor cores. Stem and classifier stay dense.
    """

    CHANNELS = 128

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, self.CHANNELS, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(self.CHANNELS)
        self.blocks = nn.Sequential(ResidualBlock(self.CHANNELS), ResidualBlock(self.CHANNELS))
        self.classifier = nn.Linear(self.CHANNELS, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, 10]."""
        y = self.blocks(functional.relu(self.norm(self.stem(x))))
        logits: Tensor = self.classifier(y.mean((2, 3)))
        return logits


MODELS: Mapping[str, Callable[[], nn.Module]] = {"digits-cnn": DigitsCNN}


def make(model: str, seed: int) -> nn.Module:
    """Return the dense network with the initial weights of ``seed``, channels_last, on the CPU.

    The caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[model]().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def sparse_convs(network: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the dense convolutions that a sparse arm replaces, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and name.startswith("blocks.")
    }


def step_multiply_adds(network: nn.Module, images: Tensor, kept: Mapping[str, int]) -> int:
    """Return the multiply-adds of one training step's convolutions and linear layers.

    Forward, and backward for weights and, where the input needs a gradient, for the input.
    Normalisation, activations and the optimizer are left out.

    Args:
        images: the step's batch.
        kept: name -> kept weights, for the layers that are not dense.
    """
    total = 0

    def count(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal total
            weights = kept.get(name)
            if weights is None:
                weights = module.weight.numel()
            places = output.shape[0] * (output[0, 0].numel() if output.dim() == 4 else 1)
            total += weights * places * (2 + int(inputs[0].requires_grad))

        return hook

    hooks = [
        module.register_forward_hook(count(name))
        for name, module in network.named_modules()
        if name in kept or isinstance(module, nn.Conv2d | nn.Linear)
    ]
    training = network.training
    try:
        network.eval()(images)  # eval: BatchNorm's running statistics stay as they are
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return total
