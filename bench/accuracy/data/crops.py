"""Crops of photographs of any size: what ImageNet's recipes cut out of them."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.accuracy.data.images import FORMATS, reason

AUGMENTATION = "random resized crop, 8 to 100 % of the area; horizontal flip of one half"
AREAS = (0.08, 1.0)
RATIOS = (3 / 4, 4 / 3)
TRIES = 10
MARGIN = 256 / 224  # a test image's shorter side over the side of its central crop
Box = tuple[float, float, float, float]


def random_box(width: int, height: int, seed: int) -> Box:
    """Return (left, top, right, bottom) of the Inception crop that ``seed`` draws.

    The share of the area is uniform in 0.08 ... 1, the ratio of the sides log-uniform in
    3/4 ... 4/3; after ten boxes that do not fit, the largest central one (Szegedy et al.,
    arXiv:1409.4842, in torchvision's form).
    """
    chance = random.Random(seed)
    for _ in range(TRIES):
        area = width * height * chance.uniform(*AREAS)
        ratio = math.exp(chance.uniform(*map(math.log, RATIOS)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = chance.randint(0, width - w), chance.randint(0, height - h)
            return left, top, left + w, top + h
    ratio = min(max(width / height, RATIOS[0]), RATIOS[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def central_box(width: int, height: int) -> Box:
    """Return the box of the central crop: 224 of 256 parts of the shorter side."""
    side = min(width, height) / MARGIN
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def cut(image: Image.Image, box: Box, size: int) -> NDArray[np.uint8]:
    """Return the pixels [size, size, 3] of a box, resized bilinearly with antialiasing."""
    resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.array(resized)


def pixels_of(path: Path, size: int, seed: int | None) -> tuple[NDArray[np.uint8] | None, str]:
    """Return (pixels [size, size, 3] of one file, ""), or (None, why there are none).

    Args:
        seed: of the random crop; None: the central crop.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if seed is None:
                box = central_box(width, height)
            else:
                box = random_box(width, height, seed)
            return cut(image, box, size), ""
    except Exception as error:  # a broken file makes Pillow raise of many types
        return None, f"{path} ({reason(error)})"
