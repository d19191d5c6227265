"""absorb and modules that are not what their class says: hooks, own forwards, shared weights."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from hrbp_core.nn import BlockSparseConv2d
from tests.network_checks import (
    absorbed,
    assert_same_in_both_modes,
    image,
    one_thread,
    sparse,
)
from tests.network_samples import between, conv

RAMP = torch.linspace(0.5, 2, 8, dtype=torch.float64).view(8, 1, 1)


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


def chain(**parts: nn.Module | Tensor) -> Any:
    """Return stem, a, m, b, c, classifier; m is a BatchNorm unless given."""
    return between(lambda s, y: s.m(y), **({"m": nn.BatchNorm2d(8)} | parts))


def check(network: nn.Module) -> Any:
    copied, report = absorbed(network)
    assert_same_in_both_modes(network, copied)
    return report


# classes of one's own ------------------------------------------------------------------------


class Scaled:
    """Mixed into one of torch's classes: each channel has a scale of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * RAMP.view(8) if x.dim() == 2 else super().forward(x) * RAMP  # type: ignore[misc]


class ScaledNorm(Scaled, nn.BatchNorm2d):
    pass


class ScaledConv(Scaled, nn.Conv2d):
    pass


class ScaledSparse(Scaled, BlockSparseConv2d):
    pass


class Flipped(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight, bias).flip(1)


class FlippedCall(nn.BatchNorm2d):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x.flip(1))


class Rolled(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).roll(1, 1)


class RolledPool(nn.MaxPool2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).roll(1, 1)


class Plain(nn.BatchNorm2d):
    """Adds nothing that counts."""


OWN: dict[str, Callable[[], nn.Module]] = {
    "norm": lambda: ScaledNorm(8),
    "convolution": lambda: ScaledConv(8, 8, 3, padding=1),
    "_conv_forward": lambda: Flipped(8, 8, 3, padding=1),
    "__call__": lambda: FlippedCall(8),
    "activation": Rolled,
    "pool": lambda: RolledPool(2),
}


@pytest.mark.parametrize("name", OWN)
def test_subclasses_with_a_forward_of_their_own(name: str) -> None:
    check(sparse(chain(m=OWN[name]()), joint=False))


class CalledConv(nn.Conv2d):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x).flip(1)


def test_a_convolution_with_a_call_of_its_own_stays_dense() -> None:
    network = sparse(chain(m=CalledConv(8, 8, 3, padding=1)))
    assert type(network.m) is CalledConv
    check(network)


def test_a_subclass_that_changes_nothing_is_followed() -> None:
    assert check(sparse(chain(m=Plain(8)))).canonical == ("a", "b", "c")


def test_a_linear_layer_with_a_forward_of_its_own() -> None:
    class Reversed(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flip(1))

    check(sparse(chain(fc=Reversed(8, 5))))


def test_a_sparse_layer_with_a_forward_of_its_own() -> None:
    network = sparse(chain())
    network.b.__class__ = ScaledSparse
    check(network)


PATCHED = ["bn", "act", "m", "b", "fc"]


@pytest.mark.parametrize("name", PATCHED)
def test_a_forward_put_on_one_object(name: str) -> None:
    parts = {"m": conv(8), "act": nn.ReLU()}
    network = sparse(
        between(lambda s, y: s.m(s.act(s.bn(y))), **parts), keep_dense=("m",), joint=False
    )
    module = getattr(network, name)
    scale = torch.arange(1.0, 6) if name == "fc" else RAMP

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        y = type(self).forward(self, x.flip(1))  # type: ignore[operator]
        return y * scale

    module.forward = types.MethodType(forward, module)
    check(network)


def test_a_part_of_the_forward_put_on_one_object() -> None:
    network = sparse(chain(m=conv(8)), keep_dense=("m",))

    def forward(self: Any, x: Tensor, *rest: Any) -> Tensor:
        return type(self)._conv_forward(self, x.flip(1), *rest)

    network.m._conv_forward = types.MethodType(forward, network.m)
    check(network)


def test_a_forward_put_on_the_model() -> None:
    network = sparse(chain())
    network.forward = types.MethodType(lambda self, x: self.m(self.a(self.stem(x))), network)
    check(network)


# hooks ---------------------------------------------------------------------------------------

Hook = Callable[[nn.Module], Any]


def _weighed(gradients: Any) -> Any:
    return (gradients[0] * RAMP,)


HOOKS: dict[str, Hook] = {
    "forward": lambda m: m.register_forward_hook(lambda m, i, y: y * RAMP),
    "forward pre": lambda m: m.register_forward_pre_hook(lambda m, i: i[0] * RAMP),
    "full backward": lambda m: m.register_full_backward_hook(lambda m, i, o: _weighed(i)),
    "full backward pre": lambda m: m.register_full_backward_pre_hook(lambda m, o: _weighed(o)),
}
HOOKED = [
    *(("forward", name) for name in ("a", "m", "act", "block", "block.0")),
    ("forward pre", "a"), ("forward pre", "m"), ("forward pre", "block"),
    *(("full backward", name) for name in ("a", "act", "block")),
    ("full backward pre", "m"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:For backward hooks to be called")  # of proxies
@pytest.mark.parametrize(("kind", "name"), HOOKED)
def test_hooks(kind: str, name: str) -> None:
    parts = {"act": nn.ReLU(), "m": nn.BatchNorm2d(8), "block": nn.Sequential(conv(8), nn.Tanh())}
    network = sparse(between(lambda s, y: s.block(s.act(s.m(y))), **parts), joint=False)
    HOOKS[kind](network.get_submodule(name))
    report = check(network)
    for layer, why in report.standalone.items():
        assert "does not call it" not in why, layer


def test_what_a_hook_sees_is_in_order() -> None:
    seen: list[Any] = []
    network = sparse(chain(m=nn.Sequential(conv(8), nn.ReLU())))
    network.m.register_forward_hook(lambda m, i, y: seen.append(y.detach()))
    copied, _ = absorbed(network)
    seen.clear()
    for each in (network, copied):
        each.eval()(image())
    torch.testing.assert_close(seen[1], seen[0])


def test_a_hook_of_the_model_reads_a_weight() -> None:
    network = sparse(chain())
    network.register_forward_hook(lambda m, x, y: y * m.m.weight[:5] + m.m.bias[3:])
    check(network)


class BatchNormAct2d(nn.BatchNorm2d):
    """As timm's: a norm and an activation in one module."""

    def __init__(self, channels: int, act: nn.Module) -> None:
        super().__init__(channels)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


BatchNormAct2d.__module__ = "timm.layers.norm_act"


@pytest.mark.parametrize("kind", ["plain", "own forward", "hook", "put", "PReLU"])
def test_a_norm_with_an_activation_inside(kind: str) -> None:
    act = Rolled() if kind == "own forward" else nn.PReLU(8) if kind == "PReLU" else nn.ReLU()
    network = sparse(chain(m=BatchNormAct2d(8, act)))
    inside = network.m.act
    if kind == "hook":
        inside.register_forward_hook(lambda m, x, y: y * RAMP)
    if kind == "put":
        inside.forward = types.MethodType(lambda self, x: x.relu().roll(1, 1), inside)
    report = check(network)
    assert kind != "plain" or report.canonical == ("a", "b", "c")


def test_the_old_norms_of_weights() -> None:
    model = between(lambda s, y: s.m(s.n(y)), m=conv(8), n=nn.utils.spectral_norm(conv(8)))
    network = sparse(model, keep_dense=("m",))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(network.m)
    check(network)


# parametrizations ----------------------------------------------------------------------------


class Tanh(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.tanh()


@pytest.mark.parametrize("where", ["a.bias", "b.bias", "bn.weight", "bn.bias", "m.weight", "m.bias",
                                   "stem.weight", "fc.weight", "prelu.weight"])  # fmt: skip
def test_parametrizations(where: str) -> None:
    parts = {"m": conv(8), "prelu": nn.PReLU(8)}
    model = between(lambda s, y: s.m(s.prelu(s.bn(y))), **parts)
    network = sparse(model, keep_dense=("m",))
    name, _, tensor = where.partition(".")
    parametrize.register_parametrization(network.get_submodule(name), tensor, Tanh())
    check(network)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_the_new_norms_of_weights(norm: Callable[[nn.Module], nn.Module]) -> None:
    network = sparse(chain(m=norm(conv(8))))
    assert isinstance(network.m, nn.Conv2d)
    check(network.eval())
