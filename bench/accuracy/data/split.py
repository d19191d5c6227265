"""Images and labels in memory, on one device; batches of them are made there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bench.accuracy.data.augment import AUGMENTATION, Draws, crop_and_flip, draw
from bench.accuracy.data.facts import LARGEST, DataError, Facts, channel_moments, content_digest
from bench.accuracy.data.share import WHOLE, Share
from bench.accuracy.data.subset import stratified

Batch = tuple[Tensor, Tensor]
TEST_BATCH = 1_000


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test images.

    Images are kept as uint8, and normalised on their device when a batch is made of them; or
    as float32, and then they are normalised already (the digits).

    Attributes:
        train_x, test_x: uint8 or float32 [images, channels, height, width], channels_last.
        train_y, test_y: int64 [images].
        facts: what was loaded; None of a split that was made by hand.
        share: whose part of each batch is made; all of it, unless several processes train.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    facts: Facts | None = None
    share: Share = WHOLE
    _moments: tuple[Tensor, Tensor] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if self.facts is None or not self.augments:
            return
        moments = torch.tensor((self.facts.mean, self.facts.std), dtype=torch.float64) * LARGEST
        # as whole images, channels_last: 2.0 ms a batch of 128 on a CPU, 3.4 ms by broadcasting
        height, width = self.train_x.shape[-2:]
        whole = moments.float().to(self.train_x.device)[:, None, None].repeat(1, height, width, 1)
        mean, std = whole.permute(0, 3, 1, 2).unsqueeze(1)
        object.__setattr__(self, "_moments", (mean, std))

    @property
    def augments(self) -> bool:
        """Whether the images may be cropped and mirrored: photographs may, digits may not."""
        return self.train_x.dtype == torch.uint8

    @property
    def augmentation(self) -> str | None:
        """What ``augment`` does, in words; None where it may not be asked for."""
        return AUGMENTATION if self.augments else None

    def to(self, device: str) -> Split:
        """Return the split with all tensors on ``device``."""
        return Split(
            self.train_x.to(device), self.train_y.to(device),
            self.test_x.to(device), self.test_y.to(device), self.facts, self.share,
        )  # fmt: skip

    def shard(self, rank: int, ranks: int) -> Split:
        """Return the split whose batches are process ``rank``'s part of the whole ones.

        All chance is drawn for the whole batch, by equal generators on every rank.

        Raises:
            DataError: a rank that is not in 0 ... ranks - 1.
        """
        return replace(self, share=Share(rank, ranks))

    def normalised(self, x: Tensor) -> Tensor:
        """Return images [n, C, H, W] as float32, by the training images' mean and deviation.

        Raises:
            DataError: uint8 images of a split without facts.
        """
        if x.is_floating_point():
            return x
        if self._moments is None:
            raise DataError("expected a split with facts to normalise uint8 images, got none")
        mean, std = self._moments
        return (x.float() - mean) / std

    def batch(
        self, rows: Tensor, generator: torch.Generator | None = None, augment: bool = False
    ) -> Batch:
        """Return (images float32 [n, C, H, W], labels int64 [n]) of these training images.

        Args:
            rows: int64 [n], on any device.
            generator: on the CPU; draws the crops and mirrors, nothing without ``augment``.

        Of a split that was sharded, only the share's images come.

        Raises:
            DataError: ``augment`` without a generator, or of images that it would spoil.
        """
        mine = self.share.of_batch(len(rows)) if self.share.ranks > 1 else None
        count = len(rows)
        rows = (rows if mine is None else rows[mine.to(rows.device)]).to(self.train_x.device)
        images = self.train_x[rows]
        if augment:
            if generator is None:
                raise DataError("expected a generator to augment with, got None")
            if not self.augments:
                raise DataError(f"expected uint8 images to augment, got {images.dtype}")
            draws = draw(count, generator)
            if mine is not None:
                draws = Draws(*(each[mine] for each in draws))
            images = crop_and_flip(images, draws)
        return self.normalised(images), self.train_y[rows]

    def train_batches(
        self, batch: int, generator: torch.Generator, augment: bool = False
    ) -> Iterator[Batch]:
        """Yield the batches of one epoch in an order that ``generator`` draws.

        The last batch may be smaller. Equal generators give equal batches on every device.
        """
        for rows in torch.randperm(len(self.train_y), generator=generator).split(batch):
            yield self.batch(rows, generator, augment)

    def test_batches(self, batch: int = TEST_BATCH) -> Iterator[Batch]:
        """Yield all test images (of the share) in order, normalised, never augmented."""
        x, y = self.test_x, self.test_y
        if self.share.ranks > 1:
            mine = self.share.of_tests(len(y)).to(y.device)
            x, y = x[mine], y[mine]
        for images, labels in zip(x.split(batch), y.split(batch), strict=True):
            yield self.normalised(images), labels

    def take(self, train: int | None = None, test: int | None = None) -> Split:
        """Return a smaller split: the first images of each class, in equal shares.

        No chance is in it, and the facts tell of it. The test images stay test images.

        Args:
            train, test: how many; None: all.

        Raises:
            DataError: fewer than the classes, or more than there are.
        """
        train_rows = stratified(self.train_y, train, "train")
        test_rows = stratified(self.test_y, test, "test")
        taken = Split(
            self.train_x[train_rows], self.train_y[train_rows],
            self.test_x[test_rows], self.test_y[test_rows], self.facts, self.share,
        )  # fmt: skip
        if self.facts is None or (train is None and test is None):
            return taken
        return replace(taken, facts=_fewer(self.facts, taken))


def _fewer(facts: Facts, taken: Split) -> Facts:
    tensors = (taken.train_x, taken.train_y, taken.test_x, taken.test_y)
    if taken.augments:
        mean, std = channel_moments(taken.train_x)
        facts = replace(facts, mean=mean, std=std)
    return replace(
        facts,
        train_images=len(taken.train_y),
        test_images=len(taken.test_y),
        digest=content_digest(*tensors),
        whole=facts.whole or (facts.train_images, facts.test_images),
    )
