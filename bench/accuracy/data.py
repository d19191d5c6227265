"""Images and labels for the accuracy runs, split once and for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from bench.accuracy.plan import DATA

SPLIT_SEED = 0  # the split is part of the data: it never follows a run's seed


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test images, normalised by the training images' mean and deviation.

    Attributes:
        train_x, test_x: float32 [images, channels, height, width], channels_last.
        train_y, test_y: int64 [images].
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor

    def to(self, device: str) -> Split:
        """Return the split with all tensors on ``device``."""
        tensors = (self.train_x, self.train_y, self.test_x, self.test_y)
        return Split(*(t.to(device) for t in tensors))


def digits_rows() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (training, test) row numbers of scikit-learn's digits: disjoint and stratified."""
    facts = DATA["digits"]
    labels = load_digits().target
    train, test = train_test_split(
        np.arange(len(labels)),
        train_size=facts.train_images,
        test_size=facts.test_images,
        random_state=SPLIT_SEED,
        stratify=labels,
    )
    return np.sort(train), np.sort(test)


def digits() -> Split:
    """Return the 1,797 images of 8x8 digits that come with scikit-learn, 1,200 for training.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI (1998), its
    test part.
    """
    bundle = load_digits()
    train, test = digits_rows()
    images = torch.from_numpy(bundle.images).unsqueeze(1)
    labels = torch.from_numpy(bundle.target).long()
    mean, deviation = images[train].mean(), images[train].std()
    images = ((images - mean) / deviation).float().contiguous(memory_format=torch.channels_last)
    return Split(images[train], labels[train], images[test], labels[test])


LOADERS: Mapping[str, Callable[[], Split]] = {"digits": digits}


def load(name: str) -> Split:
    """Return the data set ``name``, a key of ``LOADERS``."""
    return LOADERS[name]()
