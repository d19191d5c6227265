"""Encoded images become pixels; what cannot be read is named, never passed over in silence."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.accuracy.data.facts import DataError, Spec

FORMATS = ("JPEG", "PNG")
MODES = ("RGB", "L", "P", "1")  # each turns into RGB without loss
SHOWN = 3
Pixels = NDArray[np.uint8]

# The luminance table of ITU-T T.81, annex K.1, in rows.
LUMINANCE = np.array((
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
))  # fmt: skip


@dataclass
class Tally:
    """What was met while images were read.

    Attributes:
        formats: how many of each format.
        qualities: how many JPEG images of each estimated quality.
        unreadable: what names each image that could not be read, and why not.
        seen: images in all.
    """

    formats: Counter[str] = field(default_factory=Counter)
    qualities: Counter[int] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    seen: int = 0

    def check(self, skip: bool) -> None:
        """Raise DataError when images were unreadable, unless they are to be skipped."""
        if self.unreadable and not skip:
            raise DataError(
                f"expected readable images, got {len(self.unreadable):,} of {self.seen:,} that "
                f"are not: {named(self.unreadable)}; skip_unreadable=True leaves them out"
            )

    @property
    def encoding(self) -> str:
        """The formats met, "raw" where nothing was decoded."""
        return "+".join(sorted(self.formats)) or "raw"

    @property
    def quality(self) -> tuple[int, int] | None:
        """(lowest, highest) JPEG quality; None where no image is a JPEG."""
        return (min(self.qualities), max(self.qualities)) if self.qualities else None


def decode(data: bytes, spec: Spec, where: str, tally: Tally) -> Pixels | None:
    """Return the pixels [H, W, 3] of one encoded image; None, and a note, when unreadable.

    Args:
        where: names the image in notes and errors.

    Raises:
        DataError: a readable image of another size or of other channels.
    """
    tally.seen += 1
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_size(image, spec, where)
            image.load()
            found = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
            _note(image, tally)
    except DataError:
        raise
    except Exception as error:  # a broken file makes Pillow raise of many types
        tally.unreadable.append(f"{where} ({reason(error)})")
        return None
    return found


def check_size(image: Image.Image, spec: Spec, where: str) -> None:
    """Raise DataError when an image is not of the data set's size, or not of its colours."""
    _, height, width = spec.shape
    if image.size != (width, height):
        wide, high = image.size
        raise DataError(
            f"expected images of {width}x{height} pixels ({spec.title}), got {wide}x{high}: {where}"
        )
    if image.mode not in MODES:
        raise DataError(f"expected an image of colours or greys, got mode {image.mode}: {where}")


def reason(error: Exception) -> str:
    """Return why an image could not be read, in a few words."""
    if isinstance(error, Image.UnidentifiedImageError):
        return f"no {' or '.join(FORMATS)}"
    return f"{type(error).__name__}: {error}"


def named(names: Sequence[str]) -> str:
    """Return the first few names, and that there are more."""
    more = f", ... ({len(names):,} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def jpeg_quality(table: Sequence[int]) -> int:
    """Return the quality, 1 to 100, whose luminance table is nearest to ``table`` [64], in rows.

    libjpeg's scaling of the standard's table; encoders with tables of their own (cameras,
    Photoshop) get the nearest quality.
    """
    return _nearest_quality(tuple(table))


@lru_cache(maxsize=256)
def _nearest_quality(table: tuple[int, ...]) -> int:
    wanted = np.array(table)
    qualities = np.arange(1, 101)
    percent = np.where(qualities < 50, 5_000 // qualities, 200 - 2 * qualities)
    tables = np.clip((LUMINANCE * percent[:, None] + 50) // 100, 1, 255)
    return int(qualities[np.abs(tables - wanted).sum(1).argmin()])


def _note(image: Any, tally: Tally) -> None:
    lossy = hasattr(image, "quantization")
    tally.formats["JPEG" if lossy else str(image.format)] += 1
    if lossy:
        tables = image.quantization
        tally.qualities[jpeg_quality(tables[min(tables)])] += 1
