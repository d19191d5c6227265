"""VGG-16 and VGG-19 with BatchNorm, for ImageNet and for small images.

Source: Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image
Recognition, ICLR 2015 (configurations D and E); BatchNorm behind every convolution, as in
torchvision, whose layer names these are: ``features.N``, ``avgpool``, ``classifier``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.accuracy.resnets import kaiming_init, scaled

# filters of the convolutions between two poolings
Stages = tuple[tuple[int, ...], ...]
VGG16: Stages = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
VGG19: Stages = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)

HIDDEN = 4096  # features of the two hidden linear layers of the ImageNet form
POOLED = 7  # height and width of what these layers see: 224 after five halvings


class VGG(nn.Module):
    """[N, 3, H, W] -> logits [N, classes]: convolutions and pooling, then linear layers.

    H and W are at least 32. Initialisation as torchvision's: :func:`kaiming_init` for
    convolutions, N(0, 0.01 squared) and bias zero for linear layers, in both forms.

    Args:
        stages: the filters of each convolution, stage by stage; each stage ends in a pooling.
        small_images: average over what is left of the image, and have one linear layer,
            ``classifier`` (kuangliu's pytorch-cifar: 14,728,266 and 20,040,522 parameters for
            10 classes); else torchvision's three, ``classifier.0``, ``.3`` and ``.6``.
        scale: multiplies the filters, and the features of hidden linear layers.
    """

    def __init__(
        self, stages: Stages, classes: int = 1000, *, small_images: bool = False,
        scale: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        stages = tuple(tuple(scaled(c, scale) for c in stage) for stage in stages)
        self.features = _features(stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1 if small_images else POOLED)
        channels = stages[-1][-1]
        self.classifier: nn.Module = (
            nn.Linear(channels, classes)
            if small_images
            else _classifier(channels, classes, scaled(HIDDEN, scale))
        )
        kaiming_init(self)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, classes] of x [N, 3, H, W]."""
        y = self.avgpool(self.features(x))
        logits: Tensor = self.classifier(torch.flatten(y, 1))
        return logits


def _features(stages: Stages) -> nn.Sequential:
    """Return the convolutions (with bias, as torchvision's), BatchNorms, ReLUs and poolings."""
    layers: list[nn.Module] = []
    in_channels = 3
    for stage in stages:
        for channels in stage:
            layers += [
                nn.Conv2d(in_channels, channels, 3, padding=1),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
            in_channels = channels
        layers.append(nn.MaxPool2d(2, stride=2))
    return nn.Sequential(*layers)


def _classifier(channels: int, classes: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels * POOLED**2, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(hidden, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(hidden, classes),
    )


def vgg16(classes: int = 1000, *, small_images: bool = False, scale: float = 1.0) -> VGG:
    """Return VGG-16 with BatchNorm: [N, 3, H, W] -> logits [N, classes]."""
    return VGG(VGG16, classes, small_images=small_images, scale=scale)


def vgg19(classes: int = 1000, *, small_images: bool = False, scale: float = 1.0) -> VGG:
    """Return VGG-19 with BatchNorm: [N, 3, H, W] -> logits [N, classes]."""
    return VGG(VGG19, classes, small_images=small_images, scale=scale)
