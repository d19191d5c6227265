"""absorb and models that are no common module: it never raises, and says what it could not do."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from hrbp_core.permute import absorb
from tests.network_checks import absorbed, assert_same_in_both_modes, image, one_thread, sparse
from tests.network_samples import Graph, between, conv, graph, head


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


def plain(s: Any, x: Tensor) -> Tensor:
    return head(s, s.b(s.a(s.stem(x)).relu()))


def test_a_scripted_model() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.script(nn.Sequential(conv(3, 8), nn.ReLU()))
    copied, report = absorb(model)
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(copied(x), model(x))
    assert report.untraced is not None


def test_a_graph_module() -> None:
    network = sparse(fx.symbolic_trace(graph(plain)))
    copied, report = absorb(network)
    assert_same_in_both_modes(network, copied)
    assert report.canonical == ("a", "b")


class Decorated(Graph):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def test_a_decorated_forward() -> None:
    network = sparse(graph(plain, Decorated))
    copied, report = absorbed(network)
    torch.testing.assert_close(copied(image()), network(image()))
    assert report.canonical == ("a", "b")


class Partial(Graph):
    def scaled(self, x: Tensor, scale: float) -> Any:
        return self.run(self, x) * scale

    forward = functools.partialmethod(scaled, scale=2.0)  # type: ignore[assignment]


class Called:
    def __call__(self, model: Any, x: Tensor) -> Any:
        return model.run(model, x)

    def __get__(self, model: Any, kind: Any) -> Any:
        return functools.partial(self, model) if model is not None else self


class ByObject(Graph):
    forward = Called()  # type: ignore[assignment]


class Several(Graph):
    def forward(self, *inputs: Tensor, **options: Any) -> Any:  # type: ignore[override]
        return self.run(self, inputs[0]) * options.get("scale", 1)


class Unwilling(Graph):
    def train(self, mode: bool = True) -> Any:
        if mode:
            raise RuntimeError("frozen for good")
        return super().train(mode)


@pytest.mark.parametrize("kind", [Partial, ByObject, Several, Unwilling])
def test_forwards_that_fx_does_not_take(kind: type[Graph]) -> None:
    network = sparse(graph(plain, kind))
    copied, report = absorbed(network)
    torch.testing.assert_close(copied.eval()(image()), network.eval()(image()))
    assert {*report.standalone} | {*report.canonical} == {"a", "b"}
    assert report.untraced is not None or "b" in report.canonical


def test_a_layer_that_has_seen_no_input() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lazy = nn.LazyConv2d(4, 1)
    network = sparse(graph(plain))
    network.lazy = lazy
    copied, report = absorb(network, unused=["lazy"])
    torch.testing.assert_close(copied.eval()(image()), network.eval()(image()))
    assert isinstance(copied.lazy, nn.LazyConv2d)
    assert report.untraced is not None or report.canonical == ("a", "b")


def test_a_gradient_hook_in_the_forward() -> None:
    ramp = torch.linspace(0.5, 2, 8, dtype=torch.float64).view(8, 1, 1)

    def weighed(grad: Tensor) -> Tensor:
        return grad * ramp

    def run(s: Any, y: Tensor) -> Tensor:
        y = y * 1
        if y.requires_grad is not False:
            y.register_hook(weighed)
        return y.relu()

    network = sparse(between(run))
    copied, _ = absorbed(network)
    assert_same_in_both_modes(network, copied)


class Listed(Graph):
    """Takes a list of images, or a dictionary."""

    def forward(self, images: Any) -> Any:  # type: ignore[override]
        one, other = (images[key] for key in ((0, 1) if self.listed else ("one", "other")))
        return head(self, self.b(self.a(self.stem(one)) + self.stem(other)))  # type: ignore[operator]


@pytest.mark.parametrize("listed", [True, False])
def test_images_in_a_list_or_dictionary(listed: bool) -> None:
    model = graph(plain, Listed)
    model.listed = listed  # type: ignore[assignment]
    network = sparse(model)
    copied, report = absorbed(network)
    images: Any = [image(), image(seed=2)]
    images = images if listed else dict(zip(("one", "other"), images, strict=True))
    torch.testing.assert_close(copied(images), network(images))
    assert "fewer" not in str(report)
    assert "dimensions" not in str(report)
