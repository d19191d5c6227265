"""A small residual network, and ``convert`` for the tests of whole networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hrbp_core import convert, to_dense
from hrbp_core.conversion_report import Conversion


class Residual(nn.Module):
    """A stem, one residual block, a classifier: 16 channels, blocks of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv1 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        return self.head((x + self.conv2(self.norm(self.conv1(x)).relu())).mean((2, 3)))


def model(seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Residual().double()


def converted(*args: Any, **options: Any) -> tuple[Any, Conversion]:
    """``convert``, with a model whose attributes mypy lets pass."""
    return convert(*args, **options)


def dense_again(sparse: nn.Module) -> Any:
    return to_dense(sparse)


def image() -> torch.Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1)).double()
