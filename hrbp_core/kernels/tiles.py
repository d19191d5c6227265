"""Which tiles the kernels may use; ``choice`` says which one they use.

One table says what is legal for each kind of arithmetic and block; nothing else can be chosen.
Each tile was compiled for sm_90 (and its like before Hopper for sm_80) without a byte of stack,
and with wgmma on sm_90 wherever the arithmetic has it:
``python -m bench profile --offline --all-tiles``. There is no autotuning at run time.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from hrbp_core.kernels.tile_types import GatherTile, RowTile, RowWgradTile, Tile, WgradTile
from hrbp_core.shapes import Pair, Pass

BLOCKS = (16, 32, 64, 128)
MAX_GLUE = 4  # entries that one step of the loop may span
MAX_RUN = 4  # entries that one wgrad tile may span
TILED = (torch.float16, torch.bfloat16, torch.float32)


# (arithmetic, size of the output's block): tiles from small to large
_GATHER: dict[tuple[str, int], tuple[GatherTile, ...]] = {
    ("half", 16): (
        GatherTile(64, 64, 4, 4, False),
        GatherTile(128, 64, 4, 4, False),
        GatherTile(256, 64, 8, 3, False),
    ),
    ("half", 32): (
        GatherTile(64, 64, 4, 4, False),
        GatherTile(128, 64, 4, 4, False),
        GatherTile(128, 32, 4, 5, False),
        GatherTile(256, 64, 8, 3, False),
    ),
    ("half", 64): (
        GatherTile(64, 64, 4, 4, True),
        GatherTile(128, 64, 4, 3, True),
        GatherTile(128, 64, 4, 4, False),
        GatherTile(256, 64, 8, 3, False),
    ),
    ("half", 128): (
        GatherTile(64, 64, 4, 4, True),
        GatherTile(128, 64, 4, 3, True),
        GatherTile(128, 64, 8, 3, True),
        GatherTile(256, 64, 8, 3, True),
    ),
    ("tf32", 16): (GatherTile(64, 32, 4, 4, False), GatherTile(128, 32, 4, 3, False)),
    ("tf32", 32): (GatherTile(64, 32, 4, 4, False), GatherTile(128, 32, 4, 3, False)),
    ("tf32", 64): (GatherTile(64, 32, 4, 3, False), GatherTile(128, 32, 4, 3, True)),
    ("tf32", 128): (GatherTile(64, 32, 8, 3, True), GatherTile(128, 32, 8, 3, True)),
    ("ieee", 16): (GatherTile(64, 16, 4, 3, False), GatherTile(128, 16, 8, 3, False)),
    ("ieee", 32): (GatherTile(64, 16, 4, 3, False), GatherTile(128, 16, 4, 3, False)),
    ("ieee", 64): (GatherTile(64, 16, 4, 3, False), GatherTile(128, 16, 4, 3, False)),
    ("ieee", 128): (GatherTile(64, 16, 4, 3, False), GatherTile(128, 16, 8, 3, False)),
}
_WGRAD: dict[tuple[str, int], tuple[WgradTile, ...]] = {
    ("half", 16): (WgradTile(64, 64, 4, 4, False),),
    ("half", 32): (WgradTile(64, 64, 4, 4, False), WgradTile(64, 128, 4, 3, False)),
    ("half", 64): (WgradTile(64, 64, 4, 4, True), WgradTile(128, 64, 8, 3, True)),
    ("half", 128): (WgradTile(64, 64, 8, 3, True), WgradTile(128, 64, 8, 3, True)),
    ("tf32", 16): (WgradTile(64, 32, 4, 3, False),),
    ("tf32", 32): (WgradTile(64, 32, 4, 3, False),),
    ("tf32", 64): (WgradTile(64, 32, 4, 3, True),),
    ("tf32", 128): (WgradTile(64, 32, 8, 3, True),),
    ("ieee", 16): (WgradTile(64, 32, 4, 3, False),),
    ("ieee", 32): (WgradTile(64, 32, 4, 3, False),),
    ("ieee", 64): (WgradTile(64, 32, 4, 3, True),),
    ("ieee", 128): (WgradTile(64, 32, 8, 3, True),),
}
# For whole patterns, three rows of taps, stride and dilation 1; the key is the output's block.
_ROWS: dict[int, tuple[RowTile, ...]] = {
    32: (RowTile(4, 64, 32, 4, 3, False), RowTile(7, 64, 32, 4, 2, False)),
    64: (RowTile(2, 128, 32, 4, 2, False), RowTile(4, 64, 32, 4, 3, True)),
}
_ROWS_WGRAD: dict[int, tuple[RowWgradTile, ...]] = {
    32: (RowWgradTile(4, 64, 32, 4, 3, False),),
    64: (RowWgradTile(2, 64, 32, 4, 4, True),),
    128: (RowWgradTile(2, 128, 32, 8, 3, True),),
}
# Before Hopper (mma.sync) both operands pass through registers, and these replace what would spill.
HOPPER = 90
_GATHER_AMPERE: dict[tuple[str, int], tuple[GatherTile, ...]] = {
    ("half", 32): (
        GatherTile(64, 64, 4, 4, False),
        GatherTile(128, 64, 4, 4, False),
        GatherTile(256, 64, 8, 3, False),
    ),
    ("half", 64): (GatherTile(64, 64, 4, 3, False), GatherTile(128, 32, 8, 4, False)),
    ("half", 128): (GatherTile(64, 64, 4, 4, True), GatherTile(128, 64, 8, 3, True)),
    ("ieee", 64): (GatherTile(64, 16, 4, 3, False),),
    ("ieee", 128): (GatherTile(128, 16, 8, 3, False),),
}
_WGRAD_AMPERE: dict[tuple[str, int], tuple[WgradTile, ...]] = {
    ("half", 16): (WgradTile(64, 32, 4, 4, False),),
    ("half", 32): (WgradTile(64, 64, 4, 4, False),),
    ("half", 64): (WgradTile(64, 64, 4, 3, True), WgradTile(128, 64, 8, 3, True)),
}
_GATHER_FALLBACK = GatherTile(32, 16, 8, 2, False, fallback=True)
_WGRAD_FALLBACK = WgradTile(32, 16, 8, 1, False, fallback=True)


def arithmetic(dtype: torch.dtype, precision: str) -> str:
    """Return "half", "tf32" or "ieee".

    Args:
        precision: how float32 is multiplied, "tf32" or "ieee"; of no meaning for the others.

    Raises:
        TypeError: a dtype that has no tiles.
    """
    if dtype in (torch.float16, torch.bfloat16):
        return "half"
    if dtype == torch.float32:
        return precision
    raise TypeError(f"expected float16, bfloat16 or float32, got {str(dtype).split('.')[1]}")


def check_block(block: Pair) -> None:
    """Raise unless the kernels take this block."""
    if block[0] not in BLOCKS or block[1] not in BLOCKS:
        raise ValueError(
            f"expected block_k and block_c each of {', '.join(map(str, BLOCKS))} on a GPU, "
            f"got {block[0]} and {block[1]}"
        )


def legal(
    conv_pass: Pass,
    kind: str,
    block: Pair,
    aligned: bool = True,
    taps: int = 9,
    capability: int = HOPPER,
) -> tuple[Tile, ...]:
    """Return the tiles that may be used, from small to large.

    Args:
        kind: of ``arithmetic``.
        block: (block_k, block_c), each of ``BLOCKS``.
        aligned: both channel counts are divisible by 8; otherwise there is one fallback tile.
        taps: R * S; above 32 a pixel's set of taps takes 64 bits, and the largest tiles spill.
        capability: compute capability of the device, 80 for an A100, 90 for an H100.
    """
    check_block(block)
    block_k, block_c = block
    if conv_pass is Pass.WGRAD:
        smaller = _WGRAD_AMPERE if capability < HOPPER else {}
        known = smaller.get((kind, block_k)) or _WGRAD[kind, block_k]
        tiles: Iterable[WgradTile] = known if aligned else (_WGRAD_FALLBACK,)
        return tuple(t for t in tiles if t.columns <= MAX_RUN * block_c)
    out, reduced = (block_k, block_c) if conv_pass is Pass.FPROP else (block_c, block_k)
    fewer = _GATHER_AMPERE if capability < HOPPER else {}
    every = fewer.get((kind, out)) or _GATHER[kind, out]
    found = every if aligned else (_GATHER_FALLBACK,)
    return tuple(
        t for t in found if t.reduce <= MAX_GLUE * reduced and (taps <= 32 or _leaves_room(t, out))
    )


def _leaves_room(tile: GatherTile, out: int) -> bool:
    """Return whether a pixel's set of 64 taps fits beside the sums: 64 a thread at most.

    128 pixels by 128 channels in four warps took 255 registers and 200 bytes of stack.
    """
    return tile.pixels <= 128 and tile.pixels * out <= 64 * 32 * tile.warps


def row_tiles(conv_pass: Pass, block: Pair) -> tuple[Tile, ...]:
    """Return the tiles that load a row of pixels once for three taps: half precision, Hopper.

    They serve problems that have rows, see ``Problem.has_rows``.
    """
    block_k, block_c = block
    if conv_pass is Pass.WGRAD:
        return tuple(
            tile
            for tile in _ROWS_WGRAD.get(block_k, ())
            if tile.columns % block_c == 0 and tile.columns <= MAX_RUN * block_c
        )
    out, reduced = (block_k, block_c) if conv_pass is Pass.FPROP else (block_c, block_k)
    return tuple(tile for tile in _ROWS.get(out, ()) if reduced % tile.reduce == 0)
