"""Random crops and mirror images, of a whole batch at once, on the batch's device."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

PADDING = 4
AUGMENTATION = "random crop after 4 black pixels of padding; horizontal flip of one half"


class Draws(NamedTuple):
    """What chance decides for a batch of n images, on the CPU.

    Attributes:
        top, left: int64 [n] in 0 ... 2 * padding: where the crop begins in the padded image.
        flipped: bool [n].
    """

    top: Tensor
    left: Tensor
    flipped: Tensor


def draw(images: int, generator: torch.Generator, padding: int = PADDING) -> Draws:
    """Draw for a batch, on the CPU: every device sees the same crops."""
    top, left = torch.randint(0, 2 * padding + 1, (2, images), generator=generator)
    flipped = torch.randint(0, 2, (images,), generator=generator).bool()
    return Draws(top, left, flipped)


def crop_and_flip(images: Tensor, draws: Draws, padding: int = PADDING) -> Tensor:
    """Return each image [n, C, H, W] cropped to its size out of its padded self, then mirrored.

    The padding is zeros before normalisation, that is black (He et al., arXiv:1512.03385,
    section 4.2, in the form of torchvision's ``RandomCrop(32, padding=4)`` before
    ``Normalize``). One gather; the result is channels_last, on the device of ``images``.
    """
    n, _, height, width = images.shape
    top, left, flipped = (each.to(images.device, non_blocking=True) for each in draws)
    padded = functional.pad(images, (padding,) * 4).permute(0, 2, 3, 1)
    along = torch.arange(width, device=images.device)
    columns = torch.where(flipped[:, None], along.flip(0), along) + left[:, None]
    rows = torch.arange(height, device=images.device) + top[:, None]
    each = torch.arange(n, device=images.device)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
