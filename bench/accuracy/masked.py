"""A dense convolution under a mask: how arms without blocks are trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class MaskedConv2d(nn.Module):
    """A dense convolution whose weight is multiplied by a mask in every forward.

    The dropped weights stay in the parameter, where momentum and weight decay may move them,
    but no output and no gradient ever sees them.

    Attributes:
        conv: holds the parameters (groups=1, padded with zeros).
        mask: weight's dtype, [K, C, R, S]; 1 where a weight is kept, else 0.

    Args:
        mask: bool [K, C, R, S].
    """

    mask: Tensor

    def __init__(self, conv: nn.Conv2d, mask: Tensor) -> None:
        super().__init__()
        self.conv = conv
        # in the weight's own memory layout, or every step would pay for a strided product
        kept = torch.empty_like(conv.weight, requires_grad=False).copy_(mask)
        self.register_buffer("mask", kept)

    @property
    def weight(self) -> Tensor:
        """[K, C, R, S]: zero where nothing is kept."""
        return self.conv.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """Return y [N, K, P, Q] of x [N, C, H, W]."""
        conv = self.conv
        return functional.conv2d(
            x, self.weight, conv.bias, conv.stride, conv.padding, conv.dilation
        )
