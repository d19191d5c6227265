"""Images that do not fit memory: decoded by worker processes, batch by batch (ImageNet)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bench.accuracy.data.crops import AUGMENTATION, pixels_of
from bench.accuracy.data.facts import LARGEST, DataError, Facts, Spec
from bench.accuracy.data.images import named
from bench.accuracy.data.layouts import FOLDERS
from bench.accuracy.data.listing import Files, list_files, listing_digest
from bench.accuracy.data.share import WHOLE, Share
from bench.accuracy.data.split import Batch
from bench.accuracy.data.subset import stratified

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, and so everyone's
CENTRAL = -1  # in place of a seed: the central crop


class Key(NamedTuple):
    """What a worker is asked for: an image's row, the seed of its crop, whether to mirror it."""

    row: int
    seed: int
    flip: bool


class Item(NamedTuple):
    """What a worker hands over: pixels uint8 [H, W, 3], or why there are none."""

    pixels: Tensor | None
    label: int
    flip: bool
    note: str


@dataclass(frozen=True, eq=False)
class Stream:
    """Training and test images on disk; its batches are used as those of ``Split`` are.

    Attributes:
        listed: what was found before any image was read.
        workers: processes that decode; 0: this one does.
        device: where batches go.
        skip_unreadable: leave images out that cannot be read, instead of stopping; their
            batches are smaller.
        unreadable: what was left out, as far as it was met, with the reason.
        share: whose part of each batch is read; all of it, unless several processes train.
    """

    train: Files
    test: Files
    listed: Facts
    workers: int = 0
    device: str = "cpu"
    skip_unreadable: bool = False
    unreadable: set[str] = field(default_factory=set)
    share: Share = WHOLE

    @property
    def facts(self) -> Facts:
        """What was found; ``unreadable`` grows as images are met that were left out."""
        return replace(self.listed, unreadable=len(self.unreadable))

    @property
    def augments(self) -> bool:
        """Whether the images may be cropped and mirrored: these may."""
        return True

    @property
    def augmentation(self) -> str:
        """What ``augment`` does, in words."""
        return AUGMENTATION

    def to(self, device: str) -> Stream:
        """Return the stream with its batches on ``device``."""
        return replace(self, device=device)

    def shard(self, rank: int, ranks: int) -> Stream:
        """Return the stream that decodes process ``rank``'s part of the whole batches alone.

        The epoch's chance is drawn for all images, by equal generators on every rank.

        Raises:
            DataError: a rank that is not in 0 ... ranks - 1.
        """
        return replace(self, share=Share(rank, ranks), unreadable=set())

    def take(self, train: int | None = None, test: int | None = None) -> Stream:
        """Return a smaller stream: the first images of each class, as ``Split.take`` does.

        Raises:
            DataError: fewer than the classes, or more than there are.
        """
        chosen = self.train.take(stratified(self.train.labels, train, "train"))
        held_out = self.test.take(stratified(self.test.labels, test, "test"))
        if train is None and test is None:
            return self
        facts = replace(
            self.listed,
            train_images=len(chosen.labels),
            test_images=len(held_out.labels),
            digest=listing_digest(chosen, held_out),
            whole=self.listed.whole or (self.listed.train_images, self.listed.test_images),
        )
        return replace(self, train=chosen, test=held_out, listed=facts, unreadable=set())

    def train_batches(
        self, batch: int, generator: torch.Generator, augment: bool = False
    ) -> Iterator[Batch]:
        """Return the batches (images float32 [n, 3, H, W], labels int64 [n]) of one epoch.

        All of the epoch's chance is drawn from ``generator`` (on the CPU) by this call: equal
        generators give equal batches, however many workers there are.

        Args:
            augment: random resized crops and mirror images; else the central crop.

        Raises:
            DataError: an unreadable image, when it is not to be skipped; none but such in a
                share, for which the other processes would wait.
        """
        count = len(self.train.labels)
        order = torch.randperm(count, generator=generator).tolist()
        if not augment:
            keys = [Key(r, CENTRAL, False) for r in order]
            return self._batches(self.train, self._mine(keys, batch), self.share.ranks > 1)
        seeds = torch.randint(0, 2**62, (count,), generator=generator).tolist()
        flips = torch.randint(0, 2, (count,), generator=generator).bool().tolist()
        keys = [Key(*each) for each in zip(order, seeds, flips, strict=True)]
        return self._batches(self.train, self._mine(keys, batch), self.share.ranks > 1)

    def test_batches(self, batch: int = 100) -> Iterator[Batch]:
        """Return all test images (of the share) in order: the central crop, normalised."""
        rows = self.share.of_tests(len(self.test.labels)).tolist()
        keys = [Key(r, CENTRAL, False) for r in rows]
        return self._batches(self.test, _cut(keys, batch))

    def _mine(self, keys: list[Key], batch: int) -> list[list[Key]]:
        """Return this share of each whole batch."""
        whole = _cut(keys, batch)
        if self.share.ranks == 1:
            return whole
        return [[each[n] for n in self.share.of_batch(len(each)).tolist()] for each in whole]

    def _batches(
        self, files: Files, batches: list[list[Key]], needed: bool = False
    ) -> Iterator[Batch]:
        """Yield the images of each list; ``needed``: at least one of each."""
        loader = DataLoader(
            Decoded(files, self.listed.shape[-1]),
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=_stacked,
            pin_memory=self.device.startswith("cuda"),
            generator=torch.Generator(),  # its own: the loader draws seeds that nobody uses
        )
        mean, std = (torch.tensor(each, device=self.device) * LARGEST for each in (MEAN, STD))
        for pixels, labels, flips, notes in loader:
            self._check(notes, len(labels))
            if not len(labels):
                if needed:
                    raise DataError(
                        f"expected a readable image in every rank's share of a batch, got none "
                        f"of {len(notes)} on rank {self.share.rank}: {named(notes)}"
                    )
                continue
            images = pixels.to(self.device, non_blocking=True)
            mirrored = flips.to(self.device, non_blocking=True)[:, None, None, None]
            images = torch.where(mirrored, images.flip(2), images)
            normal = ((images.float() - mean) / std).permute(0, 3, 1, 2)
            yield normal, labels.to(self.device, non_blocking=True)

    def _check(self, notes: Sequence[str], read: int) -> None:
        self.unreadable.update(notes)
        if notes and not self.skip_unreadable:
            raise DataError(
                f"expected readable images, got {len(notes)} of {len(notes) + read} in a batch "
                f"that are not: {named(notes)}; skip_unreadable=True leaves them out"
            )


class Decoded(torch.utils.data.Dataset[Item]):
    """The images of ``files``, cut to [size, size] as their keys say."""

    def __init__(self, files: Files, size: int) -> None:
        self.files, self.size = files, size

    def __getitem__(self, key: Key) -> Item:
        label, path = int(self.files.labels[key.row]), self.files.path(key.row)
        seed = None if key.seed == CENTRAL else key.seed
        pixels, note = pixels_of(path, self.size, seed)
        return Item(None if pixels is None else torch.from_numpy(pixels), label, key.flip, note)


def _cut(keys: list[Key], batch: int) -> list[list[Key]]:
    return [keys[start : start + batch] for start in range(0, len(keys), batch)]


def _stacked(items: Sequence[Item]) -> tuple[Tensor, Tensor, Tensor, list[str]]:
    """Return (pixels uint8 [n, H, W, 3], labels, mirrored, notes) of a batch."""
    read = [item for item in items if item.pixels is not None]
    pixels = [item.pixels for item in read if item.pixels is not None]
    return (
        torch.stack(pixels) if pixels else torch.empty(0),
        torch.tensor([item.label for item in read], dtype=torch.int64),
        torch.tensor([item.flip for item in read], dtype=torch.bool),
        [item.note for item in items if item.pixels is None],
    )


def open_stream(
    name: str, spec: Spec, root: Path, *, workers: int, skip_unreadable: bool, size: int | None
) -> Stream:
    """Return the images of class folders, listed but not read.

    Args:
        size: height and width of a batch's images; None: the published one.

    Raises:
        DataError: as :func:`bench.accuracy.data.listing.list_files`.
    """
    train, test, classes = list_files(root)
    channels, height, width = spec.shape
    facts = Facts(
        name=name,
        layout=FOLDERS,
        encoding="as found",
        quality=None,
        train_images=len(train.labels),
        test_images=len(test.labels),
        classes=classes,
        shape=(channels, size or height, size or width),
        mean=MEAN,
        std=STD,
        digest=listing_digest(train, test),
    )
    return Stream(train, test, facts, workers, skip_unreadable=skip_unreadable)
