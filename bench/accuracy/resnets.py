"""Residual networks: ResNet-18 and ResNet-50, and the narrow ResNets of depth 6n + 2 for CIFAR.

Source: He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, CVPR 2016.
ResNet-18 and ResNet-50 name their layers as torchvision does (timm's names are the same), so
that a checkpoint of either loads with ``strict=True``. The narrow ones carry these names too,
as in chenyaofo's pytorch-cifar-models.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


def kaiming_init(network: nn.Module) -> None:
    """Draw the convolutions' weights from N(0, 2 / fan_out); set their biases to zero.

    Source: He, Zhang, Ren and Sun, Delving Deep into Rectifiers, ICCV 2015; fan_out, as
    torchvision does. BatchNorm keeps torch's weight 1 and bias 0, linear layers keep torch's
    default.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def scaled(channels: int, scale: float) -> int:
    """Return so many times the channels, rounded, one at least."""
    return max(1, round(channels * scale))


class BasicBlock(nn.Module):
    """[N, in_channels, H, W] -> [N, channels, P, Q]: two 3x3 convolutions around a shortcut.

    P = ceil(H / stride), Q likewise. Layer names: torchvision's.
    """

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _downsample(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return y [N, channels, P, Q] of x [N, in_channels, H, W]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y + shortcut)
        return out


class Bottleneck(nn.Module):
    """[N, in_channels, H, W] -> [N, 4 channels, P, Q]: 1x1, 3x3 and 1x1 around a shortcut.

    P = ceil(H / stride), Q likewise. The stride is the 3x3 layer's, as in torchvision ("ResNet
    v1.5"); the paper strides in the first 1x1. Layer names: torchvision's.
    """

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return y [N, 4 channels, P, Q] of x [N, in_channels, H, W]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y + shortcut)
        return out


Block = type[BasicBlock] | type[Bottleneck]


def _downsample(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Return the projection of a shortcut whose extents change; None where x itself fits."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _stage(
    block: Block, in_channels: int, channels: int, blocks: int, stride: int = 1
) -> nn.Sequential:
    """Return ``blocks`` blocks; the first takes the new extents."""
    first = block(in_channels, channels, stride)
    rest = (block(channels * block.expansion, channels) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


class ResNet(nn.Module):
    """[N, 3, H, W] -> logits [N, classes]: a stem, four stages, pooling, a classifier.

    Layer names: torchvision's.

    Args:
        block: BasicBlock or Bottleneck.
        blocks: how many, stage by stage.
        small_images: the stem is a 3x3 convolution of stride 1, and ``maxpool`` does nothing
            (the common CIFAR form of these networks; the paper has none). All names stay.
        scale: multiplies all hidden channels.
    """

    def __init__(
        self,
        block: Block,
        blocks: tuple[int, int, int, int],
        classes: int = 1000,
        *,
        small_images: bool = False,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        kernel_size, stride = (3, 1) if small_images else (7, 2)
        one, two, three, four = (scaled(c, scale) for c in (64, 128, 256, 512))
        self.conv1 = nn.Conv2d(
            3, one, kernel_size, stride=stride, padding=kernel_size // 2, bias=False
        )
        self.bn1 = nn.BatchNorm2d(one)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small_images else nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(block, one, one, blocks[0])
        self.layer2 = _stage(block, one * block.expansion, two, blocks[1], stride=2)
        self.layer3 = _stage(block, two * block.expansion, three, blocks[2], stride=2)
        self.layer4 = _stage(block, three * block.expansion, four, blocks[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(four * block.expansion, classes)
        kaiming_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, classes] of x [N, 3, H, W]."""
        y = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        y = self.layer4(self.layer3(self.layer2(self.layer1(y))))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(y), 1))
        return logits


class CifarResNet(nn.Module):
    """[N, 3, H, W] -> logits [N, classes]: a stem, three stages, pooling, a classifier.

    The paper's section 4.2, but for the two shortcuts whose extents change: they are 1x1
    convolutions with BatchNorm (the paper's option B) where it pads with zeros (option A),
    2,752 parameters more at width 1. Layer names: torchvision's, as far as there are layers.

    Args:
        depth: 6n + 2; each stage has n blocks of two convolutions.
        width, scale: multiply the 16, 32 and 64 channels of the stages, and the stem's 16.

    Raises:
        ValueError: a depth that is not 6n + 2.
    """

    def __init__(
        self, depth: int, classes: int = 10, *, width: int = 1, scale: float = 1.0
    ) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"expected a depth of 6n + 2, at least 8; got {depth}")
        blocks, channels = (depth - 2) // 6, scaled(16 * width, scale)
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(BasicBlock, channels, channels, blocks)
        self.layer2 = _stage(BasicBlock, channels, 2 * channels, blocks, stride=2)
        self.layer3 = _stage(BasicBlock, 2 * channels, 4 * channels, blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * channels, classes)
        kaiming_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, classes] of x [N, 3, H, W]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.layer3(self.layer2(self.layer1(y)))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(y), 1))
        return logits


def resnet18(classes: int = 1000, *, small_images: bool = False, scale: float = 1.0) -> ResNet:
    """Return ResNet-18: [N, 3, H, W] -> logits [N, classes]."""
    return ResNet(BasicBlock, (2, 2, 2, 2), classes, small_images=small_images, scale=scale)


def resnet50(classes: int = 1000, *, small_images: bool = False, scale: float = 1.0) -> ResNet:
    """Return ResNet-50: [N, 3, H, W] -> logits [N, classes]."""
    return ResNet(Bottleneck, (3, 4, 6, 3), classes, small_images=small_images, scale=scale)


def resnet20(classes: int = 10, *, width: int = 1, scale: float = 1.0) -> CifarResNet:
    """Return CIFAR's ResNet-20: [N, 3, H, W] -> logits [N, classes]."""
    return CifarResNet(20, classes, width=width, scale=scale)


def resnet32(classes: int = 10, *, width: int = 1, scale: float = 1.0) -> CifarResNet:
    """Return CIFAR's ResNet-32: [N, 3, H, W] -> logits [N, classes].

    Width 2 is the form of GraSP (Wang, Zhang and Grosse, ICLR 2020).
    """
    return CifarResNet(32, classes, width=width, scale=scale)
