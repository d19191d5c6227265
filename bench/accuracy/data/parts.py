"""One half of a data set as it was read, and the checks that every layout shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.accuracy.data.facts import DataError, Facts, Spec, channel_moments, content_digest
from bench.accuracy.data.images import Pixels, Tally
from bench.accuracy.data.split import Split


@dataclass(frozen=True, eq=False)
class Part:
    """Training or test images.

    Attributes:
        images: uint8 [N, H, W, C].
        labels: int64 [N].
    """

    images: Pixels
    labels: NDArray[np.int64]


def checked_labels(labels: Any, spec: Spec, images: int, where: object) -> NDArray[np.int64]:
    """Return the labels as int64 [images].

    Raises:
        DataError: others than whole numbers below the number of classes, or not one an image.
    """
    try:
        found = np.asarray(labels)
    except ValueError:  # lists within the list
        found = np.empty((0, 0))
    if found.ndim != 1 or len(found) != images:
        raise DataError(
            f"expected one label an image, {images:,}, got {list(found.shape)} labels: {where}"
        )
    if images and not np.issubdtype(found.dtype, np.integer):
        raise DataError(f"expected labels as integers, got {found.dtype}: {where}")
    wrong = found[(found < 0) | (found >= spec.classes)]
    if len(wrong):
        raise DataError(
            f"expected labels from 0 to {spec.classes - 1} ({spec.title}), "
            f"got {wrong[0]} ({len(wrong):,} such): {where}"
        )
    return found.astype(np.int64)


def join(parts: list[Part]) -> Part:
    """Return several parts as one, in order."""
    if len(parts) == 1:
        return parts[0]
    return Part(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


def assemble(name: str, spec: Spec, layout: str, train: Part, test: Part, tally: Tally) -> Split:
    """Return the split of two parts, with its facts.

    Raises:
        DataError: a part without images, or training images of one value.
    """
    for part, images in (("training", len(train.labels)), ("test", len(test.labels))):
        if not images:
            raise DataError(f"expected {part} images of {spec.title}, got none ({layout})")
    train_x = torch.from_numpy(train.images).permute(0, 3, 1, 2)
    test_x = torch.from_numpy(test.images).permute(0, 3, 1, 2)
    train_y, test_y = torch.from_numpy(train.labels), torch.from_numpy(test.labels)
    mean, std = channel_moments(train_x)
    facts = Facts(
        name=name,
        layout=layout,
        encoding=tally.encoding,
        quality=tally.quality,
        train_images=len(train.labels),
        test_images=len(test.labels),
        classes=spec.classes,
        shape=spec.shape,
        mean=mean,
        std=std,
        digest=content_digest(train_x, train_y, test_x, test_y),
        unreadable=len(tally.unreadable),
    )
    return Split(train_x, train_y, test_x, test_y, facts)
