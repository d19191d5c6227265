"""Updates of sparse layers: scores, what moves, what stays, and that training goes on."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from hrbp_core import ITOP, SET, BlockSparseConv2d, RigL, absorb, to_dense
from hrbp_core.dynamic import BlockSite, CosineDrop, DynamicSparsity
from hrbp_core.dynamic.sites import BLOCK, ENTRY
from tests.dynamic_samples import (
    OPTIMIZERS,
    Greedy,
    Recording,
    dense_of,
    followers_of,
    layers,
    learn,
    loss_of,
    optimizer_of,
    sparse,
    train,
)  # fmt: skip

METHODS = ("hrbp2", "hrbp2_pp", "hrbp_pp")
UNITS = {"hrbp2": BLOCK, "hrbp2_pp": ENTRY, "hrbp_pp": ENTRY}


def moved(dst: DynamicSparsity) -> int:
    assert dst.last is not None
    return sum(layer.grown for layer in dst.last.layers.values())


@pytest.mark.parametrize("absorbed", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_growth_scores_are_those_of_the_dense_twin(method: str, absorbed: bool) -> None:
    network = sparse(method=method)
    network = absorb(network)[0] if absorbed else network
    twin: Any = to_dense(network)
    optimizer = optimizer_of(network)
    dst = Recording(network, optimizer, every=1, until=9)
    alone = copy.deepcopy(network)
    parts = (0, 1)  # two micro-batches
    for number in parts:
        for each in (network, twin, alone):
            loss_of(each, number).backward()
    optimizer.step()
    for name, layer in layers(network).items():
        # watching changes no bit of the training
        assert torch.equal(layer.values.grad, alone.get_submodule(name).values.grad)  # type: ignore[arg-type]
        pattern, expected = layer.pattern, twin.get_submodule(name).weight.grad
        site = BlockSite(layer)
        scores = site.growth(expected)
        flat = expected.abs().flatten(2)
        for group, filters in enumerate(pattern.filters):
            for other, channels in enumerate(pattern.channels):
                part = flat[filters.long()][:, channels.long()].sum((0, 1))
                part = part.sum(0, keepdim=True) if site.unit == BLOCK else part
                torch.testing.assert_close(scores[group, other], part)
    dst.step()
    for name, layer in layers(network).items():
        torch.testing.assert_close(dst.seen[layer], twin.get_submodule(name).weight.grad)
    assert moved(dst) > 0


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("method", METHODS)
def test_what_stays_does_so_bit_for_bit(method: str, kind: str) -> None:
    network = sparse(method=method)
    optimizer = optimizer_of(network, kind)
    dst = RigL(network, optimizer, every=2, until=9, drop=0.5)
    learn(network, optimizer, 0)
    assert dst.step() is None
    learn(network, optimizer, 1)
    old = {name: layer.pattern for name, layer in layers(network).items()}
    before: dict[tuple[str, str], torch.Tensor] = {}
    places = {}
    for name, layer in layers(network).items():
        tensors = {"values": layer.values, **dict(followers_of(layer.values, optimizer))}
        assert len(tensors) == {"sgd": 3, "adamw": 4}[kind]
        before |= {(name, part): dense_of(layer, t) for part, t in tensors.items()}
        places[name] = {part: t.data_ptr() for part, t in tensors.items()}
    steps = [optimizer.state[p].get("step") for p in network.parameters()]
    dst.step()
    assert moved(dst) > 0
    assert [optimizer.state[p].get("step") for p in network.parameters()] == steps
    for name, layer in layers(network).items():
        kept = old[name].mask() & layer.pattern.mask()
        tensors = {"values": layer.values, **dict(followers_of(layer.values, optimizer))}
        assert places[name] == {part: t.data_ptr() for part, t in tensors.items()}
        for part, tensor in tensors.items():
            now = dense_of(layer, tensor)
            assert before[name, part][kept].abs().min() > 0
            assert torch.equal(now[kept], before[name, part][kept])
            assert not now[~kept].any()


@pytest.mark.parametrize("way", ["sparse", "dense"])
@pytest.mark.parametrize("method", METHODS)
def test_training_goes_on_with_the_new_pattern(method: str, way: str) -> None:
    network = sparse(method=method)
    for layer in layers(network).values():
        layer.policy = way
    held = {n: (b, b.data_ptr()) for n, b in network.named_buffers()}
    places = [layer._unpacking.places for layer in layers(network).values() if layer._unpacking]
    optimizer = optimizer_of(network)
    dst = RigL(network, optimizer, every=1, until=20)
    for number in range(3):
        learn(network, optimizer, number)
        dst.step()
        assert moved(dst) > 0
        twin: Any = to_dense(network)
        got, expected = loss_of(network, 50), loss_of(twin, 50)
        torch.testing.assert_close(got, expected)
        network.zero_grad()
        got.backward()
        expected.backward()
        for name, layer in layers(network).items():
            gradient = layer.pattern.pack(twin.get_submodule(name).weight.grad)
            torch.testing.assert_close(layer.values.grad, gradient)
        dst._get_ready(True)  # this backward was the test's
    for name, buffer in network.named_buffers():  # so a CUDA graph goes on as well
        assert held[name][0] is buffer
        assert held[name][1] == buffer.data_ptr()
    now = [layer._unpacking.places for layer in layers(network).values() if layer._unpacking]
    assert len(now) == (2 if way == "dense" else 0)
    assert all(one is other for one, other in zip(places, now, strict=True))


@pytest.mark.parametrize("balance", ["none", "filters", "both"])
@pytest.mark.parametrize("method", METHODS)
def test_no_group_dies_of_greed_and_balance_stays(method: str, balance: str) -> None:
    network = absorb(sparse(method=method, balance=balance, density=0.5))[0]
    canonical = {name: layer.pattern.is_canonical for name, layer in layers(network).items()}
    assert all(canonical.values()) or method == "hrbp_pp"
    before = {name: layer.pattern for name, layer in layers(network).items()}
    optimizer = optimizer_of(network)
    dst = Greedy(network, optimizer, every=1, until=1000, drop=0.6)
    total = 0
    for number in range(12):
        dst.corner = number % 2
        learn(network, optimizer, 0)
        dst.step()
        total += moved(dst)
    assert total > 0
    for name, layer in layers(network).items():
        old, new = before[name], layer.pattern
        assert len(new.entries) == len(old.entries)
        assert torch.equal(new.filters, old.filters)
        assert torch.equal(new.channels, old.channels)
        assert new.is_canonical == canonical[name]
        assert new.dead_filters.numel() == new.dead_channels.numel() == 0
        for column, side in ((0, balance != "none"), (1, balance == "both")):
            if side and method != "hrbp_pp":
                counts = [torch.bincount(p.entries[:, column].long()) for p in (old, new)]
                assert counts[0].min() <= counts[1].min()
                assert counts[1].max() <= counts[0].max()


def test_without_coverage_greed_collapses() -> None:
    """What coverage is for: the same layers, and the rule left out."""
    network = sparse(method="aligned", balance="none", density=0.25)
    optimizer = optimizer_of(network)
    dst = Greedy(network, optimizer, every=1, until=1000, drop=0.6, balance="none")
    for name, rules in dst._rules.items():
        dst._rules[name] = dataclasses.replace(rules, coverage=False)
    train(network, optimizer, dst, range(6))
    assert any(layer.pattern.dead_channels.numel() for layer in layers(network).values())


def test_set_and_itop_explore() -> None:
    network = sparse()
    optimizer = optimizer_of(network)
    dst = ITOP(network, optimizer, growth="random", every=1, until=100)
    assert dst.schedule == CosineDrop(drop=0.5, every=1, until=100)
    assert dst.explored.whole == pytest.approx(0.5)
    seen = {name: layer.pattern.mask() for name, layer in layers(network).items()}
    for number in range(8):
        learn(network, optimizer, number)
        dst.step()
        seen = {name: mask | layers(network)[name].pattern.mask() for name, mask in seen.items()}
    assert dst.explored.whole > 0.6
    for name, mask in seen.items():
        assert dst.explored.layers[name] == pytest.approx(float(mask.double().mean()))
    assert ITOP(network, optimizer, until=9000).schedule == CosineDrop(
        drop=0.5, every=1500, until=9000
    )


def test_padded_blocks_count_real_weights() -> None:
    network: Any = nn.Sequential(BlockSparseConv2d(10, 9, 3, padding=1, density=0.5, block=4))
    site = BlockSite(network[0])
    assert site.weights().sum() == 9 * 10 * 9
    with torch.no_grad():
        network[0].values.fill_(1.0)
    expected = torch.where(site.kept, site.weights(), 0).float()
    assert torch.equal(site.magnitudes(), expected)
    optimizer = optimizer_of(network)
    dst = Greedy(network, optimizer, every=1, until=9, drop=0.7, balance="none")
    x = torch.randn(2, 10, 5, 5)
    network(x).square().mean().backward()
    optimizer.step()
    dst.step()
    torch.testing.assert_close(network(x), to_dense(network)(x), rtol=1e-4, atol=1e-5)
    assert moved(dst) > 0


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "padding": 1},
        {"padding": "same", "dilation": 2},
        {"padding": 2, "padding_mode": "reflect"},
    ],
    ids=str,
)
def test_the_gradient_of_other_geometries(options: Any) -> None:
    layer = BlockSparseConv2d(8, 8, 3, density=0.5, block=4, dtype=torch.float64, **options)
    network = nn.Sequential(layer)
    twin: Any = to_dense(network)
    x = torch.randn(2, 8, 7, 7, dtype=torch.float64)
    optimizer = optimizer_of(network)
    dst = Recording(network, optimizer, every=1, until=9)
    for each in (network, twin):
        each(x).square().mean().backward()
    optimizer.step()
    dst.step()
    torch.testing.assert_close(dst.seen[layer], twin[0].weight.grad)


def test_the_schedule() -> None:
    schedule = CosineDrop(drop=0.4, every=10, until=40)
    assert [schedule.due(step) for step in (0, 9, 10, 30, 40)] == [False, False, True, True, False]
    assert schedule.fraction(0) == 0.4
    assert schedule.fraction(20) == pytest.approx(0.2)
    assert schedule.fraction(40) == 0.0
    network = sparse()
    optimizer = optimizer_of(network)
    dst = SET(network, optimizer, every=2, until=5)
    told = []
    for number in range(6):
        told.append(dst.due)
        learn(network, optimizer, number)
        assert (dst.step() is not None) == told[-1]
    assert told == [False, True, False, True, False, False]
    assert (dst.steps, dst.updates, dst.postponed) == (6, 2, 0)
    assert "step 4: up to 0.0286 of each layer moves" in str(dst.last)
