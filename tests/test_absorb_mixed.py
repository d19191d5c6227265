"""absorb where something sees the order of the channels: the function stays, the report says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.network_checks import absorbed, assert_same, image, one_thread, sparse
from tests.network_samples import between, conv


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


def _shuffle(y: Tensor) -> Tensor:
    n, c, h, w = y.shape
    return y.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def _excite(s: Any, y: Tensor) -> Tensor:
    n, c = y.size(0), y.size(1)
    return y * s.e(s.d(y.mean((2, 3))).relu()).sigmoid().view(n, c, 1, 1)


def _swap(y: Tensor) -> Tensor:
    one, other = y.chunk(2, dim=1)
    return torch.cat((other, one.relu()), 1)


def _attend(y: Tensor) -> Tensor:
    flat = y.flatten(2)
    return (flat @ flat.mT / 64).softmax(-1)[:, :, :1, None] * y


LAST = {"m": lambda: nn.Linear(8, 8)}  # of four dimensions: it works on the last
LINEARS = {"d": lambda: nn.Linear(8, 6), "e": lambda: nn.Linear(6, 8)}
RAMP = torch.linspace(0.5, 2, 8, dtype=torch.float64).view(1, 8, 1, 1)
MIXED: dict[str, Any] = {
    "Linear on the last of four": (lambda s, y: s.m(y), LAST),
    "grouped": (lambda s, y: s.m(y), {"m": lambda: conv(8, groups=2)}),
    "depthwise, two filters a channel": (
        lambda s, y: s.m(y), {"m": lambda: nn.Sequential(conv(8, 16, groups=8), conv(16, 8))}
    ),
    "shuffle of pixels": (
        lambda s, y: s.m(y), {"m": lambda: nn.Sequential(nn.PixelShuffle(2), conv(2, 8))}
    ),
    "unshuffle": (lambda s, y: F.pixel_unshuffle(F.pixel_shuffle(y, 2), 2).roll(1, 1), {}),
    "nn.ChannelShuffle": (lambda s, y: s.m(y), {"m": lambda: nn.ChannelShuffle(2)}),
    "shuffle by hand": (lambda s, y: _shuffle(y), {}),
    "chunk": (lambda s, y: torch.cat((lambda p: (p[1], p[0]))(y.chunk(2, 1)), 1), {}),
    "unpacked chunks": (
        lambda s, y: _swap(y), {}
    ),
    "split": (lambda s, y: torch.cat((lambda p: (p[1], p[0]))(y.split([3, 5], 1)), 1), {}),
    "slices of channels": (lambda s, y: torch.cat((y[:, 5:], y[:, :5]), 1), {}),
    "one channel": (lambda s, y: y * y[:, 2:3], {}),
    "an index of channels": (lambda s, y: y[:, [3, 1, 2, 0, 7, 6, 5, 4]], {}),
    "some channels set": (lambda s, y: y.index_fill(1, torch.tensor([0, 2]), 0.5), {}),
    "GroupNorm of two": (lambda s, y: s.m(y), {"m": lambda: nn.GroupNorm(2, 8)}),
    "LayerNorm of all": (lambda s, y: s.m(y), {"m": lambda: nn.LayerNorm([8, 8, 8])}),
    "LayerNorm of channels": (
        lambda s, y: s.m(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
        {"m": lambda: nn.LayerNorm(8)},
    ),
    "local response norm": (lambda s, y: s.m(y), {"m": lambda: nn.LocalResponseNorm(3)}),
    "one PReLU": (lambda s, y: s.m(y), {"m": lambda: nn.PReLU()}),
    "prelu of a parameter": (
        lambda s, y: F.prelu(y, s.m), {"m": lambda: nn.Parameter(torch.ones(8))}
    ),
    "scale": (lambda s, y: y * s.m, {"m": lambda: nn.Parameter(torch.ones(8, 1, 1))}),
    "scale, viewed": (
        lambda s, y: y * s.m.view(1, -1, 1, 1), {"m": lambda: nn.Parameter(torch.ones(8))}
    ),
    "buffer": (lambda s, y: y * s.m, {"m": lambda: torch.ones(8, 1, 1)}),
    "buffer, viewed": (lambda s, y: y + s.m.view(1, -1, 1, 1), {"m": lambda: torch.ones(8)}),
    "a constant": (lambda s, y: y * RAMP, {}),
    "functional batch_norm": (
        lambda s, y: F.batch_norm(y, s.running_mean, s.running_var, training=False),
        {"running_mean": lambda: torch.ones(8), "running_var": lambda: torch.ones(8)},
    ),
    "pad of channels": (lambda s, y: F.pad(y, (0, 0, 0, 0, 2, 0))[:, :8], {}),
    "pad and crop of channels": (lambda s, y: F.pad(y, (0, 0, 0, 0, 2, -2)), {}),
    "softmax": (lambda s, y: y.softmax(1) * y.log_softmax(dim=1), {}),
    "normalize": (lambda s, y: F.normalize(y, dim=1), {}),
    "swapped channels": (lambda s, y: y.transpose(1, 2), {}),
    "permuted": (lambda s, y: y.permute(0, 3, 2, 1), {}),
    "mT": (lambda s, y: y.mT @ y, {}),
    "einsum": (lambda s, y: torch.einsum("nchw,kc->nkhw", y, s.m), {"m": lambda: torch.ones(8, 8)}),
    "matmul": (lambda s, y: torch.matmul(y.flatten(2).mT, s.m).mT.unflatten(2, (8, 8)),
               {"m": lambda: torch.ones(8, 8)}),
    "self-attention": (lambda s, y: _attend(y), {}),
    "Conv1d": (
        lambda s, y: s.m(y.flatten(2)).unflatten(2, (8, 8)), {"m": lambda: nn.Conv1d(8, 8, 1)}
    ),
    "ConvTranspose2d": (lambda s, y: s.m(y), {"m": lambda: nn.ConvTranspose2d(8, 8, 3, 1, 1)}),
    "Conv3d": (
        lambda s, y: s.m(y[:, None]).mean(1), {"m": lambda: nn.Conv3d(1, 2, 3, padding=1)}
    ),
    "squeeze and excitation, viewed": (_excite, LINEARS),
    "squeeze and excitation, indexed": (
        lambda s, y: y * s.e(s.d(y.mean((2, 3))).relu()).sigmoid()[:, :, None, None], LINEARS
    ),
    "spatial attention": (lambda s, y: y * (y.mean(1, keepdim=True) + y.amax(1, True)).tanh(), {}),
    "spatial attention of a convolution": (
        lambda s, y: y * s.m(torch.cat((y.mean(1, True), y.amax(1, True)), 1)).sigmoid(),
        {"m": lambda: conv(2, 1, 7)},
    ),
    "mean of all": (lambda s, y: y - y.mean(), {}),
    "outer sum": (lambda s, y: y + y.mean((2, 3)).unsqueeze(1).unsqueeze(1), {}),
    "an own weight, read": (lambda s, y: y * s.a.bias.view(-1, 1, 1), {}),
    "the next weight, read": (lambda s, y: y * s.bn.weight.sum() * s.stem.weight[0].mean(), {}),
    "a weight borrowed": (
        lambda s, y: F.conv2d(s.m(y), s.m.weight, padding=1), {"m": lambda: conv(8, groups=1)}
    ),
    "where": (lambda s, y: torch.where(y > 0, y, 0.1 * s.d(y)), {"d": lambda: conv(8)}),
    "GLU": (lambda s, y: F.glu(torch.cat((y, s.d(y)), 1), 1), {"d": lambda: conv(8)}),
    "stack": (lambda s, y: torch.stack((y, s.d(y)), 1).mean(1), {"d": lambda: conv(8)}),
    "expand": (lambda s, y: y.mean((2, 3), keepdim=True).expand(-1, -1, 8, 8) + y, {}),
    "unfold": (lambda s, y: F.fold(F.unfold(y, 2), (8, 8), 2), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_the_function_stays(name: str) -> None:
    run, parts = MIXED[name]
    model = between(run, **{n: make() for n, make in parts.items()})
    network = sparse(model, keep_dense=("m",) if name == "a weight borrowed" else ())
    copied, report = absorbed(network)
    assert_same(network.eval(), copied.eval(), (image(),))
    assert report.untraced is None
    if name not in ("stack", "Conv3d"):  # a mean over an unknown dimension may drop the batch
        assert "c" in report.canonical, str(report)  # nothing mixes its channels
