"""Wide residual networks for CIFAR: BatchNorm and ReLU stand before the convolutions.

Source: Zagoruyko and Komodakis, Wide Residual Networks, BMVC 2016. Layer names: xternalz's
WideResNet-pytorch. RigL's WRN-22-2 (Evci et al., ICML 2020) is the same form; by default it drops
30 % of the activations, and TensorFlow pads its strided convolutions on one side only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.accuracy.resnets import kaiming_init, scaled


class WideBlock(nn.Module):
    """[N, in_channels, H, W] -> [N, channels, P, Q]: two 3x3 convolutions around a shortcut.

    P = ceil(H / stride), Q likewise. With a = relu(bn1(x)) the result is
    conv2(dropout(relu(bn2(conv1(a))))) + x; where the extents change, convShortcut(a) stands
    for x.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU(inplace=True)
        # a module, not functional.dropout: a traced graph would keep the mode it was traced in
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.convShortcut = None
        if stride != 1 or in_channels != channels:
            self.convShortcut = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return y [N, channels, P, Q] of x [N, in_channels, H, W]."""
        active = self.relu1(self.bn1(x))
        y: Tensor = self.relu2(self.bn2(self.conv1(active)))
        y = self.conv2(self.dropout(y))
        return y + (x if self.convShortcut is None else self.convShortcut(active))


class WideStage(nn.Module):
    """[N, in_channels, H, W] -> [N, channels, P, Q]: blocks, of which the first has the stride.

    P = ceil(H / stride), Q likewise. A class of its own for the sake of the names: the blocks
    are ``layer.0``, ``layer.1``, ...
    """

    def __init__(
        self, blocks: int, in_channels: int, channels: int, stride: int, dropout: float
    ) -> None:
        super().__init__()
        first = WideBlock(in_channels, channels, stride, dropout)
        rest = (WideBlock(channels, channels, 1, dropout) for _ in range(blocks - 1))
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Return y [N, channels, P, Q] of x [N, in_channels, H, W]."""
        y: Tensor = self.layer(x)
        return y


class WideResNet(nn.Module):
    """[N, 3, H, W] -> logits [N, classes]: a stem, three stages, pooling, a classifier.

    Initialisation: :func:`kaiming_init`; the classifier keeps torch's default (xternalz sets
    its bias to zero).

    Args:
        depth: 6n + 4; each stage has n blocks of two convolutions.
        width: multiplies the 16, 32 and 64 channels of the stages; the stem has 16.
        scale: multiplies all of them.
        dropout: the fraction of activations dropped between a block's convolutions.

    Raises:
        ValueError: a depth that is not 6n + 4.
    """

    def __init__(
        self, depth: int, width: int, classes: int = 10, *, dropout: float = 0.0,
        scale: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"expected a depth of 6n + 4, at least 10; got {depth}")
        blocks, channels, stem = (depth - 4) // 6, scaled(16 * width, scale), scaled(16, scale)
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.block1 = WideStage(blocks, stem, channels, 1, dropout)
        self.block2 = WideStage(blocks, channels, 2 * channels, 2, dropout)
        self.block3 = WideStage(blocks, 2 * channels, 4 * channels, 2, dropout)
        self.bn1 = nn.BatchNorm2d(4 * channels)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * channels, classes)
        kaiming_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, classes] of x [N, 3, H, W]."""
        y = self.block3(self.block2(self.block1(self.conv1(x))))
        y = self.avgpool(self.relu(self.bn1(y)))
        logits: Tensor = self.fc(torch.flatten(y, 1))
        return logits


def wrn22_2(classes: int = 10, *, dropout: float = 0.0, scale: float = 1.0) -> WideResNet:
    """Return WRN-22-2: [N, 3, H, W] -> logits [N, classes]."""
    return WideResNet(22, 2, classes, dropout=dropout, scale=scale)


def wrn28_10(classes: int = 10, *, dropout: float = 0.0, scale: float = 1.0) -> WideResNet:
    """Return WRN-28-10: [N, 3, H, W] -> logits [N, classes]."""
    return WideResNet(28, 10, classes, dropout=dropout, scale=scale)
