"""The digits that come with scikit-learn: the data set of every machine."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from bench.accuracy.data.facts import SPECS, Facts, content_digest
from bench.accuracy.data.split import Split

SPLIT_SEED = 0  # the split is part of the data: it never follows a run's seed
LARGEST_DIGIT = 16.0


def digits_rows() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (training, test) row numbers of scikit-learn's digits: disjoint and stratified."""
    spec = SPECS["digits"]
    labels = load_digits().target
    train, test = train_test_split(
        np.arange(len(labels)),
        train_size=spec.train_images,
        test_size=spec.test_images,
        random_state=SPLIT_SEED,
        stratify=labels,
    )
    return np.sort(train), np.sort(test)


def digits() -> Split:
    """Return the 1,797 images of 8x8 digits that come with scikit-learn, 1,200 for training.

    They are float32, normalised by the training images' mean and deviation.
    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI (1998), its
    test part.
    """
    bundle = load_digits()
    train, test = digits_rows()
    images = torch.from_numpy(bundle.images).unsqueeze(1)
    labels = torch.from_numpy(bundle.target).long()
    mean, deviation = images[train].mean(), images[train].std()
    pixels = images.to(torch.uint8)
    images = ((images - mean) / deviation).float().contiguous(memory_format=torch.channels_last)
    facts = Facts(
        name="digits",
        layout="bundled",
        encoding="raw",
        quality=None,
        train_images=len(train),
        test_images=len(test),
        classes=SPECS["digits"].classes,
        shape=SPECS["digits"].shape,
        mean=(mean.item() / LARGEST_DIGIT,),
        std=(deviation.item() / LARGEST_DIGIT,),
        digest=content_digest(pixels[train], labels[train], pixels[test], labels[test]),
    )
    return Split(images[train], labels[train], images[test], labels[test], facts)
