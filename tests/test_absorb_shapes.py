"""absorb where a tensor's dimensions are not what they seem: no order may slip into pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.network_checks import (
    absorbed,
    assert_absorbs,
    assert_same,
    assert_same_in_both_modes,
    image,
    one_thread,
    sparse,
)
from tests.network_samples import Graph2, conv, graph, head


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


def features(s: Any, x: Tensor) -> Tensor:
    """Return [N, 8, 8, 8], whose channels nothing has pinned yet."""
    return s.b(F.relu(s.a(s.stem(x))))


def pooled(s: Any, x: Tensor) -> Tensor:
    """Return [N, 8, 1, 1]."""
    return F.adaptive_avg_pool2d(features(s, x), 1)


class OwnNorm(nn.InstanceNorm2d):
    """Another name, nothing else."""


# modules for images, given what they take for one image without a batch ------------------------

NO_BATCH = {
    "AvgPool2d of three": (nn.AvgPool2d(3, 1, 1), 3),
    "MaxPool2d of three": (nn.MaxPool2d(3, 1, 1), 3),
    "LPPool2d of three": (nn.Sequential(nn.LPPool2d(2, 3, 1), nn.ZeroPad2d(1)), 3),
    "AdaptiveAvgPool2d of three": (
        nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.AdaptiveAvgPool2d(8)), 3
    ),
    "AdaptiveMaxPool2d of three": (nn.Sequential(nn.AdaptiveMaxPool2d(4), nn.Flatten()), 3),
    "paddings of three": (
        nn.Sequential(nn.ReflectionPad2d((0, 0, 1, 1)), nn.AvgPool2d(3, 1, (0, 1))), 3
    ),
    "depthwise of three": (nn.Conv2d(8, 8, 3, padding=1, groups=8), 3),
    "InstanceNorm2d of three": (nn.InstanceNorm2d(8, affine=True), 3),
    "AvgPool1d of two": (nn.AvgPool1d(3, 1, 1), 2),
    "MaxPool1d of two": (nn.MaxPool1d(3, 1, 1), 2),
    "AdaptiveAvgPool1d of two": (
        nn.Sequential(nn.AdaptiveAvgPool1d(4), nn.AdaptiveAvgPool1d(8)), 2
    ),
    "InstanceNorm1d of two": (nn.InstanceNorm1d(8, affine=True), 2),
    "a subclass of InstanceNorm2d of three": (OwnNorm(8, affine=True), 3),
    "MaxPool3d of four": (nn.MaxPool3d((3, 1, 1), 1, (1, 0, 0)), 4),
    "AvgPool3d of four": (nn.AvgPool3d(3, 1, 1), 4),
    "AdaptiveAvgPool3d of four": (
        nn.Sequential(nn.AdaptiveAvgPool3d(4), nn.AdaptiveAvgPool3d((8, 2, 2))), 4
    ),
    "InstanceNorm3d of four": (nn.InstanceNorm3d(8, affine=True), 4),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_BATCH)
def test_a_module_that_takes_images_for_channels(name: str) -> None:
    module, rank = NO_BATCH[name]
    flat = "Flatten" in str(module)

    def run(s: Any, x: Tensor) -> Tensor:
        y = features(s, x).contiguous()
        y = s.m(y.mean((3, 2)[: 4 - rank]) if rank < 4 else y)
        return s.g(y) if flat else s.fc(y.mean(tuple(range(2, rank))) if rank > 2 else y)

    model = graph(run, m=module, g=nn.Linear(16, 5))
    delattr(model, "fc" if flat else "g")
    assert_absorbs(model, (image(8, 3, 8, 8),))


FUNCTIONS = {
    "avg_pool2d": lambda y: F.avg_pool2d(y, 3, 1, 1),
    "max_pool2d": lambda y: F.max_pool2d(y, 3, stride=1, padding=1),
    "adaptive_avg_pool2d": lambda y: F.adaptive_avg_pool2d(F.adaptive_avg_pool2d(y, 4), 8),
    "adaptive_max_pool2d": lambda y: F.adaptive_max_pool2d(F.adaptive_max_pool2d(y, 4), (8, 8)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_takes_images_for_channels(name: str) -> None:
    pool = FUNCTIONS[name]
    assert_absorbs(graph(lambda s, x: s.fc(pool(features(s, x).mean(3)).mean(2))))


ONE_IMAGE = {
    "index": lambda z: z[0],
    "squeeze": lambda z: z[:1].squeeze(0),
    "mean": lambda z: z.mean(0),
    "unbind": lambda z: z.unbind(0)[1],
    "flatten": lambda z: z[:1].flatten(0, 1),
    "values": lambda z: z.max(0).values,
    "deviation": lambda z: z.std(0),
    "view": lambda z: z[:1].reshape(z.shape[1:]),
}


@pytest.mark.parametrize("name", ONE_IMAGE)
def test_a_convolution_of_one_image_without_a_batch(name: str) -> None:
    one = ONE_IMAGE[name]

    def run(s: Any, x: Tensor) -> Tensor:
        z = features(s, x)
        return head(s, s.c(s.m(z))) + s.g(s.m(one(z)).flatten(1))[0]

    model = graph(run, m=conv(8), g=nn.Linear(64, 5))
    assert_absorbs(model, keep_dense=("m",))


# reshapes --------------------------------------------------------------------------------------


def _views(s: Any, x: Tensor) -> Tensor:
    """Several pictures of one thing: their features lie side by side."""
    return s.g(F.avg_pool2d(features(s, x.flatten(0, 1)), 4).reshape(x.size(0), -1))


def _views_of_shape(s: Any, x: Tensor) -> Tensor:
    n, t, c, h, w = x.shape
    y = F.avg_pool2d(features(s, x.reshape(n * t, c, h, w)), 8)
    return s.g(y.contiguous().view(x.shape[0], -1))


@pytest.mark.parametrize("run", [_views, _views_of_shape])
def test_several_pictures_of_one_thing(run: Any) -> None:
    wide = nn.Linear(96 if run is _views else 24, 5)
    assert_absorbs(graph(run, g=wide), (image(2, 3, 3, 8, 8),))


def test_one_thing_added_to_several() -> None:
    def run(s: Any, x: Tensor, z: Tensor) -> Tensor:
        y = s.a(s.stem(x)) + s.b(s.stem(z))  # one image and three
        return s.g(F.avg_pool2d(y, 4).reshape(x.size(0), -1))

    model = graph(run, Graph2, g=nn.Linear(96, 5))
    assert_absorbs(model, (image(1, 3, 8, 8), image(3, 3, 8, 8)))


RESHAPED = {
    "flatten up to a dimension": lambda s, y: torch.flatten(y, end_dim=1),
    "method flatten up to a dimension": lambda s, y: y.flatten(end_dim=1).relu(),
    "flatten of pixels": lambda s, y: y.flatten(2).mean(1)[:, :8],
    "flatten of all": lambda s, y: s.h(F.avg_pool2d(y, 8).flatten()),
    "view by another batch": lambda s, y: y.mean((2, 3)).reshape(s.k.size(0), -1),
    "view by features": lambda s, y: F.avg_pool2d(y, 8).reshape(y.size(0), y.size(1)),
    "view of a transpose": lambda s, y: y.mean(3).transpose(1, 2).reshape(y.size(0), -1)[:, :8],
    "squeezed in vain": lambda s, y: y.squeeze(3).mean(2),
    "squeezed twice in vain": lambda s, y: y.squeeze(-1).squeeze(-1),
    "mean of images": lambda s, y: y.mean(0).mean((1, 2)),
    "pixels chosen": lambda s, y: y[:, :, 2, 3],
    "unflattened": lambda s, y: y.unflatten(1, (2, 4)).mean((3, 4)).flatten(1),
}


@pytest.mark.parametrize("name", RESHAPED)
def test_reshapes(name: str) -> None:
    reshape = RESHAPED[name]
    parts: dict[str, Any] = {"k": nn.Parameter(torch.ones(2, 3))}
    if name == "flatten of all":
        parts["h"] = nn.Linear(16, 8)
    network = sparse(graph(lambda s, x: s.fc(reshape(s, features(s, x))), **parts), joint=False)
    copied, report = absorbed(network)
    assert report.moved
    assert_same(network.eval(), copied.eval(), (image(),))


def test_view_by_the_extent_of_a_parameter() -> None:
    k = nn.Parameter(torch.ones(1, 2))
    model = graph(
        lambda s, x: s.g(F.avg_pool2d(features(s, x), 8).reshape(s.k.size(0), -1)),
        k=k, g=nn.Linear(16, 5),
    )  # fmt: skip
    assert_absorbs(model)


WIDENED: dict[str, tuple[Any, dict[str, Any]]] = {  # from one pixel to 8 x 8
    "interpolate": (lambda s, y: F.interpolate(y, size=(8, 8)), {}),
    "pad": (lambda s, y: F.pad(y, (3, 4, 0, 7)), {}),
    "pools": (lambda s, y: [y := F.max_pool2d(y, 2, 1, 1) for _ in range(7)][-1], {}),
    "pool modules": (
        lambda s, y: s.m(y), {"m": nn.Sequential(*(nn.MaxPool2d(2, 1, 1) for _ in range(7)))}
    ),
    "Upsample": (lambda s, y: s.m(y), {"m": nn.Upsample(size=(8, 8))}),
    "ZeroPad2d": (lambda s, y: s.m(y), {"m": nn.ZeroPad2d((0, 7, 3, 4))}),
    "convolution": (lambda s, y: s.m(y), {"m": nn.Conv2d(8, 8, 2, padding=4)}),
    "depthwise": (lambda s, y: s.m(y), {"m": nn.Conv2d(8, 8, 2, padding=4, groups=8)}),
    "of a convolution of one": (
        lambda s, y: F.pad(s.m(y), (0, 7, 0, 7)), {"m": nn.Conv2d(8, 8, 1)}
    ),
    "adaptive": (lambda s, y: F.adaptive_avg_pool2d(F.pad(y, (0, 1)), 8), {}),
    "adaptive module": (lambda s, y: s.m(y), {"m": nn.AdaptiveMaxPool2d((8, 8))}),
}  # fmt: skip


@pytest.mark.parametrize("name", WIDENED)
def test_one_pixel_becomes_several(name: str) -> None:
    widen, parts = WIDENED[name]

    def run(s: Any, x: Tensor) -> Tensor:
        return s.fc(widen(s, features(s, x).mean((2, 3), keepdim=True)).squeeze(3).mean(2))

    assert_absorbs(graph(run, **parts))


@pytest.mark.parametrize("ahead", [True, False])
def test_one_pixel_meets_several(ahead: bool) -> None:
    def run(s: Any, x: Tensor) -> Tensor:
        y = features(s, x)
        z = s.c(y).mean((2, 3), keepdim=True)
        return s.fc((z * y if ahead else y * z).squeeze(3).mean(2))

    assert_absorbs(graph(run))


# additions of what has different dimensions -----------------------------------------------------


def test_a_linear_layer_of_pixels_added_to_channels() -> None:
    def run(s: Any, x: Tensor) -> Tensor:
        y = features(s, x)
        return s.fc(s.m(y.flatten(1)) + y.mean((2, 3)))

    assert_absorbs(graph(run, m=nn.Linear(512, 8)))


def test_pixels_added_to_channels() -> None:
    def run(s: Any, x: Tensor) -> Tensor:
        y = features(s, x)
        pixels = F.avg_pool2d(s.m(y), (4, 2)).flatten(1)
        return s.g(F.avg_pool2d(y, 8).flatten(1) + pixels)

    assert_absorbs(graph(run, m=conv(8, 1), g=nn.Linear(8, 5)), keep_dense=("m",))


def test_one_channel_of_pixels_added_to_channels() -> None:
    def run(s: Any, x: Tensor) -> Tensor:
        y = s.w(s.a(s.stem(x)))
        return s.g(F.avg_pool2d(y, 4).flatten(1) + s.m(s.stem(x)).flatten(1))

    model = graph(run, w=conv(8, 16), m=conv(8, 1), g=nn.Linear(16, 5))
    assert_absorbs(model, (image(2, 3, 4, 4),), keep_dense=("m",), densities=0.6)


def test_a_linear_layer_reads_two_sizes_of_image() -> None:
    def run(s: Any, x: Tensor) -> Tensor:
        y = features(s, x)
        z = s.c(y)
        wide = torch.cat((F.adaptive_avg_pool2d(z, 1), F.adaptive_max_pool2d(z, 1)), 1)
        wide = torch.cat((wide, wide), 1)
        return s.m(F.adaptive_avg_pool2d(y, 2).flatten(1)) + s.m(wide.flatten(1))

    assert_absorbs(graph(run, m=nn.Linear(32, 5)))


def test_a_norm_reads_channels_and_pixels() -> None:
    def run(s: Any, x: Tensor) -> Tensor:
        y = features(s, x)
        one = s.n(F.adaptive_avg_pool2d(y, 2).flatten(1))
        two = s.n(torch.cat([y.mean((2, 3)), y.amax((2, 3)), y.mean((2, 3)), y.amax((2, 3))], 1))
        return s.m(one) + s.m(two)

    assert_absorbs(graph(run, n=nn.BatchNorm1d(32), m=nn.Linear(32, 5)))


def test_broadcasts() -> None:
    def run(s: Any, x: Tensor) -> Tensor:
        y = features(s, x)
        one = y * s.m(y) + y.mean((2, 3), keepdim=True) - s.m(y).mean((2, 3), keepdim=True)
        return head(s, s.c(one / (1 + y.amax((2,), True).abs())))

    network = sparse(graph(run, m=conv(8, 1)), keep_dense=("m",))
    copied, report = absorbed(network)
    assert_same_in_both_modes(network, copied)
    assert report.canonical == ("a", "b", "c")
