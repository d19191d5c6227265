"""What a checkpoint holds of a sparse layer beside its parameters: the pattern, and the choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hrbp_core.pattern import BlockPattern
from hrbp_core.policy import choice_of
from hrbp_core.shapes import FilterShape, Pair

TABLES = ("filters", "channels", "entries")


class Stored(NamedTuple):
    """What was found.

    Attributes:
        pattern: None where there are no tables: values belong to the pattern that is here.
        choice: None in checkpoints from before there was one.
    """

    pattern: BlockPattern | None
    choice: str | None


def read_stored(
    state_dict: Mapping[str, Any],
    prefix: str,
    shape: FilterShape,
    block: Pair,
    device: torch.device | None,
) -> Stored:
    """Return what a checkpoint holds under ``prefix``.

    Args:
        shape, block: those of the layer that is here.
        device: where the pattern goes; None leaves it where the checkpoint has it.

    Raises:
        TypeError, ValueError: a part that is missing, or of another layer, or broken.
    """
    names = ("layout", "values", *TABLES)
    found = {n: state_dict.get(prefix + n) for n in (*names, "chosen")}
    stored = {n: t for n, t in found.items() if isinstance(t, Tensor)}
    chosen = stored.pop("chosen", None)
    pattern = None
    if stored.keys() - {"values"}:
        if len(stored) < len(names):
            raise ValueError(f"expected all of {list(names)}, got {list(stored)}")
        pattern = _pattern(stored, shape, block, device)
    return Stored(pattern, None if chosen is None else choice_of(chosen))


def _pattern(
    stored: dict[str, Tensor], shape: FilterShape, block: Pair, device: torch.device | None
) -> BlockPattern:
    expected, got = [*shape, *block], stored["layout"].tolist()
    if got != expected:
        raise ValueError(
            f"expected a checkpoint of (K, C, R, S, block_k, block_c) {expected}, got {got}"
        )
    where = stored["entries"].device if device is None else device
    pattern = BlockPattern(shape, block, *(stored[name].to(where) for name in TABLES))
    got = list(stored["values"].shape)
    if got != list(pattern.values_shape):
        raise ValueError(
            f"expected values {list(pattern.values_shape)} for the checkpoint's own pattern, "
            f"got {got}"
        )
    return pattern
