"""Models of torchvision and timm through convert, absorb and to_dense, where installed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from hrbp_core import BlockSparseConv2d, absorb, convert, to_dense

# name -> (sparse layers that permute nothing, sparse layers)
TORCHVISION = {
    "resnet18": (19, 19),
    "resnet50": (52, 52),
    "vgg11_bn": (7, 7),
    "squeezenet1_1": (24, 24),
    "densenet121": (119, 119),
    "googlenet": (58, 58),
    "mobilenet_v2": (34, 34),
    "efficientnet_b0": (56, 56),
    "shufflenet_v2_x1_0": (1, 36),  # channels are shuffled by a view
    "convnext_tiny": (0, 3),  # LayerNorm behind a transposition
}
TIMM = {
    "resnet26": (28, 28),
    "seresnet18": (27, 27),
    "densenet121": (119, 119),
    "efficientnet_lite0": (32, 32),
    "regnetx_002": (4, 30),  # grouped convolutions between
    "dpn48b": (0, 52),  # channels are cut
}


def perturbed(model: nn.Module) -> nn.Module:
    """Give every norm statistics and weights of its own, so that a wrong order shows."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                assert isinstance(tensor, torch.Tensor)
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (module.bias, module.running_mean):
                assert isinstance(tensor, torch.Tensor)
                tensor.data.copy_(torch.randn(tensor.shape, generator=generator) / 10)
    return model


def check(model: nn.Module, expected_counts: tuple[int, int]) -> None:
    """Convert with shuffled groups, absorb, go back: one function in eval mode, in float64."""
    stock = copy.deepcopy(model)
    sparse, report = convert(perturbed(model).double().eval(), 0.5, block=8, method="shuffled")
    absorbed, absorption = absorb(sparse)
    dense = to_dense(absorbed)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        expected = sparse(x)
        for other in (absorbed, dense):
            assert float((other(x) - expected).norm()) <= 1e-9 * float(expected.norm())
    stock.load_state_dict(dense.state_dict())
    sparse_layers = {n for n, m in absorbed.named_modules() if isinstance(m, BlockSparseConv2d)}
    assert report.layers.keys() == sparse_layers
    assert {*absorption.canonical, *absorption.standalone} == sparse_layers
    assert (len(absorption.canonical), len(sparse_layers)) == expected_counts


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str) -> None:
    models: Any = pytest.importorskip(
        "torchvision.models", reason="torchvision is not installed", exc_type=ImportError
    )
    torch.manual_seed(0)
    check(getattr(models, name)(weights=None), TORCHVISION[name])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    timm: Any = pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
    torch.manual_seed(0)
    check(timm.create_model(name, pretrained=False), TIMM[name])
