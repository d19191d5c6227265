"""What a method of dynamic sparse training refuses, and what it leaves out and says so."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hrbp_core import ITOP, SET, BlockSparseConv2d, RigL
from hrbp_core.dynamic import CosineDrop
from hrbp_core.dynamic.watching import WRITTEN
from tests.dynamic_samples import learn, loss_of, optimizer_of, sparse, train


def test_another_state_is_refused_and_changes_nothing() -> None:
    network = sparse()
    optimizer = optimizer_of(network)
    dst = RigL(network, optimizer, every=3, until=40)
    train(network, optimizer, dst, range(2))
    good = dst.state_dict()

    def refused(message: str, **changes: Any) -> None:
        with pytest.raises((TypeError, ValueError), match=message):
            dst.load_state_dict(copy.deepcopy(good) | changes)
        assert dst.steps == 2

    layer = good["layers"]["conv1"]
    with pytest.raises(ValueError, match=r"expected state as a dict of .*, got list"):
        dst.load_state_dict([])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected method 'SET', got 'RigL'"):
        SET(network, optimizer, until=40).load_state_dict(good)
    refused("expected format 'hrbp.dynamic/1', got 'other'", format="other")
    refused("expected steps of state as int, got str", steps="2")
    refused("expected steps >= 0, got -1", steps=-1)
    refused(r"expected layers \['conv1', 'conv2'\], got \['conv1'\]", layers={"conv1": layer})
    part = {"conv1": layer | {"explored": torch.ones(2, 2)}, "conv2": layer}
    refused(r"expected explored of conv1 as bool \[4, 4, 1\]", layers=part)
    part = {"conv1": layer | {"kept": ~layer["kept"]}, "conv2": layer}
    refused("expected the pattern of conv1 that the state was saved with", layers=part)
    refused("expected the state of a random generator", generator=torch.zeros(3).byte())
    refused("expected gradients of layers .*, got .'other'", gradients={"other": torch.ones(1)})
    dst.load_state_dict(good)


def test_layers_that_stay_are_told() -> None:
    network = sparse()
    network.conv1.values.requires_grad_(False)
    optimizer = optimizer_of(network)
    dst = RigL(network, optimizer, every=1, until=9)
    before = network.conv1.pattern
    learn(network, optimizer, 0)
    dst.step()
    assert dst.last is not None
    assert dst.last.left_out == {"conv1": "its weights are frozen"}
    assert dst.last.layers.keys() == {"conv2"}
    assert network.conv1.pattern == before
    assert "conv1  left out: its weights are frozen" in str(dst.last)


class Branches(nn.Module):
    """``two`` is not called; what ``one`` read is written to: autograd kept a permuted copy."""

    def __init__(self) -> None:
        super().__init__()
        made = sparse(method="shuffled")
        self.one, self.two, self.writes = made.conv1, made.conv2, False

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.one(x)
        if self.writes:
            x += 1
        return y


def test_a_gradient_that_cannot_be_known_is_not_made_up() -> None:
    network = Branches()
    optimizer = optimizer_of(network)
    dst = RigL(network, optimizer, every=1, until=9)
    x = torch.randn(1, 16, 6, 6, dtype=torch.float64)
    optimizer.step()
    with pytest.raises(RuntimeError, match="expected a backward through a sparse layer"):
        dst.step()
    for writes in (False, True):
        network.writes = writes
        network(x.clone()).square().mean().backward()
        optimizer.step()
        dst.step()
        assert dst.last is not None
        expected = {"two": "no gradient was seen"} | ({"one": WRITTEN} if writes else {})
        assert dst.last.left_out == expected


def test_a_compiled_step_is_refused_and_an_eager_one_goes_on() -> None:
    network = sparse()
    compiled: Any = torch.compile(network, backend="aot_eager", fullgraph=True)
    optimizer = optimizer_of(network)
    dst = RigL(compiled, optimizer, every=2, until=9)
    for number in range(4):
        learn(network if dst.due else compiled, optimizer, number)
        dst.step()
        torch.testing.assert_close(loss_of(compiled, 9), loss_of(network, 9))
    assert dst.updates == 2
    learn(compiled, optimizer, 4)
    dst.step()
    learn(compiled, optimizer, 5)
    with pytest.raises(RuntimeError, match="neither compiled nor as a CUDA graph"):
        dst.step()
    torch.compiler.reset()  # traced anew, while the layers are watched
    learn(compiled, optimizer, 6)
    with pytest.raises(RuntimeError, match="neither compiled nor as a CUDA graph"):
        dst.step()
    learn(network, optimizer, 7)
    update = dst.step()
    assert update is not None
    assert not update.postponed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"expected until .* or a schedule, got neither"),
        ({"until": 5, "schedule": CosineDrop(until=3)}, r"got both: \['until'\]"),
        ({"until": 0}, "expected until >= 1, got 0"),
        ({"until": 1.5}, "expected until as an int, got 1.5"),
        ({"until": 5, "every": 0}, "expected every >= 1, got 0"),
        ({"until": 5, "drop": 0.0}, r"expected drop in \(0, 1\], got 0.0"),
        ({"until": 5, "drop": float("nan")}, r"expected drop in \(0, 1\], got nan"),
        ({"until": 5, "balance": "rows"}, "expected balance as one of keep, .*, got 'rows'"),
        ({"until": 5, "balance": "both"}, "expected conv1 to have balance 'both' at the start"),
    ],
    ids=str,
)
def test_arguments(options: Any, message: str) -> None:
    network = sparse()
    with pytest.raises((TypeError, ValueError), match=message):
        SET(network, optimizer_of(network), **options)


def test_models_and_optimizers() -> None:
    network = sparse()
    optimizer = optimizer_of(network)
    dense: Any = nn.Sequential(nn.Conv2d(3, 3, 3))
    with pytest.raises(TypeError, match=r"expected model as a torch.nn.Module, got str"):
        SET("model", optimizer, until=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a model with a sparse layer at least, got none"):
        SET(dense, optimizer_of(dense), until=5)
    with pytest.raises(TypeError, match=r"expected optimizer as a torch.optim.Optimizer, got None"):
        SET(network, None, until=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got one without \['conv1', 'conv2'\]"):
        SET(network, optimizer_of(dense), until=5)
    with pytest.raises(ValueError, match="expected growth as one of rigl, random, got 'set'"):
        ITOP(network, optimizer, growth="set", until=5)
    with pytest.raises(ValueError, match="expected a layer whose entries can move"):
        SET(sparse(method="hrbp"), optimizer, until=5)
    full: Any = nn.Sequential(BlockSparseConv2d(8, 8, 1, density=1.0, block=4))
    with pytest.raises(ValueError, match="expected a layer whose entries can move"):
        SET(full, optimizer_of(full), until=5)
