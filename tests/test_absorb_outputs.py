"""absorb and what comes out: several outputs, other graphs by mode, checkpoints, gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from tests.network_checks import (
    absorbed,
    assert_same_in_both_modes,
    image,
    one_thread,
    outcome,
    sparse,
)
from tests.network_samples import Graph, Graph2, between, conv, graph, head

RAMP = torch.linspace(0.5, 2, 8, dtype=torch.float64).view(8, 1, 1)


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


def _auxiliary(s: Any, x: Tensor) -> Any:
    y = s.a(s.stem(x))
    scores = head(s, s.b(y.relu()))
    return (scores, s.g(s.c(y).mean((2, 3)))) if s.training else scores


def _by_mode(s: Any, x: Tensor) -> Any:
    y = s.a(s.stem(x))
    return head(s, s.b(y + s.c(y)) if s.training else s.c(s.b(y)) - y)


def _swaps(s: Any, x: Tensor) -> Any:
    y = s.a(s.stem(x))
    y = torch.cat((y, s.b(y)), 1) if s.training else torch.cat((s.c(y), y), 1)
    return s.fc(s.w(y).mean((2, 3)))


def _seen_before(s: Any, x: Tensor) -> Any:
    y = s.a(s.stem(x))
    z = s.b(y)
    seen = z.softmax(1) if s.training else None  # in one trace, before z meets what is older
    return head(s, s.c(y + z)), seen


def _norm_of_both(s: Any, x: Tensor) -> Any:
    y = s.stem(x)
    return head(s, s.c(s.bn(s.a(y)).relu())), s.bn(y.flip(1)).mean((2, 3))


def _returns(s: Any, x: Tensor) -> Any:
    y = s.a(s.stem(x))
    return {"scores": head(s, s.c(s.b(y).relu())), "rest": [y.relu(), (y.shape, None)]}


MODES = {
    "seen before": _seen_before,
    "norm of both": _norm_of_both,
    "auxiliary": _auxiliary,
    "by mode": _by_mode,
    "swaps": _swaps,
    "returns": _returns,
}


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("name", MODES)
def test_modes_and_outputs(name: str, joint: bool) -> None:
    own: dict[str, dict[str, Any]] = {
        "auxiliary": {"g": nn.Linear(8, 5)},
        "swaps": {"w": conv(16, 8)},
    }
    model = graph(MODES[name], **own.get(name, {}))
    network = sparse(model, joint=joint)
    copied, report = absorbed(network)
    assert_same_in_both_modes(network, copied)
    if name == "returns":
        assert "the model's output" in report.standalone["a"]
    if name == "auxiliary" and joint:
        assert {*report.canonical} >= {"a", "b", "c"}


def test_several_inputs() -> None:
    def run(s: Any, x: Tensor, z: Tensor) -> Any:
        y = s.a(s.stem(x)) * s.a(s.stem(z))
        return head(s, s.b(y)), head(s, s.c(y) + s.bn(s.m(s.stem(z)) * y))

    network = sparse(graph(run, Graph2, m=conv(8, 1)), keep_dense=("m",))
    copied, report = absorbed(network)
    assert_same_in_both_modes(network, copied, (image(), image(seed=2)))
    assert report.canonical == ("a", "b", "c")


def test_a_submodule_of_several_outputs() -> None:
    def parts(s: Any, y: Tensor) -> Any:
        return {"c": s.c(y), "more": (s.d(y), [y])}

    def run(s: Any, y: Tensor) -> Tensor:
        found = s.m(y)
        return found["c"] + found["more"][0] * found["more"][1][0]

    network = sparse(between(run, m=Graph(parts, c=conv(8), d=conv(8))))
    copied, report = absorbed(network)
    assert_same_in_both_modes(network, copied)
    assert not report.standalone


CHECKPOINTS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a module": lambda s, y: checkpoint(s.m, y, use_reentrant=False),
    "a function": lambda s, y: checkpoint(lambda t: s.m(t).relu() + t, y, use_reentrant=False),
    "in training": lambda s, y: checkpoint(s.m, y, use_reentrant=False) if s.training else s.m(y),
    "a sequence": lambda s, y: checkpoint_sequential(s.m, 2, y, use_reentrant=False),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints(name: str) -> None:
    part = nn.Sequential(conv(8), nn.BatchNorm2d(8), nn.ReLU(), conv(8))
    network = sparse(between(CHECKPOINTS[name], m=part))
    copied, _ = absorbed(network)
    assert_same_in_both_modes(network, copied)


def test_reentrant_checkpoints() -> None:
    part = nn.Sequential(conv(8), nn.ReLU(), conv(8))
    network = sparse(between(lambda s, y: checkpoint(s.m, y, use_reentrant=True), m=part))
    copied, _ = absorbed(network)
    got = []
    for each in (network, copied):
        x = image().requires_grad_()
        y = each(x)
        y.square().sum().backward()
        got.append((y.detach(), x.grad))
    torch.testing.assert_close(got[1], got[0])


class Weighs(torch.autograd.Function):
    """A copy whose gradient has a scale for each channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad * RAMP


def test_a_gradient_of_its_own() -> None:
    network = sparse(between(lambda s, y: Weighs.apply(y)))
    copied, _ = absorbed(network)
    assert_same_in_both_modes(network, copied)


def test_an_in_place_activation_right_after_a_sparse_layer() -> None:
    network = sparse(between(lambda s, y: y.relu_()))
    copied, _ = absorbed(network)
    with torch.no_grad():
        torch.testing.assert_close(copied(image()), network(image()))
    assert len(outcome(copied, (image(),))) == 2
    assert len(outcome(network, (image(),))) == 2
