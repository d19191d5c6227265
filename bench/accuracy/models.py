"""The networks of the accuracy runs, and what a training step of them costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.accuracy.resnets import resnet18, resnet20, resnet32, resnet50, scaled
from bench.accuracy.vggs import vgg16, vgg19
from bench.accuracy.wide_resnets import wrn22_2, wrn28_10


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
    """[N, 1, 8, 8] -> logits [N, classes]: a stem, two residual blocks, pooling, a classifier.

    The stem halves the image to 4x4: the four convolutions behind it then cost a quarter, and
    a sweep fits two processor cores. Stem and classifier stay dense.
    """

    CHANNELS = 128

    def __init__(self, classes: int = 10, *, scale: float = 1.0) -> None:
        super().__init__()
        channels = scaled(self.CHANNELS, scale)
        self.stem = nn.Conv2d(1, channels, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.blocks = nn.Sequential(ResidualBlock(channels), ResidualBlock(channels))
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, classes]."""
        y = self.blocks(functional.relu(self.norm(self.stem(x))))
        logits: Tensor = self.classifier(y.mean((2, 3)))
        return logits


@dataclass(frozen=True)
class Network:
    """How a network is made, and for which data.

    Attributes:
        make: returns the network; takes ``classes=`` and ``scale=`` (of all hidden channels),
            and no argument is needed. Torch's random state decides the weights.
        image: (channels, height, width) of what it sees.
        classes: how many logits ``make()`` gives.
    """

    make: Callable[..., nn.Module]
    image: tuple[int, int, int]
    classes: int


def _cifar(factory: Callable[..., nn.Module], **options: Any) -> Network:
    return Network(partial(factory, classes=10, **options), (3, 32, 32), 10)


def _imagenet(factory: Callable[..., nn.Module]) -> Network:
    return Network(partial(factory, classes=1000), (3, 224, 224), 1000)


MODELS: Mapping[str, Network] = {
    "digits-cnn": Network(DigitsCNN, (1, 8, 8), 10),
    "resnet20": _cifar(resnet20),
    "resnet32": _cifar(resnet32),
    "resnet32_x2": _cifar(resnet32, width=2),
    "resnet18": _cifar(resnet18, small_images=True),
    "vgg16": _cifar(vgg16, small_images=True),
    "vgg19": _cifar(vgg19, small_images=True),
    "wrn22_2": _cifar(wrn22_2),
    "wrn28_10": _cifar(wrn28_10),
    "resnet50": _imagenet(resnet50),
    "resnet18_imagenet": _imagenet(resnet18),
    "vgg16_imagenet": _imagenet(vgg16),
    "vgg19_imagenet": _imagenet(vgg19),
}


def _entry(name: str) -> Network:
    """Return the entry ``name`` of ``MODELS``.

    Raises:
        ValueError: an unknown name.
    """
    if name not in MODELS:
        raise ValueError(f"expected a model of {', '.join(MODELS)}; got {name!r}")
    return MODELS[name]


def make(model: str, seed: int, *, classes: int | None = None, scale: float = 1.0) -> nn.Module:
    """Return the dense network with the initial weights of ``seed``, channels_last, on the CPU.

    The caller's random state is left as it was, on every device.

    Args:
        model: a name in ``MODELS``.
        classes: None for those of the network's data.
        scale: multiplies all hidden channels; 1 is the network as published.

    Raises:
        ValueError: an unknown name.
    """
    options: dict[str, Any] = {} if classes is None else {"classes": classes}
    if scale != 1:
        options["scale"] = scale
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the accelerators too, which are not forked
        torch.default_generator.manual_seed(seed)
        dense = _entry(model).make(**options)
    return dense.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def example_batch(name: str, batch: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return (images, labels) that the network ``name`` can be trained on, the same each time.

    Images are N(0, 1), float32 [batch, channels, height, width], channels_last, on the CPU;
    labels are uniform, int64 [batch]. The caller's random state is left as it was.

    Raises:
        ValueError: an unknown name.
    """
    facts = _entry(name)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, *facts.image, generator=generator, dtype=torch.float32)
    labels = torch.randint(facts.classes, (batch,), generator=generator)
    return images.contiguous(memory_format=torch.channels_last), labels


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
