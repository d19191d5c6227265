"""Patterns, geometries and tensors that the tests of the operator share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from hrbp_core.pattern import BlockPattern
from hrbp_core.shapes import ConvShape, FilterShape, Pair
from hrbp_core.tables import contiguous_groups

STYLES = ("dense", "random", "equal_rows", "same_columns", "one_block", "diagonal")
PRIMES = (1, 2, 3, 5, 7, 11, 13, 17, 23, 31, 37, 67)
Geometry = tuple[Pair, Pair, Pair]


def random_table(size: int, block: int, generator: torch.Generator) -> Tensor:
    """Return int32 [groups, block]: all indices shuffled, -1 after the last."""
    order = torch.randperm(size, generator=generator).to(torch.int32)
    table = contiguous_groups(size, block)
    return torch.where(table < 0, table, order[table.long().clamp(min=0)])


def kept_blocks(style: str, grid: Pair, generator: torch.Generator) -> Tensor:
    """Return bool [G, Hc] with a block at least; most styles leave rows or columns empty."""
    g, h = grid
    if style == "dense":
        return torch.ones(g, h, dtype=torch.bool)
    if style == "same_columns":
        row = torch.rand(h, generator=generator) < 0.5
        row[int(torch.randint(h, (), generator=generator))] = True
        return row.expand(g, h).clone()
    if style == "equal_rows":
        count = int(torch.randint(1, h + 1, (), generator=generator))
        order = torch.rand(g, h, generator=generator).argsort(1)
        return order < count
    kept = torch.zeros(g, h, dtype=torch.bool)
    if style == "random":
        kept = torch.rand(g, h, generator=generator) < 0.4
    if style == "diagonal":
        kept[torch.arange(g), torch.arange(g) % h] = True
    kept[
        int(torch.randint(g, (), generator=generator)),
        int(torch.randint(h, (), generator=generator)),
    ] = True
    return kept


def random_pattern(
    shape: FilterShape,
    block: Pair,
    seed: int = 0,
    style: str = "random",
    *,
    permuted: bool = False,
    some_taps: bool = False,
) -> BlockPattern:
    """Return a partitioned pattern, canonical unless ``permuted``."""
    generator = torch.Generator().manual_seed(seed)
    k, c, r, s = shape
    filters, channels = contiguous_groups(k, block[0]), contiguous_groups(c, block[1])
    if permuted:
        filters = random_table(k, block[0], generator)
        channels = random_table(c, block[1], generator)
    kept = kept_blocks(style, (len(filters), len(channels)), generator)
    if some_taps:
        taps = torch.rand(*kept.shape, r * s, generator=generator) < 0.6
        taps[..., int(torch.randint(r * s, (), generator=generator))] = True
        kept = kept.unsqueeze(2) & taps
    return BlockPattern.from_blocks(shape, block, filters, channels, kept)


def overlapping_pattern(shape: FilterShape, block: Pair, seed: int = 0) -> BlockPattern:
    """Return a pattern in which every filter group chooses its own channels."""
    generator = torch.Generator().manual_seed(seed)
    filters = random_table(shape[0], block[0], generator)
    blocks = max(1, shape[1] // block[1] // 2)
    lists = [
        torch.randperm(shape[1], generator=generator)[: blocks * block[1]].view(blocks, block[1])
        for _ in filters
    ]
    kept = torch.eye(len(filters), dtype=torch.bool).repeat_interleave(blocks, dim=1)
    return BlockPattern.from_blocks(shape, block, filters, torch.cat(lists), kept)


def table(*rows: list[int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int32)


def example() -> BlockPattern:
    """4 filters, 3 channels, 1x2 taps, blocks of 2 x 1; one block keeps a tap only."""
    return BlockPattern(
        (4, 3, 1, 2),
        (2, 1),
        filters=table([2, 0], [1, 3]),
        channels=table([1], [0], [2]),
        entries=table([0, 0, 0], [0, 0, 1], [0, 2, 1], [1, 1, 0]),
    )


GOOD: dict[str, Any] = {
    "shape": (5, 6, 1, 2),
    "block": (2, 3),
    "filters": table([0, 1], [2, 3], [4, -1]),
    "channels": table([0, 1, 2], [3, 4, 5]),
    "entries": table([0, 0, 0], [0, 1, 0], [0, 0, 1], [2, 1, 1]),
}


@dataclass(frozen=True)
class Problem:
    """One layer, its pattern, and the seed of its tensors."""

    pattern: BlockPattern
    shape: ConvShape
    seed: int

    @property
    def geometry(self) -> Geometry:
        return self.shape.stride, self.shape.padding, self.shape.dilation

    def tensors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Return x, values (zero in padding) and dy."""
        generator = torch.Generator().manual_seed(self.seed)
        s = self.shape
        x = torch.randn(s.N, s.C, s.H, s.W, generator=generator, dtype=torch.float64)
        weight = torch.randn(s.filter_shape, generator=generator, dtype=torch.float64)
        dy = torch.randn(s.N, s.K, s.P, s.Q, generator=generator, dtype=torch.float64)
        return x.to(dtype), self.pattern.pack(weight).to(dtype), dy.to(dtype)


@st.composite
def geometries(
    draw: st.DrawFn, most: int = 3, *, narrow: bool = True
) -> tuple[int, int, Geometry, Pair]:
    """Draw (R, S, (stride, padding, dilation), (H, W)) with an output pixel at least.

    Not ``narrow``: W is at least the stride. On narrower images oneDNN's bfloat16 convolution
    can crash in the forward and return unwritten memory in the weight gradient (torch 2.13).
    """
    axes = []
    for _ in range(2):
        kernel, stride, dilation = (draw(st.integers(1, most)) for _ in range(3))
        padding = draw(st.integers(0, most))
        least = max(1, dilation * (kernel - 1) + 1 - 2 * padding)
        axes.append((kernel, stride, padding, dilation, least + draw(st.integers(0, 5))))
    (r, s), strides, paddings, dilations, (h, w) = (tuple(v) for v in zip(*axes, strict=True))
    return r, s, (strides, paddings, dilations), (h, w if narrow else max(w, strides[1]))


@st.composite
def problems(
    draw: st.DrawFn,
    *,
    permuted: bool = False,
    most_channels: int = 40,
    narrow: bool = True,
) -> Problem:
    """Draw a layer with a partitioned pattern; sizes are small, odd and prime more often."""
    sizes = st.sampled_from([p for p in PRIMES if p <= most_channels])
    k, c = (draw(sizes | st.integers(1, most_channels)) for _ in range(2))
    block = (draw(st.integers(1, min(k, 64))), draw(st.integers(1, min(c, 64))))
    r, s, geometry, (h, w) = draw(geometries(narrow=narrow))
    seed = draw(st.integers(0, 2**16))
    pattern = random_pattern(
        (k, c, r, s),
        block,
        seed,
        draw(st.sampled_from(STYLES)),
        permuted=permuted,
        some_taps=draw(st.booleans()),
    )
    shape = ConvShape(draw(st.integers(1, 3)), c, h, w, k, r, s, *geometry)
    return Problem(pattern, shape, seed)
