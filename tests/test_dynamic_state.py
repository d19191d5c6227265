"""Resumption bit for bit, copies, averages, overflows, and what is refused."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hrbp_core import ITOP, SET, RigL
from hrbp_core.dynamic import DynamicSparsity, Site
from hrbp_core.dynamic.watching import nothing
from tests.dynamic_samples import dense_of, layers, learn, loss_of, optimizer_of, sparse, train

Make = Callable[[Any, Any], DynamicSparsity]


def make_set(network: Any, optimizer: Any, **options: Any) -> DynamicSparsity:
    return SET(network, optimizer, every=3, until=40, seed=7, **options)


def make_rigl(network: Any, optimizer: Any, **options: Any) -> DynamicSparsity:
    return RigL(network, optimizer, every=3, until=40, **options)


def make_itop(network: Any, optimizer: Any) -> DynamicSparsity:
    return ITOP(network, optimizer, growth="random", every=2, until=40)


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("cut", ["between steps", "before dst.step"])
@pytest.mark.parametrize("make", [make_set, make_rigl, make_itop])
def test_resumed_is_uninterrupted(make: Make, cut: str) -> None:
    network = sparse(method="hrbp2_pp")
    optimizer = optimizer_of(network, "adamw")
    dst = make(network, optimizer)
    train(network, optimizer, dst, range(5))
    if cut == "before dst.step":
        learn(network, optimizer, 5)
        assert dst.due
    state = through_a_file([network.state_dict(), optimizer.state_dict(), dst.state_dict()])
    other = sparse(seed=3, density=0.25, method="hrbp2_pp")
    again = optimizer_of(other, "adamw")
    resumed = make(other, again)
    for each, part in zip((other, again, resumed), state, strict=True):
        each.load_state_dict(part)
    assert resumed.explored == dst.explored
    for module, stepper, method in ((network, optimizer, dst), (other, again, resumed)):
        if cut == "before dst.step":
            method.step()
        train(module, stepper, method, range(6, 12))
    assert dst.updates == resumed.updates >= 3
    assert dst.last == resumed.last
    assert resumed.explored == dst.explored
    for name, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_copies_do_not_disturb() -> None:
    network = sparse()
    optimizer = optimizer_of(network)
    dst = RigL(network, optimizer, every=1, until=9)
    assert dst.due  # the layers are watched
    before = [each.values.detach().clone() for each in layers(network).values()]
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        hooks = [h for each in layers(other).values() for h in each._forward_hooks.values()]
        assert hooks == [nothing, nothing]  # not the model's own, nor copies of all they know
        loss_of(other, 0).backward()
    replica = network.conv1._replicate_for_data_parallel()  # shares the hooks
    replica.values = network.conv1.values
    replica(torch.ones(1, 16, 6, 6).double()).sum().backward()
    assert not dst.state_dict()["gradients"]
    learn(network, optimizer, 0)
    dst.step()
    assert dst.last is not None
    assert dst.last.layers["conv1"].grown
    again = copy.deepcopy(network)
    torch.testing.assert_close(loss_of(again, 1), loss_of(network, 1))
    for layer, values in zip(layers(other).values(), before, strict=True):
        assert torch.equal(layer.values.detach(), values)
    with pytest.raises(TypeError, match="expected no copy of RigL"):
        copy.deepcopy(dst)


def test_an_average_of_the_weights_follows() -> None:
    network, decay = sparse(), 0.5
    ema: Any = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    )
    optimizer = optimizer_of(network)
    dst = RigL(network, optimizer, every=2, until=20)
    dst.follow(ema)
    ema.update_parameters(network)
    expected = {n: dense_of(each, each.values) for n, each in layers(network).items()}
    for number in range(6):
        learn(network, optimizer, number)
        before = {n: each.pattern.mask() for n, each in layers(network).items()}
        dst.step()
        ema.update_parameters(network)
        for name, each in layers(network).items():
            grown = each.pattern.mask() & ~before[name]
            assert not expected[name][grown].any()
            average = torch.where(each.pattern.mask(), expected[name], 0)
            expected[name] = decay * average + (1 - decay) * dense_of(each, each.values)
    assert dst.updates == 3
    for name, each in layers(ema.module).items():
        assert each.pattern == layers(network)[name].pattern
        torch.testing.assert_close(dense_of(each, each.values), expected[name])
    with pytest.raises(ValueError, match="expected a copy with the model's pattern in conv1"):
        dst.follow(sparse(seed=4, method="shuffled"))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("where", ["loss", "head"])
def test_an_overflow_postpones(where: str, fused: bool) -> None:
    """With the loss the growth scores overflow too; in the head alone they are finite.

    A fused optimizer is called on an overflow as well, and leaves the weights.
    """
    network = sparse()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    dst = RigL(network, optimizer, every=2, until=20)
    spoil, number = [1, 2], 0
    network.head.weight.register_hook(
        lambda g: g * float("inf") if where == "head" and number in spoil else g
    )
    told = []
    for number in range(5):
        optimizer.zero_grad()
        loss = loss_of(network, number)
        factor = float("inf") if where == "loss" and number in spoil else 1.0
        scaler.scale(loss * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        if dst.step() is not None:
            assert dst.last is not None
            told.append((dst.last.step, dst.last.postponed))
    why = "the optimizer did not step"
    assert told == [(2, why), (3, why), (4, "")]
    assert (dst.updates, dst.postponed) == (1, 2)
    assert dst.last is not None
    assert sum(each.grown for each in dst.last.layers.values()) > 0
    assert all(each.values.isfinite().all() for each in layers(network).values())


@pytest.mark.parametrize("what", ["growth scores", "weights"])
def test_what_is_not_finite_decides_nothing(what: str) -> None:
    class Odd(SET):
        def growth_scores(self, site: Site, gradient: Tensor | None) -> Tensor:
            found = super().growth_scores(site, gradient)
            found[0, 0] = float("nan") if what == "growth scores" and self.steps < 2 else 1.0
            return found

    network = sparse()
    optimizer = optimizer_of(network)
    dst = Odd(network, optimizer, every=1, until=20)
    before = network.conv1.pattern
    learn(network, optimizer, 0)
    if what == "weights":
        with torch.no_grad():
            network.conv1.values[0, 0] = float("inf")
    dst.step()
    assert str(dst.last) == f"step 1: postponed, conv1: {what} are not finite"
    assert network.conv1.pattern == before
    if what == "growth scores":
        learn(network, optimizer, 1)
        dst.step()
        assert dst.updates == 1
