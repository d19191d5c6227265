"""The control: dense weights under a mask and packed values are one training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from bench.accuracy.arms import MaskedConv2d
from hrbp_core import BlockSparseConv2d, absorb
from tests.conversion_samples import converted, model

STEPS = 20


def losses(network: nn.Module, optimizer: str) -> list[float]:
    made: Any = {
        "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
        "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.0),
    }[optimizer](network.parameters())
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(2, 4, 3, 6, 6, generator=generator).double()
    labels = torch.randint(5, (2, 4), generator=generator)
    found = []
    for number in range(STEPS):
        x, y = images[number % 2], labels[number % 2]
        made.zero_grad()
        loss = functional.cross_entropy(network(x), y)
        loss.backward()
        made.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("method", ["hrbp2", "hrbp", "hrbp2_pp"])
def test_masked_dense_trains_to_the_same_losses(method: str, optimizer: str) -> None:
    dense = model()
    sparse, report = converted(dense, 0.25, block=4, method=method)
    absorbed = absorb(sparse)[0]
    for name, layer in report.layers.items():
        masked = MaskedConv2d(dense.get_submodule(name), layer.pattern.mask())
        dense.set_submodule(name, masked)
    expected = losses(dense, optimizer)
    assert expected[-1] < expected[0]
    for network in (sparse, absorbed):
        assert losses(network, optimizer) == pytest.approx(expected, rel=1e-10)
    for name in report.layers:
        layer = sparse.get_submodule(name)
        assert isinstance(layer, BlockSparseConv2d)
        kept = dense.get_submodule(name)
        torch.testing.assert_close(layer.to_dense().weight, kept.weight, rtol=1e-8, atol=1e-10)
