"""A sparse network is an ordinary one: saved, loaded, copied, averaged, spread, compiled, sent."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hrbp_core import absorb, to_dense
from tests.conversion_samples import converted, image, model


def sparse(seed: int = 0, *, absorbed: bool = False, **options: Any) -> Any:
    network, _ = converted(model(), {"conv1": 0.25, "conv2": 0.5}, block=4, seed=seed, **options)
    return absorb(network)[0] if absorbed else network


def other_pattern() -> Any:
    """The same network with other patterns: other groups, and more or fewer blocks."""
    return converted(model(1), {"conv1": 0.5, "conv2": 0.25}, block=4, method="shuffled")[0]


BOTH = pytest.mark.parametrize("absorbed", [False, True], ids=["standalone", "absorbed"])


def step(network: nn.Module) -> torch.Tensor:
    loss = network(image()).square().mean()
    loss.backward()
    return loss.detach()


@BOTH
def test_state_dict_adopts_the_patterns_of_the_checkpoint(absorbed: bool) -> None:
    one, other = sparse(absorbed=absorbed), other_pattern()
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    assert other.load_state_dict(one.state_dict()) == ([], [])
    assert torch.equal(one(image()), other(image()))
    assert other.conv1.pattern == one.conv1.pattern
    before = other.conv1.values.detach().clone()
    step(other)
    optimizer.step()  # its parameters are the network's still
    assert not torch.equal(other.conv1.values, before)


@BOTH
def test_safetensors(absorbed: bool, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    one, other = sparse(absorbed=absorbed), other_pattern()
    safetensors.save_model(one, str(tmp_path / "model.safetensors"))
    assert safetensors.load_model(other, str(tmp_path / "model.safetensors")) == (set(), [])
    assert torch.equal(one(image()), other(image()))
    safetensors.save_file(one.state_dict(), str(tmp_path / "state.safetensors"))
    third = other_pattern()
    third.load_state_dict(safetensors.load_file(str(tmp_path / "state.safetensors")))
    assert torch.equal(one(image()), third(image()))


def test_a_checkpoint_of_another_block_or_shape_is_refused_and_changes_nothing() -> None:
    network = sparse()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    finer = converted(model(), {"conv1": 0.25, "conv2": 0.5}, block=2)[0]
    with pytest.raises(RuntimeError, match=r"conv1: expected a checkpoint of .* got \[16, 16, 3"):
        network.load_state_dict(finer.state_dict())
    thin = model()
    thin.conv1 = nn.Conv2d(16, 16, 1, bias=False).double()
    with pytest.raises(RuntimeError, match=r"got \[16, 16, 1, 1, 4, 4\]"):
        network.load_state_dict(converted(thin, 0.5, block=4)[0].state_dict())
    for name in ("conv1.values", "conv1.entries", "conv1.filters", "conv1.channels"):
        assert torch.equal(network.state_dict()[name], before[name])


def test_a_dense_checkpoint_does_not_pass_for_a_sparse_one() -> None:
    with pytest.raises(RuntimeError, match=r'Missing key.*"conv1.values"'):
        sparse().load_state_dict(model().state_dict())


@BOTH
def test_deepcopy_and_pickle(absorbed: bool) -> None:
    one = sparse(absorbed=absorbed)
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert torch.equal(one(image()), other(image()))
        expected = one(image())
        step(other)
        with torch.no_grad():
            other.conv1.values.zero_()
        assert torch.equal(one(image()), expected)
        assert one.conv1.values.grad is None


@pytest.mark.parametrize("use_buffers", [False, True])
def test_averaged_weights(use_buffers: bool) -> None:
    network = sparse()
    ema: Any = torch.optim.swa_utils.AveragedModel(
        network,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5),
        use_buffers=use_buffers,
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    start = network.conv1.values.detach().clone()
    ema.update_parameters(network)
    step(network)
    optimizer.step()
    ema.update_parameters(network)
    expected = (start + network.conv1.values.detach()) / 2
    torch.testing.assert_close(ema.module.conv1.values.detach(), expected)
    assert ema.module.conv1.pattern == network.conv1.pattern
    torch.testing.assert_close(ema.module(image()), to_dense(ema.module)(image()))


@BOTH
def test_compile(absorbed: bool) -> None:
    network = sparse(absorbed=absorbed)
    compiled: Any = torch.compile(network, backend="aot_eager", fullgraph=True)
    other = copy.deepcopy(network)
    torch.testing.assert_close(compiled(image()), other(image()))
    torch.testing.assert_close(step(compiled), step(other))
    torch.testing.assert_close(network.conv1.values.grad, other.conv1.values.grad)


@BOTH
def test_export(absorbed: bool) -> None:
    network = sparse(absorbed=absorbed).eval()
    exported = torch.export.export(network, (image(),))
    torch.testing.assert_close(exported.module()(image()), network(image()))


def test_other_processes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.two_processes", str(tmp_path / "meet")],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "same\n"), done.stderr
