"""Images and labels for the accuracy runs, from small to large, behind one interface.

::

    split = load("cifar10", "some/folder").to("cuda")
    print(split.facts.label)                            # "CIFAR-10", or "CIFAR-10 (JPEG-75)"
    for images, labels in split.train_batches(128, generator, augment=split.augments):
        ...

:class:`Split` holds everything on its device; :class:`Stream` (ImageNet) reads as it goes. Both
have ``facts``, ``augments``, ``to``, ``take``, ``shard``, ``train_batches`` and ``test_batches``.
"""

from __future__ import annotations

from bench.accuracy.data.augment import AUGMENTATION
from bench.accuracy.data.bundled import SPLIT_SEED, digits, digits_rows
from bench.accuracy.data.facts import SPECS, DataError, Facts
from bench.accuracy.data.loading import decoders, load, stream
from bench.accuracy.data.split import Split
from bench.accuracy.data.stream import Stream

__all__ = [
    "AUGMENTATION",
    "SPECS",
    "SPLIT_SEED",
    "DataError",
    "Facts",
    "Split",
    "Stream",
    "decoders",
    "digits",
    "digits_rows",
    "load",
    "stream",
]
