"""absorb and forwards that read weights or keep state: same function, and the model untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from hrbp_core.conversion import convert
from tests.network_checks import (
    absorbed,
    assert_same_in_both_modes,
    image,
    one_thread,
    randomised,
    sparse,
    state,
)
from tests.network_samples import Graph, between, conv, graph, head

RAMP = torch.linspace(0.5, 2, 8, dtype=torch.float64).view(8, 1, 1)


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


# weights and statistics that the forward reads -----------------------------------------------

READS: dict[str, Callable[[Any], Tensor]] = {
    "a parameter": lambda s: s.bn.weight,
    "a parameter's value": lambda s: s.bn.weight.detach().abs(),
    "a statistic": lambda s: s.bn.running_var,
    "a statistic's root": lambda s: (s.bn.running_var + 1e-5).rsqrt(),
    "a statistic's clone": lambda s: s.bn.running_mean.clone(),
    "a number of a statistic": lambda s: RAMP * s.bn.running_var.argmax().item(),
    "the state": lambda s: s.state_dict()["bn.bias"] * 2,
    "a list of parameters": lambda s: list(s.bn.parameters())[1] * 3,
    "named parameters": lambda s: dict(s.named_parameters())["bn.weight"] + 1,
    "_buffers": lambda s: s.bn._buffers["running_mean"] - 1,
    "a sparse layer's bias": lambda s: s.a.bias * 2,
    "a sparse layer's values": lambda s: s.a.values.sum(1)[:8],
    "a dense layer's weight": lambda s: s.m.weight.sum((1, 2, 3)),
    "a linear layer's weight": lambda s: s.fc.weight[2],
}  # fmt: skip


@pytest.mark.parametrize("name", READS)
def test_weights_that_the_forward_reads(name: str) -> None:
    read = READS[name]

    def run(s: Any, x: Tensor) -> Tensor:
        y = s.stem(x)
        ours = head(s, s.c(s.m(s.b(s.bn(s.a(y)).relu()))))
        return ours + s.g((y * read(s).view(-1, 1, 1)).mean((2, 3)))

    network = sparse(graph(run, m=conv(8), g=nn.Linear(8, 5)), joint=False, keep_dense=("m",))
    copied, _ = absorbed(network)
    assert_same_in_both_modes(network, copied)


def test_a_penalty_of_all_weights() -> None:
    def run(s: Any, y: Tensor) -> Any:
        return s.bn(y) / (1 + sum(p.square().sum() for p in s.parameters()))

    network = sparse(between(run), joint=False)
    copied, _ = absorbed(network)
    assert_same_in_both_modes(network, copied)


@pytest.mark.parametrize("layer", ["bn", "m", "d"])
def test_a_weight_borrowed_for_another_tensor(layer: str) -> None:
    def run(s: Any, y: Tensor) -> Tensor:
        z = s.m(s.bn(s.b(y)))
        if layer == "bn":
            return z + F.batch_norm(y, s.bn.running_mean, s.bn.running_var, s.bn.weight, s.bn.bias)
        weight = s.m.weight if layer == "m" else s.d.weight.transpose(0, 1)
        return z + F.conv2d(y, weight, padding=1)

    parts = {"m": conv(8), "d": conv(8)} if layer == "d" else {"m": conv(8)}
    network = sparse(between(run, **parts), keep_dense=tuple(parts))
    copied, report = absorbed(network)
    assert report.untraced is None
    assert_same_in_both_modes(network, copied)


# what a forward leaves behind ----------------------------------------------------------------


class Keeps(nn.Module):
    """Keeps the last feature, counts its calls, moves an average."""

    count: Tensor
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.last: Any = None
        self.calls: list[Any] = []
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("mean", torch.zeros(8, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        self.last = x.detach()
        self.calls.append("x")
        self.count += 1
        self.mean = self.mean * 0.9
        return x * self.count


class Remembers(nn.Module):
    """Adds what it saw in the call before."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Any = None

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.before is None else x + self.before
        self.before = x.detach()
        return y


class Starts(nn.Module):
    """Takes its shift from the first batch, as ActNorm does."""

    started: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(8, 1, 1))
        self.register_buffer("started", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self.started:
            self.shift.data.copy_(-x.detach().mean((0, 2, 3), keepdim=True)[0])
            self.started.fill_(1)
        return x + self.shift


STATEFUL: dict[str, Callable[[], nn.Module]] = {
    "keeps": Keeps,
    "remembers": Remembers,
    "starts": Starts,
    "spectral norm": lambda: parametrizations.spectral_norm(conv(8)),
    "constants": lambda: Graph(lambda s, x: x * (s.scale * 2 + RAMP), scale=torch.ones(8, 1, 1)),
    "weights": lambda: Graph(lambda s, x: x * (next(s.m.parameters()) * 2), m=nn.PReLU()),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_convert_leaves_the_model_alone(name: str) -> None:
    model = randomised(between(lambda s, y: s.m(y), m=STATEFUL[name]()))
    before = state(model)
    convert(model, 0.5, block=4, method="shuffled")
    assert state(model) == before


@pytest.mark.parametrize("name", STATEFUL)
def test_what_a_forward_leaves_behind(name: str) -> None:
    network = sparse(between(lambda s, y: s.m(y), m=STATEFUL[name]()), joint=False)
    copied, _ = absorbed(network)
    here, there = dict(network.named_buffers()), dict(copied.named_buffers())
    assert all(torch.equal(there[name], here[name]) for name in ("m.count",) if name in here)
    for module, other in zip(network.modules(), copied.modules(), strict=True):
        assert vars(module).keys() == vars(other).keys()
        for key in ("last", "before", "calls"):
            assert getattr(module, key, None) == getattr(other, key, None)
    with torch.no_grad():
        for training in (True, True, False):
            expected = network.train(training)(image())
            torch.testing.assert_close(copied.train(training)(image()), expected)


class Looks(nn.Module):
    """Keeps the last feature for whoever looks."""

    last: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = x.detach()
        return x.relu()


def test_a_kept_feature_is_in_order() -> None:
    network = sparse(between(lambda s, y: s.m(y), m=Looks()), joint=False)
    copied, _ = absorbed(network)
    for each in (network, copied):
        each.eval()(image())
    torch.testing.assert_close(copied.m.last, network.m.last)


# tensors that are not what the layer was made with ----------------------------------------------


class Sets(nn.Module):
    """Computes a tensor of its layer in every forward, and puts it there."""

    def __init__(self, layer: nn.Module, name: str) -> None:
        super().__init__()
        self.layer, self.name = layer, name
        self.raw: Any = None

    def take(self) -> None:
        """Make the layer's parameter one of its own."""
        self.raw = nn.Parameter(getattr(self.layer, self.name).detach().clone())
        delattr(self.layer, self.name)
        setattr(self.layer, self.name, self.raw.detach())

    def forward(self, x: Tensor) -> Tensor:
        setattr(self.layer, self.name, self.raw.tanh())
        return self.layer(x)


SET: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "weight of a convolution": (lambda: conv(8), "weight"),
    "bias of a convolution": (lambda: conv(8), "bias"),
    "bias of a norm": (lambda: nn.BatchNorm2d(8), "bias"),
    "weight of a PReLU": (lambda: nn.PReLU(8), "weight"),
    "bias of a sparse layer": (lambda: conv(8), "bias"),
    "values of a sparse layer": (lambda: conv(8), "values"),
}


@pytest.mark.parametrize("name", SET)
def test_what_the_forward_sets(name: str) -> None:
    make, tensor = SET[name]
    dense = ("m.layer",) if name.endswith("convolution") else ()
    network = sparse(
        between(lambda s, y: s.m(y), m=Sets(make(), tensor)), joint=False, keep_dense=dense
    )
    network.m.take()
    copied, _ = absorbed(network)
    assert_same_in_both_modes(network, copied)


def test_a_statistic_that_the_forward_sets() -> None:
    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.raw = nn.BatchNorm2d(8), nn.Parameter(torch.ones(8))

        def forward(self, x: Tensor) -> Tensor:
            self.norm.running_var = self.raw.detach().square() + 0.1
            return self.norm(x)

    network = sparse(between(lambda s, y: s.m(y), m=Scales()), joint=False)
    variance = network.m.norm.running_var
    del network.m.norm.running_var
    network.m.norm.running_var = variance
    copied, _ = absorbed(network)
    for each in (network, copied):
        each.eval()
    torch.testing.assert_close(copied(image()), network(image()))


class Centred(nn.Conv2d):
    """Its weight is another one for whoever asks."""

    def __getattr__(self, name: str) -> Any:
        found: Any = super().__getattr__(name)
        return RAMP.view(8, 1, 1, 1) * found if name == "weight" else found


def test_a_weight_that_is_computed_when_asked_for() -> None:
    network = sparse(between(lambda s, y: s.m(y), m=Centred(8, 8, 3, padding=1)), keep_dense=("m",))
    copied, _ = absorbed(network)
    assert_same_in_both_modes(network, copied)
