"""The official python batches of CIFAR-10 and CIFAR-100 (Krizhevsky, 2009)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.accuracy.data.facts import DataError, Spec
from bench.accuracy.data.images import Pixels, Tally
from bench.accuracy.data.layouts import batch_names
from bench.accuracy.data.parts import Part, checked_labels, join
from bench.accuracy.data.pickles import read_arrays


def read(spec: Spec, folder: Path, tally: Tally) -> tuple[Part, Part]:
    """Return (training, test) images of a folder of python batches.

    Raises:
        DataError: a file is missing, torn, hostile, or holds something else.
    """
    train, test = batch_names(spec)
    missing = [name for name in train + test if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"expected {', '.join(train + test)} in {folder}, got no {', no '.join(missing)}"
        )
    parts = [join([_batch(spec, folder / name) for name in names]) for names in (train, test)]
    tally.seen += sum(len(part.labels) for part in parts)
    return parts[0], parts[1]


def _batch(spec: Spec, path: Path) -> Part:
    held = read_arrays(path)
    if not isinstance(held, Mapping):
        raise DataError(f"expected a dict in {path}, got {type(held).__name__}")
    column = "fine_labels" if spec.classes == 100 else "labels"
    by_name = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in held.items()}
    for name in ("data", column):
        if name not in by_name:
            got = ", ".join(sorted(map(str, by_name))) or "an empty dict"
            raise DataError(f"expected {name!r} in {path}, got {got}")
    images = _pixels(spec, by_name["data"], path)
    return Part(images, checked_labels(by_name[column], spec, len(images), path))


def _pixels(spec: Spec, rows: Any, path: Path) -> Pixels:
    """Return [N, H, W, C] of rows [N, C * H * W] that hold one channel after the other."""
    wanted = int(np.prod(spec.shape))
    if not isinstance(rows, np.ndarray):
        raise DataError(f"expected 'data' as an array in {path}, got {type(rows).__name__}")
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != wanted:
        raise DataError(
            f"expected 'data' as uint8 [N, {wanted}] in {path}, got {rows.dtype} {list(rows.shape)}"
        )
    return np.ascontiguousarray(rows.reshape(-1, *spec.shape).transpose(0, 2, 3, 1))
