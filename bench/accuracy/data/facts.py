"""What is known of a data set before it is read, and what was found when it was."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

LARGEST = 255.0  # of a uint8 pixel
CHUNK = 4096  # images at once: sums of squares need four times an image's bytes


class DataError(ValueError):
    """Images or labels that cannot be used; the text says what was expected, and of which file."""


@dataclass(frozen=True)
class Spec:
    """A data set as its authors published it.

    Attributes:
        title: its name for people.
        classes, train_images, test_images: how many there are.
        shape: (channels, height, width) of every image.
        folder: the folder of the official python batches; "" where there are none.
        label_columns: names of the column of labels in a parquet file.
    """

    title: str
    classes: int
    shape: tuple[int, int, int]
    train_images: int
    test_images: int
    folder: str = ""
    label_columns: tuple[str, ...] = ()


SPECS: Mapping[str, Spec] = {
    "digits": Spec("digits", 10, (1, 8, 8), 1_200, 597),
    "cifar10": Spec("CIFAR-10", 10, (3, 32, 32), 50_000, 10_000, "cifar-10-batches-py", ("label",)),
    "cifar100": Spec(
        "CIFAR-100", 100, (3, 32, 32), 50_000, 10_000, "cifar-100-python", ("fine_label", "label")
    ),
    "imagenet": Spec("ImageNet", 1_000, (3, 224, 224), 1_281_167, 50_000),
}


@dataclass(frozen=True)
class Facts:
    """What was loaded, as it goes into a run's line.

    Attributes:
        name: a key of ``SPECS``.
        layout: "bundled", "python batches", "parquet" or "class folders".
        encoding: "raw", or the format found in the files' bytes: "JPEG", "PNG", "JPEG+PNG".
        quality: (lowest, highest) JPEG quality, estimated from the quantisation tables; None
            where no image is a JPEG, or where that is the published form.
        train_images, test_images: how many were loaded; classes: how many there may be.
        shape: (channels, height, width).
        mean, std: of the training pixels, a channel, as fractions of the largest value;
            the population's deviation. ImageNet: the constants in general use.
        digest: 16 hex digits of a sha256 of all pixels and labels in their order, so it is the
            same for equal content in every layout; ImageNet: of all paths, sizes and labels.
        unreadable: how many images were left out.
        whole: (training, test) images before ``take``; None when all were taken.
    """

    name: str
    layout: str
    encoding: str
    quality: tuple[int, int] | None
    train_images: int
    test_images: int
    classes: int
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    unreadable: int = 0
    whole: tuple[int, int] | None = None

    @property
    def label(self) -> str:
        """The data set's name for people: "CIFAR-10 (JPEG-75)" is not "CIFAR-10".

        Figures from lossy images, or from part of the images, are not to be compared with
        published ones: the label tells both.
        """
        spec, notes = SPECS[self.name], []
        if self.quality is not None:
            low, high = self.quality
            notes.append(f"JPEG-{low}" if low == high else f"JPEG-{low} to {high}")
        if self.classes != spec.classes:
            notes.append(f"{self.classes:,} of {spec.classes:,} classes")
        if (self.train_images, self.test_images) != (spec.train_images, spec.test_images):
            notes.append(f"{self.train_images:,} + {self.test_images:,} images")
        return f"{spec.title} ({', '.join(notes)})" if notes else spec.title

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, the label among them."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {"label": self.label} | plain


def known(name: str) -> Spec:
    """Return the facts of ``name``.

    Raises:
        DataError: an unknown name.
    """
    if name not in SPECS:
        raise DataError(f"expected data as one of {', '.join(SPECS)}; got {name!r}")
    return SPECS[name]


def content_digest(*parts: Tensor) -> str:
    """Return 16 hex digits of the parts' shapes and values, images as [N, H, W, C]."""
    found = hashlib.sha256()
    for part in parts:
        held = (part.movedim(1, -1) if part.dim() == 4 else part).cpu().numpy()
        shape = "x".join(map(str, held.shape))
        found.update(f"{held.dtype} {shape}\n".encode())
        found.update(np.ascontiguousarray(held).data)
    return found.hexdigest()[:16]


def channel_moments(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, std) of uint8 images [N, C, H, W], a channel, as fractions of 255.

    The sums are whole numbers: the result is the same on every device.

    Raises:
        DataError: a channel of one value, which nothing can normalise.
    """
    chunks = images.split(CHUNK)
    totals = sum(c.sum((0, 2, 3)) for c in chunks)
    squares = sum(c.int().square().sum((0, 2, 3)) for c in chunks)
    count = images[:, 0].numel()
    means, deviations = [], []
    for total, square in zip(totals.tolist(), squares.tolist(), strict=True):  # type: ignore[union-attr]
        variance = (square * count - total * total) / count**2  # exact until the division
        if variance == 0:
            raise DataError("expected training images that differ, got a channel of one value")
        means.append(total / count / LARGEST)
        deviations.append(variance**0.5 / LARGEST)
    return tuple(means), tuple(deviations)
