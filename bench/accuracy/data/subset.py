"""Which images a smaller data set keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.accuracy.data.facts import DataError


def stratified(labels: Tensor, count: int | None, name: str) -> Tensor:
    """Return ``count`` row numbers, ascending: the first of each class, each by its share.

    Args:
        labels: int64 [N]. count: None: all.
        name: of the part, for errors.

    Raises:
        DataError: fewer than the classes that occur, or more than there are.
    """
    images = len(labels)
    if count is None:
        return torch.arange(images, device=labels.device)
    sizes = torch.bincount(labels.cpu())
    least = int((sizes > 0).sum())
    if isinstance(count, bool) or not isinstance(count, int) or not least <= count <= images:
        raise DataError(
            f"expected {name} as an int of {least:,} (one a class) to {images:,}, got {count!r}"
        )
    # one of each class, the rest by its share; the largest remainders get what is left of that
    shares = (sizes - 1).clamp(min=0) * (count - least)
    whole = max(images - least, 1)
    wanted = sizes.clamp(max=1) + shares // whole
    order = torch.argsort(shares % whole, descending=True, stable=True)
    wanted[order[: count - int(wanted.sum())]] += 1
    rows = [torch.nonzero(labels == c)[:most, 0] for c, most in enumerate(wanted.tolist())]
    return torch.cat(rows).sort().values
