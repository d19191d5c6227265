"""The layers that suites are made of, each table from its paper. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from hrbp_core.shapes import ConvShape


@dataclass(frozen=True)
class Layer:
    """One layer of a suite: a name and its extents at batch 1."""

    name: str
    shape: ConvShape


def _conv(name: str, size: int, c: int, k: int, kernel: int = 3, stride: int = 1) -> Layer:
    padding = (kernel // 2, kernel // 2)
    return Layer(name, ConvShape(1, c, size, size, k, kernel, kernel, (stride, stride), padding))


RESNET50 = (
    _conv("conv2_3x3", 56, 64, 64),
    _conv("conv2_expand", 56, 64, 256, 1),
    _conv("conv2_reduce", 56, 256, 64, 1),
    _conv("conv3_3x3_s2", 56, 128, 128, 3, 2),
    _conv("conv3_3x3", 28, 128, 128),
    _conv("conv3_expand", 28, 128, 512, 1),
    _conv("conv3_reduce", 28, 512, 128, 1),
    _conv("conv4_3x3_s2", 28, 256, 256, 3, 2),
    _conv("conv4_3x3", 14, 256, 256),
    _conv("conv4_expand", 14, 256, 1024, 1),
    _conv("conv4_reduce", 14, 1024, 256, 1),
    _conv("conv5_3x3_s2", 14, 512, 512, 3, 2),
    _conv("conv5_3x3", 7, 512, 512),
    _conv("conv5_expand", 7, 512, 2048, 1),
    _conv("conv5_reduce", 7, 2048, 512, 1),
)
VGG16 = (
    _conv("conv1_2", 224, 64, 64),
    _conv("conv2_1", 112, 64, 128),
    _conv("conv2_2", 112, 128, 128),
    _conv("conv3_1", 56, 128, 256),
    _conv("conv3_2", 56, 256, 256),
    _conv("conv4_1", 28, 256, 512),
    _conv("conv4_2", 28, 512, 512),
    _conv("conv5", 14, 512, 512),
)
WRN28_10 = (
    _conv("conv2", 32, 160, 160),
    _conv("conv3_s2", 32, 160, 320, 3, 2),
    _conv("conv3", 16, 320, 320),
    _conv("conv4_s2", 16, 320, 640, 3, 2),
    _conv("conv4", 8, 640, 640),
)
