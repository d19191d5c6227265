"""Which tiles the kernels may use, and which one they use.

One table says what is legal for each kind of arithmetic and block; nothing else can be chosen.
Each tile was compiled for sm_90 (and its like before Hopper for sm_80) without a byte of stack,
and with wgmma on sm_90 wherever the arithmetic has it:
``python -m bench profile --offline --all-tiles``. There is no autotuning at run time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from hrbp_core.shapes import Pair, Pass

BLOCKS = (16, 32, 64, 128)
MAX_GLUE = 4  # entries that one step of the loop may span
MAX_RUN = 4  # entries that one wgrad tile may span
MAX_SPLITS = 64
TILED = (torch.float16, torch.bfloat16, torch.float32)


class _Common:
    """What both kinds of tile have."""

    reduce: int
    warps: int
    stages: int
    fallback: bool

    @property
    def options(self) -> dict[str, int]:
        """What a launch passes to Triton."""
        return {"num_warps": self.warps, "num_stages": self.stages}

    def _named(self, extent: int, on_m: bool) -> str:
        side = "m" if on_m else "n"
        shape = f"{extent}x{self.reduce}.{side}.w{self.warps}s{self.stages}"
        return shape + ".fallback" * self.fallback


@dataclass(frozen=True)
class GatherTile(_Common):
    """A tile of fprop (filters x pixels) or dgrad (channels x pixels).

    Attributes:
        pixels: output pixels of a program.
        reduce: reduced channels (fprop) or filters (dgrad) a step.
        warps, stages: of a program; loads in flight.
        out_on_m: filters or channels, not pixels, on the matrix unit's M side. M comes in 64s
            and N up to 256, and an operand on N is read from shared memory once: for groups of
            64 and 128 this reads a third less of it.
        fallback: serves channel counts not divisible by 8, one number a load.
    """

    pixels: int
    reduce: int
    warps: int
    stages: int
    out_on_m: bool
    fallback: bool = False

    @property
    def name(self) -> str:
        """Short and unique, for tables."""
        return self._named(self.pixels, self.out_on_m)


@dataclass(frozen=True)
class WgradTile(_Common):
    """A tile of wgrad (filters x columns); a column is a channel of an entry.

    Attributes:
        columns: of a program; more than block_c spans neighbouring entries of a filter group.
        reduce: pixels a step.
        warps, stages: of a program; loads in flight.
        filters_on_m: filters, not columns, on the matrix unit's M side.
        fallback: serves channel counts not divisible by 8, one number a load.
    """

    columns: int
    reduce: int
    warps: int
    stages: int
    filters_on_m: bool
    fallback: bool = False

    @property
    def name(self) -> str:
        """Short and unique, for tables."""
        return self._named(self.columns, self.filters_on_m)


Tile = GatherTile | WgradTile

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
    ("half", 32): (WgradTile(64, 64, 4, 4, False),),
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
# Before Hopper (mma.sync) both operands pass through registers, and these replace what would spill.
HOPPER = 90
_GATHER_AMPERE: dict[tuple[str, int], tuple[GatherTile, ...]] = {
    ("half", 64): (GatherTile(64, 64, 4, 3, False), GatherTile(128, 32, 8, 4, False)),
    ("half", 128): (GatherTile(64, 64, 4, 4, True), GatherTile(128, 64, 8, 3, True)),
    ("ieee", 64): (GatherTile(64, 16, 4, 3, False),),
    ("ieee", 128): (GatherTile(128, 16, 8, 3, False),),
}
_WGRAD_AMPERE: dict[tuple[str, int], tuple[WgradTile, ...]] = {
    ("half", 16): (WgradTile(64, 32, 4, 4, False),),
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
    most = 256 if taps <= 32 else 128
    return tuple(t for t in found if t.reduce <= MAX_GLUE * reduced and t.pixels <= most)


def pick(tiles: tuple[Tile, ...], pixels: int, slots: int, processors: int) -> Tile:
    """Return the largest tile that still gives every multiprocessor a program, or the smallest.

    Larger tiles read less a product; more programs than multiprocessors matter more.

    Args:
        tiles: of ``legal``.
        pixels: of one program slot (fprop, dgrad), or reduced (wgrad).
        slots: programs that share the pixels: groups and phases; for wgrad, 64-column runs.
        processors: multiprocessors of the device.
    """
    fitting = tiles[:1]
    for tile in tiles:
        if isinstance(tile, WgradTile):
            enough = slots * 64 // tile.columns >= processors
        else:
            enough = -(-pixels // tile.pixels) * slots >= processors
        if enough:
            fitting = (tile,)
    return fitting[0]


def splits(
    tile: WgradTile, programs: int, pixels: int, part_bytes: int, limit_bytes: int, processors: int
) -> int:
    """Return into how many parts wgrad cuts the pixels.

    Enough for two programs a multiprocessor, each with at least four steps; the float32 parts
    stay within ``limit_bytes``.
    """
    wanted = -(-2 * processors // max(programs, 1))
    steps = -(-pixels // tile.reduce)
    most = min(MAX_SPLITS, max(1, steps // 4), max(1, limit_bytes // max(part_bytes, 1)))
    return min(wanted, most)
