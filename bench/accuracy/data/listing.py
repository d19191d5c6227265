"""Encoded images on disk, by name: what a stream knows of them before it reads any."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.accuracy.data.folders import class_names, held_out, image_files


class Files(NamedTuple):
    """Encoded images of class folders.

    Attributes:
        root: the folder that ``paths`` are relative to.
        paths: bytes [N]; one array, because workers would copy the pages of a list as they
            count its references.
        sizes_bytes: int64 [N].
        labels: int64 [N].
    """

    root: Path
    paths: NDArray[np.bytes_]
    sizes_bytes: NDArray[np.int64]
    labels: Tensor

    def path(self, row: int) -> Path:
        """Return where an image lies."""
        return self.root / os.fsdecode(bytes(self.paths[row]))

    def take(self, rows: Tensor) -> Files:
        """Return these images alone."""
        chosen = rows.numpy()
        return Files(self.root, self.paths[chosen], self.sizes_bytes[chosen], self.labels[rows])


def list_files(root: Path) -> tuple[Files, Files, int]:
    """Return (training files, test files, how many classes) of class folders.

    Raises:
        DataError: a folder is missing, the classes differ, or a file is no image.
    """
    # a test folder beside val holds ImageNet's images without labels
    train, test = root / "train", held_out(root, ("val",))
    classes = class_names(train, test)
    return _listed(train, classes), _listed(test, classes), len(classes)


def listing_digest(*parts: Files) -> str:
    """Return 16 hex digits of the paths, sizes and labels: no image is read."""
    found = hashlib.sha256()
    for part in parts:
        found.update(f"{len(part.labels)} images\n".encode())
        for path, size, label in zip(
            part.paths.tolist(), part.sizes_bytes.tolist(), part.labels.tolist(), strict=True
        ):
            found.update(path + f"\0{size} {label}\n".encode())
    return found.hexdigest()[:16]


def _listed(folder: Path, classes: list[str]) -> Files:
    listed = list(image_files(folder, classes))
    paths = [os.fsencode(path.relative_to(folder)) for path, _ in listed]
    sizes = [path.stat().st_size for path, _ in listed]
    labels = torch.tensor([label for _, label in listed])
    return Files(folder, np.array(paths), np.array(sizes, np.int64), labels)
