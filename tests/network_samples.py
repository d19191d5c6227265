"""Small networks that fx can trace, and which of their sparse layers absorb has to make canonical.

All take images [N, 3, 8, 8]. ``stem`` stays dense; ``a``, ``b``, ``c`` become sparse in blocks
of 4. A network is a function of its modules, so that each is one expression.
"""

from __future__ import annotations

import operator
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Run = Callable[..., Any]


class Graph(nn.Module):
    """Modules, parameters and buffers by name, and a function of them and one input."""

    def __init__(self, run: Run, **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            if isinstance(part, nn.Module | nn.Parameter):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


class Graph2(Graph):
    """The same, of two inputs."""

    def forward(self, x: Tensor, z: Tensor) -> Any:  # type: ignore[override]
        return self.run(self, x, z)


def conv(channels: int, filters: int | None = None, taps: int = 3, **options: Any) -> nn.Conv2d:
    """Return a convolution that keeps the image's size."""
    options = {"padding": taps // 2} | options
    return nn.Conv2d(channels, filters or channels, taps, **options)


def graph(run: Run, kind: type[Graph] = Graph, **parts: Any) -> Graph:
    """Return a network of the usual parts that ``run`` names, and of others.

    A layer that is never called could be behind a branch, for all that absorb knows.
    """
    usual: dict[str, Any] = {
        "stem": conv(3, 8), "a": conv(8), "b": conv(8), "c": conv(8, bias=False),
        "bn": nn.BatchNorm2d(8), "bn2": nn.BatchNorm2d(8), "fc": nn.Linear(8, 5),
    }  # fmt: skip
    named = names_in(run)
    return kind(run, **({n: part for n, part in usual.items() if n in named} | parts))


def names_in(run: Run, seen: frozenset[Any] = frozenset()) -> set[str]:
    """Return the attributes that a function names, and the functions that it calls."""
    found: set[str] = set()
    codes = [run.__code__]
    for code in codes:
        found |= {*code.co_names}
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    cells = [cell.cell_contents for cell in run.__closure__ or ()]
    reached = [*cells, *(run.__globals__.get(name) for name in found)]
    for other in [r for part in cells if isinstance(part, dict) for r in part.values()] + reached:
        if isinstance(other, types.FunctionType) and other not in seen:
            found |= names_in(other, seen | {run, other})
    return found


def head(s: Any, y: Tensor) -> Tensor:
    """Return the scores of five classes."""
    return s.fc(y.mean((2, 3)))


def between(run: Run, **parts: Any) -> Graph:
    """Return stem, a, ``run(s, y)`` and b, c, classifier: what happens to a's filters?"""
    return graph(lambda s, x: head(s, s.c(F.relu(s.b(run(s, s.a(s.stem(x))))))), **parts)


class Sample(NamedTuple):
    """How to make a network, and the layers that are canonical at least after ``absorb``.

    All the same filters that nothing pins are shared in a joint conversion: that is when.
    """

    make: Callable[[], nn.Module]
    canonical: str


def _each(canonical: str, runs: dict[str, tuple[Run, dict[str, Callable[[], Any]]]]) -> dict:
    def made(run: Run, parts: dict[str, Callable[[], Any]]) -> Callable[[], nn.Module]:
        return lambda: between(run, **{name: part() for name, part in parts.items()})

    return {name: Sample(made(run, parts), canonical) for name, (run, parts) in runs.items()}


def _module(canonical: str, modules: dict[str, Callable[[], nn.Module]]) -> dict:
    return _each(canonical, {n: (lambda s, y: s.m(y), {"m": m}) for n, m in modules.items()})


# what lets an order through ------------------------------------------------------------------

ACTIVATIONS = (
    nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardtanh,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Softplus,
    nn.Softsign, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Identity,
)  # fmt: skip
PASSED = {
    **_module("a b c", {
        "batch norm": lambda: nn.BatchNorm2d(8),
        "batch norm without affine": lambda: nn.BatchNorm2d(8, affine=False),
        "batch norm without statistics": lambda: nn.BatchNorm2d(8, track_running_stats=False),
        "activations": lambda: nn.Sequential(*(kind() for kind in ACTIVATIONS)),
        "in-place activations": lambda: nn.Sequential(
            nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.BatchNorm2d(8), nn.SiLU(inplace=True)
        ),
        "PReLU of each channel": lambda: nn.PReLU(8),
        "max pool": lambda: nn.MaxPool2d(2),
        "average pool": lambda: nn.AvgPool2d(3, 2, 1),
        "adaptive pools": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(5), nn.AdaptiveMaxPool2d(3)),
        "upsampling": lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        "padding": lambda: nn.Sequential(
            nn.ZeroPad2d(1), nn.ReflectionPad2d((1, 0, 2, 0)), nn.ReplicationPad2d(1),
            nn.CircularPad2d(1),
        ),
        "dropout": lambda: nn.Sequential(nn.Dropout(0.0), nn.Dropout2d(0.0)),
        "depthwise": lambda: conv(8, groups=8),
        "GroupNorm of all": lambda: nn.GroupNorm(1, 8),
        "GroupNorm of each": lambda: nn.GroupNorm(8, 8),
        "InstanceNorm": lambda: nn.InstanceNorm2d(8),
        "InstanceNorm with affine": lambda: nn.InstanceNorm2d(8, affine=True),
        "InstanceNorm with statistics": lambda: nn.InstanceNorm2d(
            8, affine=True, track_running_stats=True
        ),
        "dense in between": lambda: nn.Sequential(conv(8, 12, 1, groups=1), nn.ReLU(), conv(12, 8)),
    }),
    **_each("a b c", {
        "functional": (lambda s, y: F.dropout(F.max_pool2d(F.gelu(y), 2), 0.0, s.training), {}),
        "methods": (lambda s, y: y.relu().tanh().clamp(-1, 2).abs().square().add(1).log(), {}),
        "in-place methods": (lambda s, y: s.bn(y).mul_(2).add_(1).relu_(), {}),
        "numbers": (lambda s, y: 1 - (2 * y + 1) / 3, {}),
        "interpolate": (lambda s, y: F.interpolate(y, size=(5, 6), mode="nearest"), {}),
        "pad pixels": (lambda s, y: F.pad(y, (1, 1, 0, 2)), {}),
        "slice pixels": (lambda s, y: y[:, :, ::2, 1:] + y[..., 1::2, :-1], {}),
        "residual": (lambda s, y: y + s.c(s.bn(s.b(y)).relu()), {}),
        "residual in place": (lambda s, y: operator.iadd(s.bn(s.b(y)), y), {}),
        "residual, pre-activation": (lambda s, y: s.bn2(s.c(F.relu(s.bn(y)))).add_(y), {}),
        "add with alpha": (lambda s, y: torch.add(y, s.b(y), alpha=-2), {}),
        "shortcut": (lambda s, y: s.d(y) + s.b(y), {"d": lambda: conv(8, 8, 1)}),
        "sum of three": (lambda s, y: sum([y, s.b(y), s.c(y)]) * 0.5, {}),
        "maximum": (lambda s, y: torch.maximum(s.b(y), s.c(y)) - torch.minimum(y, s.c(y)), {}),
        "gate of pixels": (lambda s, y: y * s.d(y).sigmoid(), {"d": lambda: conv(8, 1, 1)}),
        "squeeze-excitation of convolutions": (
            lambda s, y: y * s.e(s.d(y.mean((2, 3), keepdim=True)).relu()).sigmoid(),
            {"d": lambda: conv(8, taps=1), "e": lambda: conv(8, taps=1)},
        ),
        "a twice": (lambda s, y: s.a(y.relu()), {}),
        "the same BatchNorm twice": (lambda s, y: s.bn(s.b(s.bn(y)).relu()), {}),
        "the same PReLU twice": (
            lambda s, y: s.p(s.b(s.p(y))), {"p": lambda: nn.PReLU(8)}
        ),
        "shape asked for": (lambda s, y: F.interpolate(s.b(y), y.shape[2:]) / y.shape[1], {}),
    }),
}  # fmt: skip


def _flat(size: int, run: Run) -> Sample:
    def make() -> nn.Module:
        parts: dict[str, Any] = {"n": nn.BatchNorm1d(size), "g": nn.Linear(size, 8)}
        pooled = nn.AdaptiveAvgPool2d(int((size // 8) ** 0.5))
        return graph(
            lambda s, x: s.fc(s.g(s.n(run(s.p(s.b(s.a(s.stem(x))))))).relu()), p=pooled, **parts
        )

    return Sample(make, "a b")


FLATTENED = {
    f"{name}, {size // 8} pixels": _flat(size, run)
    for size in (8, 32)
    for name, run in {
        "flatten": lambda y: y.flatten(1),
        "torch.flatten": lambda y: torch.flatten(y, 1),
        "flatten to the last": lambda y: torch.flatten(y, 1, -1),
        "flatten by keyword": lambda y: torch.flatten(y, start_dim=1),
        "view": lambda y: y.contiguous().view(y.size(0), -1),
        "view of shape[0]": lambda y: y.contiguous().view(y.shape[0], -1),
        "view of size()[0]": lambda y: y.contiguous().view(y.size()[0], -1),
        "reshape": lambda y: y.reshape((y.size(0), -1)),
        "torch.reshape": lambda y: torch.reshape(y, (y.shape[0], -1)),
    }.items()
    if size == 32 or name in ("flatten", "view")
}


def _reduced(run: Run) -> Sample:
    return Sample(lambda: graph(lambda s, x: s.fc(run(s.b(s.a(s.stem(x)))))), "a b")


REDUCED = {
    name: _reduced(run)
    for name, run in {
        "mean": lambda y: y.mean((2, 3)),
        "mean of negative": lambda y: y.mean([-1, -2]),
        "mean by keyword": lambda y: torch.mean(y, dim=(-2, -1)),
        "one by one": lambda y: y.mean(3).mean(-1),
        "kept and squeezed": lambda y: y.mean((2, 3), keepdim=True).squeeze(3).squeeze(-1),
        "maximum": lambda y: y.amax((2, 3)),
        "sum": lambda y: torch.sum(y, (2, 3)),
        "pooled and flat": lambda y: F.adaptive_avg_pool2d(y, 1).flatten(1),
    }.items()
}

# concatenation -------------------------------------------------------------------------------


def joined(run: Run, wide: int, canonical: str, **parts: Callable[[], Any]) -> Sample:
    """Return a network that concatenates what ``run`` says, for ``w`` to read."""

    def make() -> nn.Module:
        made = {"w": conv(wide, 8), **{name: part() for name, part in parts.items()}}
        return graph(lambda s, x: head(s, s.w(run(s, s.stem(x)))), **made)

    return Sample(make, canonical)


def _dense_block(s: Any, y: Tensor) -> Tensor:
    for layer in (s.l1, s.l2):
        y = torch.cat((y, layer(F.relu(y))), 1)
    return s.n(y)


def _u_net(s: Any, y: Tensor) -> Tensor:
    low = s.b(F.max_pool2d(s.a(y), 2))
    return torch.cat([F.interpolate(low, scale_factor=2), y], dim=1)


CONCATENATED = {
    "two": joined(lambda s, y: torch.cat((s.a(y), s.b(y)), 1), 16, "a b w"),
    "negative": joined(lambda s, y: torch.cat([s.a(y), s.b(y)], -3).relu(), 16, "a b w"),
    "keywords": joined(lambda s, y: torch.cat(tensors=(s.a(y), y), dim=1), 16, "a w"),
    "the same twice": joined(lambda s, y: torch.concat((s.a(y), s.a(y)), 1), 16, "a w"),
    "dense block": joined(
        _dense_block, 24, "l1 l2 w", l1=lambda: conv(8), l2=lambda: conv(16, 8),
        n=lambda: nn.BatchNorm2d(24),
    ),
    "U-Net": joined(_u_net, 16, "a b w"),
    "of parts that blocks do not divide": joined(
        lambda s, y: torch.cat((s.d(y), s.b(y)), 1), 14, "", d=lambda: conv(8, 6)
    ),
    "last part that blocks do not divide": joined(
        lambda s, y: torch.cat((s.b(y), s.d(y)), 1), 14, "b d w", d=lambda: conv(8, 6)
    ),
    "and added to one of as many": joined(
        lambda s, y: s.d(y) + torch.cat((s.a(y), s.b(y)), 1), 16, "", d=lambda: conv(8, 16)
    ),
    "and added to another": joined(
        lambda s, y: torch.cat((y, s.a(y)), 1) * torch.cat((s.b(y), y), 1), 16, "a b w"
    ),
    "of images": joined(lambda s, y: torch.cat((s.a(y), s.b(y)), 0), 8, ""),
    "of pixels": joined(lambda s, y: torch.cat((s.a(y), s.b(y)), -1), 8, ""),
}  # fmt: skip
