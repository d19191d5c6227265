"""The Triton kernels beside the oracle: the same checks interpreted and on a GPU."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from hrbp_core.kernels import gpu
from hrbp_core.kernels.tile_types import Tile
from hrbp_core.launch_tables import launch_tables
from hrbp_core.shapes import ConvShape, Pair
from tests.cpu_checks import Results, check
from tests.pattern_samples import STYLES, Problem, geometries, random_pattern

CL = torch.channels_last
POISON = float("nan")


def kernels(
    problem: Problem,
    x: Tensor,
    values: Tensor,
    dy: Tensor,
    *,
    gather: Tile | None = None,
    mirrored: Tile | None = None,
    wgrad: Tile | None = None,
    parts: int | None = None,
) -> Results:
    """The three passes; fprop takes the tile ``gather``, dgrad ``mirrored``."""
    pattern, geometry = problem.pattern, problem.geometry
    tables = launch_tables(pattern, *geometry).to(x.device)
    where = (pattern.shape, pattern.block, geometry)
    x, dy = x.contiguous(memory_format=CL), dy.contiguous(memory_format=CL)
    return {
        "fprop": gpu.fprop(x, values, None, tables, *where, tile=gather),
        "dgrad": gpu.dgrad(dy, values, tables, x.shape[2:], *where, tile=mirrored),
        "wgrad": gpu.wgrad(
            dy, x, tables, len(pattern.entries), *where, tile=wgrad, parts=parts
        ),
    }  # fmt: skip


def check_kernels(
    problem: Problem, dtype: torch.dtype, device: str = "cpu", cut: float = 0.0, **tiles: Any
) -> None:
    check(problem, dtype, partial(kernels, **tiles), device, cut)


def sized(
    block: Pair, taps: Pair = (3, 3), size: Pair = (5, 4), *, n: int = 2, more: Pair = (8, 8),
    seed: int = 0, style: str = "random", some_taps: bool = False, **geometry: Pair,
) -> Problem:  # fmt: skip
    """A layer of one whole block and ``more`` filters and channels."""
    k, c = block[0] + more[0], block[1] + more[1]
    pattern = random_pattern((k, c, *taps), block, seed, style, some_taps=some_taps)
    geometry = {"padding": (taps[0] // 2, taps[1] // 2), **geometry}
    shape = replace(ConvShape(n, c, *size, k, *taps, padding=geometry["padding"]), **geometry)  # type: ignore[arg-type]
    return Problem(pattern, shape, seed)


@st.composite
def kernel_problems(
    draw: st.DrawFn, blocks: tuple[int, ...] = (16, 32), most_groups: int = 2,
    whole_rows: bool = False,
) -> Problem:  # fmt: skip
    """Draw a layer with a canonical pattern of accepted blocks; ragged and odd sizes included.

    Args:
        whole_rows: one that row tiles take: three rows of taps, all kept, stride 1.
    """
    block = (draw(st.sampled_from(blocks)), draw(st.sampled_from(blocks)))
    extra = st.sampled_from([0, 0, 8, 24] if whole_rows else [0, 0, 1, 5, 8, 15])
    k, c = (b * draw(st.integers(1, most_groups)) + draw(extra) for b in block)
    r, s, geometry, (h, w) = draw(geometries())
    if whole_rows:
        r, s = 3, draw(st.sampled_from([1, 3, 4]))
        padding = draw(st.integers(0, 2)), draw(st.integers(0, s - 1))
        geometry = ((1, 1), padding, (1, 1))
        h, w = draw(st.integers(3, 11)), draw(st.integers(4, 11))
    seed = draw(st.integers(0, 2**16))
    style = draw(st.sampled_from(STYLES))
    pattern = random_pattern(
        (k, c, r, s), block, seed, style, some_taps=not whole_rows and draw(st.booleans())
    )
    shape = ConvShape(draw(st.integers(1, 3)), c, h, w, k, r, s, *geometry)
    return Problem(pattern, shape, seed)
