"""Policies of whole networks: converted, absorbed, saved, averaged, copied, compiled, exported."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from hrbp_core import BlockSparseConv2d, absorb, to_dense
from hrbp_core.policy import CODES, POLICIES
from tests.conversion_samples import converted, image, model
from tests.pattern_samples import random_pattern

DENSITIES = {"conv1": 0.25, "conv2": 0.5}


def network(policy: str = "auto", *, absorbed: bool = False, **options: Any) -> Any:
    made = converted(model(), DENSITIES, block=4, policy=policy, **options)[0]
    return absorb(made)[0] if absorbed else made


def other_network(policy: str = "auto") -> Any:
    """Other patterns, of other sizes."""
    densities = {"conv1": 0.5, "conv2": 0.25}
    return converted(model(1), densities, block=4, method="shuffled", policy=policy)[0]


def ways(made: nn.Module) -> list[bool]:
    """Return whether each layer runs densely, as a forward of the network shows."""
    layers = [m for m in made.modules() if isinstance(m, BlockSparseConv2d)]
    found = []
    for each in layers:
        with torch.profiler.profile() as seen:
            each(torch.randn(1, each.in_channels, 5, 5, dtype=each.values.dtype))
        found.append(not any("hrbp::" in event.key for event in seen.key_averages()))
    return found


def decided(made: Any) -> Any:
    """The first layer densely, the second sparsely."""
    made.conv1.choose("dense")
    made.conv2.choose("sparse")
    return made


def same(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(one(image()), other(image()), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("policy", POLICIES)
def test_convert_passes_the_policy_on(policy: str) -> None:
    made = network(policy)
    assert {made.conv1.policy, made.conv2.policy} == {policy}
    same(made, network("sparse"))
    same(made, to_dense(made))
    with pytest.raises(ValueError, match="expected policy as one of sparse, dense, auto, got 'b'"):
        converted(model(), {}, block=4, policy="b")  # nothing becomes sparse: refused all the same


@pytest.mark.parametrize("policy", POLICIES)
def test_absorb_keeps_policy_and_choice(policy: str) -> None:
    made = decided(network(policy, method="shuffled"))
    moved: Any
    moved, report = absorb(made)
    assert report.moved
    assert moved.conv1.pattern != made.conv1.pattern
    for name in ("conv1", "conv2"):
        one, other = getattr(made, name), getattr(moved, name)
        assert (other.policy, other.choice) == (policy, one.choice)
        assert torch.equal(one.chosen, other.chosen)
    assert ways(moved) == ways(made)
    same(moved, made)
    same(moved, to_dense(made))


@pytest.mark.parametrize("absorbed", [False, True])
@pytest.mark.parametrize("way", ["memory", "file", "assign", "safetensors", "load_model"])
def test_a_checkpoint_brings_the_choice(way: str, absorbed: bool, tmp_path: Path) -> None:
    one, other = decided(network(absorbed=absorbed)), other_network()
    state = one.state_dict()
    if way == "load_model":
        safetensors = pytest.importorskip("safetensors.torch")
        safetensors.save_model(one, str(tmp_path / "model.safetensors"))
        safetensors.load_model(other, str(tmp_path / "model.safetensors"))
    elif way == "safetensors":
        safetensors = pytest.importorskip("safetensors.torch")
        other.load_state_dict(safetensors.load(safetensors.save(state)))
    elif way == "file":
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
    else:
        assert other.load_state_dict(state, assign=way == "assign") == ([], [])
    assert (other.conv1.choice, other.conv2.choice) == ("dense", "sparse")
    assert ways(other) == [True, False]
    same(other, one)
    assert torch.equal(other.state_dict()["conv1.chosen"], state["conv1.chosen"])


@pytest.mark.parametrize("policy", ["sparse", "dense"])
def test_another_policy_keeps_the_choice_and_does_not_use_it(policy: str) -> None:
    state = decided(network()).state_dict()
    other = other_network(policy)
    other.load_state_dict(state)
    assert {other.conv1.policy, other.conv2.policy} == {policy}
    assert ways(other) == [policy == "dense"] * 2
    assert other.state_dict()["conv1.chosen"].tolist() == [True, True]
    other.conv1.policy = other.conv2.policy = "auto"
    assert ways(other) == [True, False]


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("choice", CODES)
def test_a_checkpoint_from_before_leaves_the_choice(choice: str, assign: bool) -> None:
    one, other = network(), other_network()
    other.conv1.choose(choice)
    state = {n: t for n, t in one.state_dict().items() if not n.endswith("chosen")}
    assert len(state) == len(one.state_dict()) - 2
    assert other.load_state_dict(state, strict=True, assign=assign) == ([], [])
    assert (other.conv1.choice, other.conv2.choice) == (choice, "undecided")
    assert other.state_dict()["conv1.chosen"].tolist() == list(CODES[choice])
    assert ways(other) == [choice == "dense", False]
    same(other, one)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (torch.tensor([True]), r"conv1: expected chosen as bool \[2\], got bool \[1\]"),
        (torch.tensor([1, 2]), r"conv1: expected chosen as bool \[2\], got int64 \[2\]"),
        (torch.tensor([False, True]), r"conv1: expected chosen as one of .*, got \[False, True\]"),
    ],
)
def test_a_broken_choice_raises_and_changes_nothing(chosen: torch.Tensor, message: str) -> None:
    other = other_network()
    other.conv1.choose("dense")
    before = {n: t.clone() for n, t in other.conv1.state_dict().items()}
    state = network().state_dict() | {"conv1.chosen": chosen}
    with pytest.raises(RuntimeError, match=message):
        other.load_state_dict(state)
    assert other.conv1.choice == "dense"
    assert all(torch.equal(before[n], t) for n, t in other.conv1.state_dict().items())


@pytest.mark.parametrize("policy", POLICIES)
def test_copies_and_casts(policy: str) -> None:
    one = decided(network(policy))
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert (other.conv1.policy, other.conv1.choice) == (policy, "dense")
        assert ways(other) == ways(one)
        same(other, one)
        other.conv1.choose("sparse")
        other(image()).sum().backward()
    assert one.conv1.choice == "dense"
    assert one.state_dict()["conv1.chosen"].tolist() == [True, True]
    half = copy.deepcopy(one).to(torch.bfloat16)
    assert half.conv1.chosen.dtype == torch.bool
    assert ways(half) == ways(one)


def test_to_another_device_and_back_through_a_checkpoint() -> None:
    one = decided(network())
    away = decided(network()).to("meta")
    assert away.conv1._unpacking.places.is_meta
    away.conv2.policy = "dense"  # with tables that hold nothing yet
    shape = (2, 16, 6, 6)
    for layer in (away.conv1, away.conv2):
        assert tuple(layer(torch.empty(shape, dtype=torch.float64, device="meta")).shape) == shape
    state = one.state_dict()
    away.load_state_dict({n: t for n, t in state.items() if n != "conv1.chosen"}, assign=True)
    assert ways(away) == [True, True]
    same(away, one)
    assert torch.equal(away.state_dict()["conv1.chosen"], state["conv1.chosen"])


def test_places_follow_a_layer_whose_tensors_were_moved_one_by_one() -> None:
    made = network("dense")
    made.conv1._unpacking = made.conv1._unpacking.to(torch.device("meta"))
    message = "expected a layer that was told to run densely, got a sparse one"
    with pytest.raises(RuntimeError, match=message):
        network("sparse").conv1._unpacking_on(torch.device("cpu"))
    # from meta nothing can come back; that it is tried is what shows here
    with pytest.raises(NotImplementedError, match="meta"):
        made(image())


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("late", [False, True], ids=["chosen before", "chosen after the copy"])
def test_averaged_weights(use_buffers: bool, late: bool) -> None:
    made = network() if late else decided(network())
    average: Any = torch.optim.swa_utils.AveragedModel(
        made,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5),
        use_buffers=use_buffers,
    )
    decided(made)
    for _ in range(3):
        with torch.no_grad():
            made.conv1.values.mul_(1.5)
        average.update_parameters(made)
    assert not torch.equal(average.module.conv1.values, made.conv1.values)
    assert average.module.conv1.pattern == made.conv1.pattern
    same(average.module, to_dense(average.module))
    assert ways(average.module) == [not late, False]
    saved = other_network()
    saved.load_state_dict(average.module.state_dict())
    assert (saved.conv1.choice, saved.conv2.choice) == ("dense", "sparse")


@pytest.mark.parametrize("decay", [0.9, 0.99, 0.999, 0.9999])
def test_no_average_wears_a_choice_down(decay: float) -> None:
    layer = BlockSparseConv2d(6, 4, 1, pattern=random_pattern((4, 6, 1, 1), (2, 3)), policy="auto")
    layer.choose("dense")
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    saved = layer.chosen.clone()
    for _ in range(50):
        average([saved], [layer.chosen], 1)  # type: ignore[operator]
    assert torch.equal(saved, layer.chosen)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("absorbed", [False, True])
def test_compiled_code_follows_the_choice(absorbed: bool) -> None:
    torch._dynamo.reset()
    made = network(absorbed=absorbed)
    backend = CompileCounterWithBackend("aot_eager")
    compiled: Any = torch.compile(made, backend=backend, fullgraph=True)
    convolutions = []
    for choice in ("undecided", "dense", "sparse"):
        made.conv1.choose(choice)
        backend.graphs.clear()
        eager = copy.deepcopy(made)
        eager.conv1.choose("sparse")
        results = []
        for each in (compiled, eager):
            y = each(image())
            y.square().sum().backward()
            results.append(y)
        torch.testing.assert_close(*results, rtol=1e-11, atol=1e-11)
        gradients = [each.conv1.values.grad for each in (made, eager)]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)
        made.zero_grad()
        convolutions.append(
            [
                sum("conv2d" in str(node.target) for node in graph.graph.nodes)
                for graph in backend.graphs
            ]
        )
    assert convolutions == [[1], [2], []]  # the stem; the layer too; the first graph again
    torch._dynamo.reset()


@pytest.mark.parametrize("choice", CODES)
def test_an_export_holds_what_was_chosen(choice: str) -> None:
    made = network().eval()
    made.conv1.choose(choice)
    exported = torch.export.export(made, (image(),))
    targets = [str(node.target) for node in exported.graph.nodes]
    assert sum("aten.conv2d" in target for target in targets) == 1 + (choice == "dense")
    assert any("hrbp.fprop" in target for target in targets)
    torch.testing.assert_close(exported.module()(image()), made(image()))
