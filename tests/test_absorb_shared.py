"""absorb and tensors or modules that stand in two places."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hrbp_core.permute import absorb
from tests.network_checks import (
    absorbed,
    assert_same,
    assert_same_in_both_modes,
    image,
    one_thread,
    sparse,
)
from tests.network_samples import between, conv, graph, head
from tests.test_absorb_modules import chain, check


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with one_thread():
        yield


def test_two_names_of_one_module() -> None:
    model = between(lambda s, y: s.bn(s.twin(s.d(s.bn(y)).relu())))
    model.d = model.twin = conv(8)  # type: ignore[assignment]
    model.e = nn.ModuleDict({"again": model.get_submodule("bn")})
    network = sparse(model)
    report = check(network)
    assert report.canonical == ("a", "b", "c", "d")


@pytest.mark.parametrize("pair", ["m n", "a b", "bn bn2", "fc fc2", "p q"])
def test_two_modules_share_a_parameter(pair: str) -> None:
    parts = {"m": conv(8), "n": conv(8), "fc2": nn.Linear(8, 5), "p": nn.PReLU(8), "q": nn.PReLU(8)}
    model = between(lambda s, y: s.q(s.m(s.bn2(s.n(s.p(s.bn(y)))))), **parts)
    inner = model.run
    model.run = lambda s, x: inner(s, x) + s.fc2(s.stem(x).mean((2, 3)))
    modules: Any = [model.get_submodule(name) for name in pair.split()]
    one, other = modules
    if pair != "a b":
        other.weight = one.weight
    network = sparse(model, keep_dense=("m", "n"))
    if pair == "a b":
        network.b.bias = network.a.bias
    report = check(network)
    for why in report.standalone.values():
        assert "does not call it" not in why


def _same(tensor: Tensor) -> Tensor:
    return tensor


HELD: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": _same, "a view": lambda t: t.view(8), "its data": lambda t: t.data
}  # fmt: skip


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("ahead", [True, False])
def test_two_norms_share_a_statistic(ahead: bool, held: str) -> None:
    where = "running_mean" if ahead else "running_var"

    def run(s: Any, y: Tensor) -> Tensor:
        return s.b(s.n(s.bn(y))) if ahead else s.n(s.b(s.bn(y)))

    network = sparse(between(run, n=nn.BatchNorm2d(8)))
    setattr(network.n, where, HELD[held](getattr(network.bn, where)))
    copied, _ = absorbed(network)
    assert_same(network.eval(), copied.eval(), (image(),))


def test_a_parameter_of_a_module_under_another_name() -> None:
    model = between(lambda s, y: s.bn(y) * s.scale.view(-1, 1, 1))
    model.scale = model.get_parameter("bn.weight")
    check(sparse(model))


def test_parameters_in_containers() -> None:
    scales = nn.ParameterList([torch.ones(8, 1, 1), torch.ones(8, 1, 1)])
    named = nn.ParameterDict({"shift": torch.ones(8, 1, 1)})
    check(sparse(between(lambda s, y: y * s.l[0] + s.l[1] * s.n["shift"], l=scales, n=named)))


def test_a_scripted_module() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()))
    network = sparse(chain(m=scripted))
    assert_same_in_both_modes(network, absorb(network)[0])


def test_a_module_in_a_plain_list() -> None:
    network = sparse(between(lambda s, y: s.hidden[0](y)))
    network.hidden = [conv(8).double()]
    report = check(network)
    assert report.untraced is not None
    assert {*report.standalone.values()} == {report.untraced}


def test_forwards_called_directly() -> None:
    report = check(sparse(between(lambda s, y: s.bn.forward(s.b.forward(y)))))
    assert report.untraced is not None


def test_a_model_of_one_sparse_layer() -> None:
    network = sparse(graph(lambda s, x: head(s, s.a(s.stem(x))))).a
    copied, report = absorbed(network)
    x = image(2, 8, 4, 4)
    assert_same(network, copied, (x,))
    assert report.untraced is not None
