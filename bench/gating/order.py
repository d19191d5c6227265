"""The order that cells are measured in, and which of them together. Floor 0: no torch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence


def shuffled(names: Sequence[str], seed: int) -> list[str]:
    """Return the names in an order drawn by the seed."""
    order = list(names)
    random.Random(seed).shuffle(order)
    return order


def chunked(names: Sequence[str], sizes: Mapping[str, int], most: int) -> Iterator[list[str]]:
    """Yield runs of names whose sizes add up to ``most`` at most; one name at least in each."""
    chunk: list[str] = []
    held = 0
    for name in names:
        if chunk and held + sizes[name] > most:
            yield chunk
            chunk, held = [], 0
        chunk.append(name)
        held += sizes[name]
    if chunk:
        yield chunk


def turns(names: Sequence[str], seconds: Mapping[str, float], length_s: float) -> list[list[str]]:
    """Return turns: runs of cells that take about ``length_s``, an untimed call each included."""
    groups: list[list[str]] = []
    held = length_s
    for name in names:
        if held >= length_s:
            groups.append([])
            held = 0.0
        groups[-1].append(name)
        held += 2 * seconds[name]
    return groups
