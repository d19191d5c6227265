"""Parquet files as Hugging Face distributes them: encoded images and labels, row by row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from bench.accuracy.data.facts import DataError, Spec
from bench.accuracy.data.images import Tally, decode
from bench.accuracy.data.layouts import shards
from bench.accuracy.data.parts import Part, checked_labels, join

IMAGE_COLUMNS = ("img", "image")
ROWS = 2_048  # decoded at once: the encoded images of a whole file are never in memory
SHARD = re.compile(r"(\d+)-of-(\d+)$")


def read(spec: Spec, folder: Path, tally: Tally) -> tuple[Part, Part]:
    """Return (training, test) images of a folder of parquet files.

    Raises:
        DataError: a file is missing, torn or of other columns; an image or a label is unfit.
    """
    train, test = (_whole(folder, part) for part in ("train", "test"))
    return join([_file(spec, p, tally) for p in train]), join([_file(spec, p, tally) for p in test])


def _whole(folder: Path, part: str) -> list[Path]:
    """Return the files of a part; of numbered shards each must be there."""
    found = shards(folder, part)
    if not found:
        raise DataError(f"expected {part}*.parquet in {folder}, got none")
    numbers = [SHARD.search(path.stem) for path in found]
    totals = {int(number[2]) for number in numbers if number}
    if not totals:
        return found
    if len(totals) > 1 or not all(numbers):
        told = ", ".join(path.name for path in found)
        raise DataError(f"expected the shards of one set of {part} files in {folder}, got {told}")
    missing = set(range(totals.pop())) - {int(number[1]) for number in numbers if number}
    if missing:
        told = ", ".join(map(str, sorted(missing)))
        raise DataError(
            f"expected every shard of {found[0].name} in {folder}, got none of number {told}"
        )
    return found


def _file(spec: Spec, path: Path, tally: Tally) -> Part:
    try:
        with parquet.ParquetFile(path) as file:
            image = _column(path, file.schema_arrow, IMAGE_COLUMNS)
            label = _column(path, file.schema_arrow, spec.label_columns[:1], spec.label_columns[1:])
            _check_types(path, file.schema_arrow, image, label)
            return _rows(spec, path, file, (image, label), tally)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"expected a whole parquet file, got {path}: {error}") from error


def _column(
    path: Path, schema: pa.Schema, names: Sequence[str], otherwise: Sequence[str] = ()
) -> str:
    found = [name for name in names if name in schema.names]
    found = found or [name for name in otherwise if name in schema.names]
    if len(found) != 1:
        wanted = " or ".join((*names, *otherwise))
        raise DataError(
            f"expected one column {wanted} in {path}, got {', '.join(schema.names) or 'none'}"
        )
    return found[0]


def _check_types(path: Path, schema: pa.Schema, image: str, label: str) -> None:
    kind = schema.field(image).type
    fields = {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}
    binary = fields.get("bytes")
    if binary is None or not (pa.types.is_binary(binary) or pa.types.is_large_binary(binary)):
        raise DataError(
            f"expected column {image} as a struct with binary 'bytes' in {path}, got {kind}"
        )
    if not pa.types.is_integer(schema.field(label).type):
        raise DataError(
            f"expected column {label} as integers in {path}, got {schema.field(label).type}"
        )


def _rows(
    spec: Spec, path: Path, file: parquet.ParquetFile, columns: tuple[str, str], tally: Tally
) -> Part:
    channels, height, width = spec.shape
    total = file.metadata.num_rows
    images = np.empty((total, height, width, channels), np.uint8)
    labels = np.empty(total, np.int64)
    row = kept = 0
    for batch in file.iter_batches(batch_size=ROWS, columns=list(columns)):
        encoded, named = batch.column(columns[0]), batch.column(columns[1])
        if encoded.null_count or encoded.field("bytes").null_count or named.null_count:
            raise DataError(f"expected an image and a label in every row, got null in {path}")
        held = checked_labels(named.to_numpy(), spec, len(batch), path)
        for data, label in zip(encoded.field("bytes"), held, strict=True):
            pixels = decode(data.as_py(), spec, f"row {row} of {path}", tally)
            row += 1
            if pixels is not None:
                images[kept], labels[kept] = pixels, label
                kept += 1
    return Part(images[:kept], labels[:kept])
