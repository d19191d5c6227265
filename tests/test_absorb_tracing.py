"""absorb and forwards that a trace does not show whole: never another function, never an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.network_checks import (
    absorbed,
    assert_same_in_both_modes,
    one_thread,
    sparse,
)
from tests.network_samples import Graph, between, conv, graph, head


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


class Two(nn.Module):
    """Two convolutions; what is done with them is for others to say."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.d = conv(8), conv(8)
        self.seen: Any = None


def chain(part: nn.Module) -> Graph:
    """Return stem, a, the part, b, c, classifier."""
    return between(lambda s, y: s.m(y), m=part)


# control flow that depends on data -----------------------------------------------------------


class Leaves(Two):
    """Leaves early in some modes, when the data say so; they always do."""

    def __init__(self, *modes: bool) -> None:
        super().__init__()
        self.modes = modes

    def forward(self, x: Tensor) -> Tensor:
        y = self.c(x).relu()
        if self.training in self.modes and y.abs().sum() > 0:
            return y
        return self.d(y)


@pytest.mark.parametrize("modes", [(True,), (False,), (True, False)])
@pytest.mark.parametrize("deep", [False, True])
def test_a_submodule_that_leaves_early(modes: tuple[bool, ...], deep: bool) -> None:
    part = (
        nn.Sequential(nn.ReLU(), nn.Sequential(Leaves(*modes), conv(8))) if deep else Leaves(*modes)
    )
    network = sparse(chain(part))
    copied, report = absorbed(network)
    assert_same_in_both_modes(network, copied)
    assert report.untraced is None
    assert list(report.boxes) == ["m.1.0" if deep else "m"]
    assert "control flow" in str(report)
    inside = {name for name in (*report.canonical, *report.standalone) if "m" in name}
    assert inside <= {*report.standalone}


def test_what_stands_beside_a_box_is_absorbed() -> None:
    part = nn.Sequential(Leaves(True, False), conv(8), nn.BatchNorm2d(8), conv(8))
    network = sparse(between(lambda s, y: s.n(s.m(s.p(y))), m=part, n=conv(8), p=conv(8)))
    copied, report = absorbed(network)
    assert_same_in_both_modes(network, copied)
    assert {"m.3", "c"} <= {*report.canonical}, str(report)
    assert list(report.boxes) == ["m.0"]


def test_the_model_itself_decides_by_data() -> None:
    network = sparse(between(lambda s, y: s.bn(y) if y.sum() > 1e9 else s.d(y), d=conv(8)))
    copied, report = absorbed(network)
    assert_same_in_both_modes(network, copied)
    assert report.untraced is not None
    assert "control flow" in report.untraced
    assert {*report.standalone.values()} == {report.untraced}


@pytest.mark.parametrize("name", ["unpacked", "item assignment", "len", "float"])
def test_what_proxies_cannot_do(name: str) -> None:
    def assign(y: Tensor) -> Tensor:
        y = y.clone()
        y[:, :3] = 0
        return y

    run: Callable[[Any, Tensor], Tensor] = {
        "unpacked": lambda s, y: torch.cat([p.relu() for p in y.chunk(2, 1)][::-1], 1),
        "item assignment": lambda s, y: assign(y),
        "len": lambda s, y: y / len(y),
        "float": lambda s, y: y * float(y.detach().mean()),
    }[name]
    network = sparse(between(run))
    copied, report = absorbed(network)
    assert_same_in_both_modes(network, copied)
    assert report.untraced is not None


class Shares(Two):
    """Decides by data, with convolutions that others call too."""

    def __init__(self, c: nn.Module) -> None:
        super().__init__()
        self.c = c  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        y = self.c(x)
        return self.d(y) if y.abs().sum() > 0 else y


@pytest.mark.parametrize("ahead", [True, False])
def test_a_box_shares_a_layer_with_others(ahead: bool) -> None:
    def run(s: Any, y: Tensor) -> Tensor:
        one, other = s.e(s.m(y).relu()), s.box(y)
        return one + other

    m = conv(8)
    box = Shares(m)
    parts = {"box": box, "m": m} if ahead else {"m": m, "box": box}
    network = sparse(between(run, e=conv(8), **parts))
    copied, _ = absorbed(network)
    assert_same_in_both_modes(network, copied)


class Stashes(Two):
    """Keeps a feature for others, then decides by data."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.c(x)
        return self.d(self.seen) if self.seen.abs().sum() > 0 else x


def test_a_box_keeps_what_others_read() -> None:
    network = sparse(between(lambda s, y: s.m(y) + s.b(s.m.seen), m=Stashes()), joint=False)
    copied, _ = absorbed(network)
    assert_same_in_both_modes(network, copied)


class Takes(Two):
    """Decides by data, and reads what others left."""

    def forward(self, x: Tensor) -> Tensor:
        return self.d(x) + self.seen if x.abs().sum() > 0 else x


@pytest.mark.parametrize("cleared", [True, False])
def test_a_box_reads_what_others_left(cleared: bool) -> None:
    def run(s: Any, y: Tensor) -> Tensor:
        z = s.m.seen = s.b(y).relu()
        w = s.m(s.stem.last)
        if cleared:
            s.m.seen = None
        return s.c(z) + w

    def whole(s: Any, x: Tensor) -> Tensor:
        s.stem.last = s.stem(x)
        return head(s, s.e(run(s, s.a(s.stem.last))))

    network = sparse(graph(whole, m=Takes(), e=conv(8)), joint=False)
    copied, _ = absorbed(network)
    assert_same_in_both_modes(network, copied)


class State:
    """What modules share, other than modules and tensors."""

    seen: Any = None


class TakesFirst(Two):
    """Reads what others left in an object, then decides by data."""

    def __init__(self, shared: State) -> None:
        super().__init__()
        self.shared = shared
        del self.c

    def forward(self, x: Tensor) -> Tensor:
        y = self.d(x) + self.shared.seen
        return y if y.abs().sum() > 0 else x


def test_a_box_reads_what_others_left_in_an_object() -> None:
    def run(s: Any, x: Tensor) -> Tensor:
        y = s.stem(x)
        s.m.shared.seen = s.b(s.a(y)).relu()
        return head(s, s.e(s.c(s.m.shared.seen) + s.m(y)))

    network = sparse(graph(run, m=TakesFirst(State()), e=conv(8)), joint=False)
    copied, report = absorbed(network)
    assert list(report.boxes) == ["m"]
    assert_same_in_both_modes(network, copied)


class Refers(nn.Module):
    """Decides by data, and uses a layer that it holds in a list, before or after."""

    def __init__(self, use: str) -> None:
        super().__init__()
        self.use = use
        self.others: list[Any] = []

    def forward(self, x: Tensor) -> Tensor:
        other = self.others[0]
        if self.use == "calls":
            x = other(x)
        elif self.use == "reads":
            x = x * other.weight.view(-1, 1, 1)
        if x.abs().sum() > 0 and self.use == "reads later":
            return x + other.weight.view(-1, 1, 1)
        return x


@pytest.mark.parametrize("use", ["calls", "reads", "reads later"])
def test_a_box_uses_a_layer_that_it_does_not_own(use: str) -> None:
    def run(s: Any, x: Tensor) -> Tensor:
        y = s.stem(x)
        return head(s, s.c(s.b(s.bn(s.a(y)).relu()))) + s.g(s.m(y).mean((2, 3)))

    model = graph(run, m=Refers(use), g=nn.Linear(8, 5))
    model.get_submodule("m").others.append(model.bn)  # type: ignore[union-attr, operator]
    network = sparse(model, joint=False)
    copied, _ = absorbed(network)
    assert_same_in_both_modes(network, copied)
