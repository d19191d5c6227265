"""Single weights that move: the sites of masked dense convolutions, for the unstructured arm."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from bench.accuracy.masked import MaskedConv2d
from hrbp_core.dynamic import Site
from hrbp_core.dynamic.sites import wide


class MaskedSite(Site):
    """The weights of a ``MaskedConv2d``, each a unit of its own.

    No coverage and no balance: the methods as published. Weights that drop are set to 0, as
    those that grow, with what follows them.
    """

    unit = "weights"
    coverage = False

    def __init__(self, layer: MaskedConv2d) -> None:
        self.module: MaskedConv2d = layer

    @property
    def parameter(self) -> nn.Parameter:  # type: ignore[override]
        """The dense weight, masked or not."""
        weight = self.module.conv.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    @property
    def kept(self) -> Tensor:
        """bool [K, C, R * S]."""
        return self.module.mask.bool().flatten(2)

    def weights(self) -> Tensor:
        """Return ones."""
        return torch.ones_like(self.kept, dtype=torch.int64)

    def magnitudes(self) -> Tensor:
        """Return |weight|, masked."""
        return self.growth(self.module.weight)

    def growth(self, gradient: Tensor) -> Tensor:
        """Return |gradient|."""
        return gradient.detach().to(wide(gradient.dtype)).abs().flatten(2)

    @torch.no_grad()
    def gradient(self, x: Tensor, dy: Tensor) -> Tensor:
        """Return the dense weight's gradient by one dense wgrad."""
        conv, dtype = self.module.conv, wide(self.parameter.dtype)
        if isinstance(conv.padding, str):
            raise ValueError(f"expected padding as numbers, got {conv.padding!r}")
        geometry = conv.stride, conv.padding, conv.dilation
        shape = conv.weight.shape
        return conv2d_weight(x.to(dtype), shape, dy.to(dtype), *geometry)

    def no_gradient(self) -> Tensor:
        """Return zeros of the weight's shape."""
        weight = self.parameter
        return torch.zeros(weight.shape, dtype=wide(weight.dtype), device=weight.device)

    @torch.no_grad()
    def apply(self, kept: Tensor, companions: Iterable[Tensor]) -> None:
        """Write the mask; what changed sides is 0 in the weight and its companions."""
        mask = self.module.mask
        new = kept.to(mask.device).view(mask.shape)
        changed = new != mask.bool()
        for tensor in (self.parameter, *companions):
            tensor.masked_fill_(changed, 0)
        mask.copy_(new)


def masked_sites(network: nn.Module) -> dict[str, Site]:
    """Return the sites of the ``MaskedConv2d`` layers of a network, by name."""
    return {
        name: MaskedSite(module)
        for name, module in network.named_modules()
        if isinstance(module, MaskedConv2d)
    }
