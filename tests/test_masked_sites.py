"""Single weights that move under a mask: the unstructured arm of the accuracy runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.accuracy.masked import MaskedConv2d
from bench.accuracy.masked_sites import MaskedSite, masked_sites
from hrbp_core import SET, RigL
from tests.conversion_samples import model
from tests.dynamic_samples import OPTIMIZERS, followers_of, learn, loss_of, optimizer_of


def masked(density: float = 0.25) -> Any:
    network = model()
    generator = torch.Generator().manual_seed(3)
    for name in ("conv1", "conv2"):
        conv = network.get_submodule(name)
        mask = torch.rand(conv.weight.shape, generator=generator) < density
        network.set_submodule(name, MaskedConv2d(conv, mask))
    return network


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_rigl_grows_the_weights_of_the_greatest_dense_gradient(kind: str) -> None:
    network = masked()
    optimizer = optimizer_of(network, kind)
    dst = RigL(network, optimizer, drop=0.5, every=2, until=9, balance="none", sites=masked_sites)
    learn(network, optimizer, 0)
    assert dst.step() is None
    optimizer.zero_grad()
    loss_of(network, 1).backward()
    dense = model()  # the twin: the same weights, without a mask in the way of the gradient
    dense.load_state_dict(
        {name.replace(".conv.", "."): tensor for name, tensor in network.state_dict().items()},
        strict=False,
    )
    for name in ("conv1", "conv2"):
        dense.get_submodule(name).weight.data.copy_(network.get_submodule(name).weight)
    loss_of(dense, 1).backward()
    optimizer.step()
    before = {n: network.get_submodule(n).mask.clone() for n in ("conv1", "conv2")}
    weights = {n: network.get_submodule(n).conv.weight.detach().clone() for n in before}
    dst.step()
    assert dst.last is not None
    for name, old in before.items():
        layer = network.get_submodule(name)
        kept, count = old.bool(), int(old.sum())
        dropped = int(dst.schedule.fraction(2) * count + 0.5)
        smallest = torch.where(kept, weights[name].abs(), torch.inf).flatten()
        survivors = kept.clone().flatten()
        survivors[smallest.argsort(stable=True)[:dropped]] = False
        scores = torch.where(survivors, -1.0, dense.get_submodule(name).weight.grad.abs().flatten())
        expected = survivors.clone()
        expected[scores.argsort(descending=True, stable=True)[:dropped]] = True
        assert torch.equal(layer.mask.bool().flatten(), expected)
        moved = layer.mask.bool() != kept
        assert dst.last.layers[name].grown == int((layer.mask.bool() & ~kept).sum()) > 0
        for _, tensor in followers_of(layer.conv.weight, optimizer):
            assert not tensor[moved].any()
        assert not layer.conv.weight.detach()[moved].any()
        assert torch.equal(layer.conv.weight.detach()[~moved], weights[name][~moved])


def test_set_explores_and_the_count_stays() -> None:
    network = masked()
    optimizer = optimizer_of(network)
    dst = SET(network, optimizer, every=1, until=99, balance="none", sites=masked_sites)
    counts = [int(site.kept.sum()) for site in masked_sites(network).values()]
    start = dst.explored.whole
    for number in range(4):
        learn(network, optimizer, number)
        dst.step()
    assert [int(site.kept.sum()) for site in masked_sites(network).values()] == counts
    assert dst.explored.whole > start + 0.1
    site = MaskedSite(network.conv1)
    assert torch.equal(
        site.magnitudes() > 0, site.kept & (network.conv1.conv.weight != 0).flatten(2)
    )


def test_padding_has_to_be_numbers() -> None:
    network = masked()
    network.conv1.conv.padding = "same"
    site = MaskedSite(network.conv1)
    with pytest.raises(ValueError, match="expected padding as numbers, got 'same'"):
        site.gradient(torch.ones(1, 16, 6, 6), torch.ones(1, 16, 6, 6))
