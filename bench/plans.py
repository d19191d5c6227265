"""The patterns that suites ask of their layers. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.layers import RESNET50, VGG16, WRN28_10, Layer


@dataclass(frozen=True)
class Plan:
    """A pattern that a suite asks of a layer, and how it is laid out."""

    layer: str
    density: float
    block: int
    method: str = "hrbp2"
    balance: str = "none"
    layout: str = "canonical"
    taps: int | None = None


# Eight patterns on four 3x3 layers of ResNet-50: each speed figure of the README has cells here.
QUICK = (
    Plan("conv2_3x3", 0.5, 16),
    Plan("conv3_3x3", 0.5, 32),
    Plan("conv3_3x3", 0.25, 32),
    Plan("conv4_3x3", 0.25, 32),
    Plan("conv4_3x3", 0.25, 64),
    Plan("conv4_3x3", 0.125, 32),
    Plan("conv5_3x3", 0.25, 32),
    Plan("conv5_3x3", 0.125, 32),
)
# Greatest sparsity that still says something of a whole network, by block: (density, block, least
# channels). Below these the floor of coverage is above the density.
_TARGETS = (
    (0.25, 32, 128), (0.25, 64, 256), (0.125, 32, 256), (0.125, 64, 512), (0.1, 32, 320),
    (0.1, 64, 640),
)  # fmt: skip
NARROW = "conv2_3x3"
_PLUS_PLUS = ((0.1, 32, 160), (0.1, 64, 320))  # likewise, with 4 of 9 taps a block


def target_layers() -> tuple[Layer, ...]:
    """Return the 3x3 layers of ResNet-50, VGG-16 and WRN-28-10 with 128 channels at least.

    And the one of 64 that stands for narrow layers, where a sparse layer can lose.
    """
    every = (*RESNET50, *VGG16, *WRN28_10)
    wide = tuple(x for x in every if x.shape.R == 3 and min(x.shape.K, x.shape.C) >= 128)
    return (*(x for x in every if x.name == NARROW), *wide)


def target_plans() -> Iterator[Plan]:
    """Yield every pattern uneven, then balanced, then with common taps, then standing alone.

    What is asked of a run that is cut off comes first.
    """
    wide = {x.name: min(x.shape.K, x.shape.C) for x in target_layers() if x.name != NARROW}

    def fitting(table: tuple[tuple[float, int, int], ...], **more: Any) -> Iterator[Plan]:
        for name, channels in wide.items():
            for density, block, least in table:
                if channels >= least:
                    yield Plan(name, density, block, **more)

    yield from fitting(_TARGETS)
    yield from (Plan(NARROW, 0.5, block) for block in (16, 32))
    yield from fitting(_TARGETS, balance="both")
    yield from fitting(_PLUS_PLUS, method="hrbp2_pp", taps=4)
    yield from fitting(_TARGETS, layout="standalone")
