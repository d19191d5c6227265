"""Which images of a batch are whose, when several processes train together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.accuracy.data.facts import DataError


@dataclass(frozen=True)
class Share:
    """The part of process ``rank`` of ``ranks``.

    Raises:
        DataError: a rank that is not in 0 ... ranks - 1.
    """

    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.ranks:
            raise DataError(f"expected a rank in 0 ... {self.ranks - 1}, got {self.rank}")

    def of_batch(self, images: int) -> Tensor:
        """Return the positions int64 [ceil(images / ranks)] of this share in a batch.

        As many on every rank, so that the mean of the ranks' means is a mean over images. Where
        they do not divide evenly, the batch goes on with its first ones: none is lost.
        """
        each = -(-images // self.ranks)
        return torch.arange(self.rank * each, (self.rank + 1) * each) % images

    def of_tests(self, images: int) -> Tensor:
        """Return this share's test images: every one is in one share."""
        return torch.arange(self.rank, images, self.ranks)


WHOLE = Share()
