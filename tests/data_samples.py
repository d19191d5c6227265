"""Small data sets, written in each of the layouts that people have on disk."""

from __future__ import annotations

import io
import pickle
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from bench.accuracy.data import DataError, load

TRAIN, TEST = 20, 10


class Sample(NamedTuple):
    """Images uint8 [N, 32, 32, 3], sorted by their labels, so that every layout keeps the order."""

    train_x: np.ndarray
    train_y: list[int]
    test_x: np.ndarray
    test_y: list[int]


def sample(classes: int = 10) -> Sample:
    chance = np.random.default_rng(classes)
    images = chance.integers(0, 256, (TRAIN + TEST, 32, 32, 3), dtype=np.uint8)
    train = [i * classes // TRAIN for i in range(TRAIN)]
    test = [i * classes // TEST for i in range(TEST)]
    return Sample(images[:TRAIN], train, images[TRAIN:], test)


def refused(text: str, root: Path | str | None, name: str = "cifar10") -> None:
    """Loading fails, and the text says what was expected and what there is."""
    with pytest.raises(DataError, match=text) as error:
        load(name, root)
    assert re.search("expected .*[,;] got ", str(error.value))


# --- python batches --------------------------------------------------------------------------


def python2(data: np.ndarray, labels: Sequence[int], column: str = "labels") -> bytes:
    """Return what Python 2's cPickle and its numpy wrote at protocol 2: strings are bytes."""

    def string(text: bytes) -> bytes:
        if len(text) < 256:
            return b"U" + bytes([len(text)]) + text
        return b"T" + struct.pack("<i", len(text)) + text

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + string(b"u1") + b"K\x00K\x01\x87R"
    state = b"(K\x03" + string(b"|") + b"NNN" + number(-1) * 2 + b"K\x00tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    shape = number(data.shape[0]) + number(data.shape[1]) + b"\x86"
    array = empty + b"(K\x01" + shape + dtype + state + b"\x89" + string(data.tobytes()) + b"tb"
    listed = b"](" + b"".join(number(label) for label in labels) + b"e"
    items = string(b"data") + array + string(column.encode()) + listed
    return b"\x80\x02}(" + string(b"batch_label") + string(b"a batch") + items + b"u."


def rows(images: np.ndarray) -> np.ndarray:
    """Return uint8 [N, 3072], one channel after the other, as in the official files."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def write_batches(folder: Path, classes: int = 10, protocol: int | None = None) -> Path:
    """Write the official files; by Python 2 unless a protocol is given."""
    some, column = sample(classes), "labels" if classes == 10 else "fine_labels"

    def write(name: str, images: np.ndarray, labels: list[int]) -> None:
        data = rows(images)
        held = {"data": data, column: labels}
        text = python2(data, labels, column) if protocol is None else pickle.dumps(held, protocol)
        (folder / name).write_bytes(text)

    folder.mkdir(parents=True, exist_ok=True)
    if classes == 100:
        write("train", some.train_x, some.train_y)
        write("test", some.test_x, some.test_y)
        return folder
    for start in range(0, TRAIN, 4):
        part = slice(start, start + 4)
        write(f"data_batch_{start // 4 + 1}", some.train_x[part], some.train_y[part])
    write("test_batch", some.test_x, some.test_y)
    return folder


# --- encoded images --------------------------------------------------------------------------


def encoded(pixels: np.ndarray, kind: str = "PNG", quality: int = 75) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"quality": quality} if kind == "JPEG" else {}))
    return file.getvalue()


def table(
    data: Sequence[bytes | None], labels: Any, image: str = "img", label: str = "label"
) -> pa.Table:
    structs = [{"bytes": each, "path": f"{n}.png"} for n, each in enumerate(data)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({image: pa.array(structs, kind), label: pa.array(labels)})


def write_parquet(
    folder: Path, classes: int = 10, shards: int = 1, kind: str = "PNG", quality: int = 75,
    image: str = "img", label: str = "label",
) -> Path:  # fmt: skip
    """Write train and test files; the training images in so many shards."""
    some = sample(classes)
    folder.mkdir(parents=True, exist_ok=True)
    each = TRAIN // shards
    for n in range(shards):
        part = slice(n * each, (n + 1) * each)
        data = [encoded(pixels, kind, quality) for pixels in some.train_x[part]]
        name = f"train-{n:05}-of-{shards:05}.parquet" if shards > 1 else "train.parquet"
        parquet.write_table(table(data, some.train_y[part], image, label), folder / name)
    data = [encoded(pixels, kind, quality) for pixels in some.test_x]
    name = "test-00000-of-00001.parquet" if shards > 1 else "test.parquet"
    parquet.write_table(table(data, some.test_y, image, label), folder / name)
    return folder


def write_folders(root: Path, test: str = "test", kind: str = "PNG") -> Path:
    """Write ten class folders, named so that their order is that of the labels."""
    some = sample()
    for part, images, labels in (
        ("train", some.train_x, some.train_y),
        (test, some.test_x, some.test_y),
    ):
        for n, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            folder = root / part / f"class_{label}"
            folder.mkdir(parents=True, exist_ok=True)
            suffix = "png" if kind == "PNG" else "JPG"
            (folder / f"{n:03}.{suffix}").write_bytes(encoded(pixels, kind))
    return root


def write_photographs(root: Path, train: int = 9, test: int = 4) -> Path:
    """Write ImageNet-like folders: two classes of JPEG images, of all sizes."""
    chance = np.random.default_rng(1)
    for part, count in (("train", train), ("val", test)):
        for n in range(count):
            folder = root / part / ("n01440764", "n01443537")[n % 2]
            folder.mkdir(parents=True, exist_ok=True)
            small = chance.integers(0, 256, (5, 6, 3), dtype=np.uint8)
            image = Image.fromarray(small).resize((40 + 7 * n, 70 - 5 * n))
            image.save(folder / f"{n:04}.JPEG", "JPEG", quality=95)
    return root
