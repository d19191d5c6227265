"""Class folders: one folder a class, one file an image; the sorted names are the labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bench.accuracy.data.facts import DataError, Spec
from bench.accuracy.data.images import Tally, decode, named
from bench.accuracy.data.layouts import TEST_FOLDERS
from bench.accuracy.data.parts import Part

SUFFIXES = (".png", ".jpg", ".jpeg")


def read(spec: Spec, root: Path, tally: Tally) -> tuple[Part, Part]:
    """Return (training, test) images of class folders.

    Raises:
        DataError: a folder is missing, the classes of the two differ, or are too many or too
            few; a file that is no image; an image of another size.
    """
    test = held_out(root)
    classes = class_names(root / "train", test)
    if len(classes) != spec.classes:
        raise DataError(
            f"expected {spec.classes} class folders ({spec.title}) in {root / 'train'}, "
            f"got {len(classes)}: {named(classes)}"
        )
    return _part(spec, root / "train", classes, tally), _part(spec, test, classes, tally)


def held_out(root: Path, names: Sequence[str] = TEST_FOLDERS) -> Path:
    """Return the folder of the test images, the one of ``names`` that lies in ``root``.

    Raises:
        DataError: none, or several.
    """
    found = [root / name for name in names if (root / name).is_dir()]
    if len(found) != 1:
        got = " and ".join(path.name for path in found) or "none"
        raise DataError(f"expected {' or '.join(names)} beside train in {root}, got {got}")
    return found[0]


def class_names(train: Path, test: Path) -> list[str]:
    """Return the sorted names of the classes, the same in both folders.

    Raises:
        DataError: files beside the class folders, or other classes in one than in the other.
    """
    names = []
    for folder in (train, test):
        entries = visible(folder)
        files = [path.name for path in entries if not path.is_dir()]
        if files:
            raise DataError(f"expected class folders alone in {folder}, got {named(files)}")
        names.append([path.name for path in entries])
    odd = sorted(set(names[0]) ^ set(names[1]))
    if odd:
        raise DataError(
            f"expected the same classes in {train} and {test}, got {named(odd)} in one alone"
        )
    if len(names[0]) < 2:
        raise DataError(f"expected at least 2 class folders in {train}, got {len(names[0])}")
    return names[0]


def image_files(folder: Path, classes: list[str]) -> Iterator[tuple[Path, int]]:
    """Yield (file, label) class by class, by name.

    Raises:
        DataError: a class without images, or a file that is none.
    """
    for label, name in enumerate(classes):
        files = visible(folder / name)
        foreign = [p.name for p in files if p.suffix.lower() not in SUFFIXES]
        if foreign or not files:
            told = named(foreign) or "none"
            raise DataError(f"expected images (png or jpg) in {folder / name}, got {told}")
        for path in files:
            yield path, label


def visible(folder: Path) -> list[Path]:
    """Return what a folder holds by name, without hidden files."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _part(spec: Spec, folder: Path, classes: list[str], tally: Tally) -> Part:
    images, labels = [], []
    for path, label in image_files(folder, classes):
        pixels = decode(path.read_bytes(), spec, str(path), tally)
        if pixels is not None:
            images.append(pixels)
            labels.append(label)
    channels, height, width = spec.shape
    shape = (-1, height, width, channels)
    stacked = np.stack(images) if images else np.empty(0, np.uint8)
    return Part(stacked.reshape(shape), np.array(labels, np.int64))
