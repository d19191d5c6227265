"""What is checked of the GPU kernels' tiles: small problems that break tiles, in an order.

The first are what runs by default on whole blocks; then every other legal tile, padded groups,
channel counts not divisible by 8, and kernels of 1x1 and 7x7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from bench.records import SCHEMA
from bench.suites import BATCH, find_suite
from hrbp_core.kernels.tile_types import Tile
from hrbp_core.kernels.tiles import BLOCKS, HOPPER, arithmetic, legal, row_tiles
from hrbp_core.launch_tables import Geometry
from hrbp_core.shapes import FilterShape, Pair, Pass, pair

BATCH_SIZE, IMAGE = 3, (13, 11)  # 429 pixels: the last tile of every size is partial
UNIT = ((1, 1), (1, 1), (1, 1))


@dataclass(frozen=True)
class Kind:
    """A dtype, and how float32 is multiplied."""

    name: str
    dtype: str
    precision: str = "ieee"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of x, y and values."""
        found: torch.dtype = getattr(torch, self.dtype)
        return found


KINDS = {
    kind.name: kind
    for kind in (
        Kind("bfloat16", "bfloat16"),
        Kind("float16", "float16"),
        Kind("tf32", "float32", "tf32"),
        Kind("float32", "float32"),
    )
}


@dataclass(frozen=True)
class TileCase:
    """A family of small problems that share their compiled kernels.

    Attributes:
        kernel: (R, S).
        halves: half blocks of filters, and of channels: an odd number pads the last group.
        extra: filters and channels beyond them.
        geometries: (stride, padding, dilation) of each problem.
        bias: fprop adds one.
        whole: kept blocks keep all their taps, for the tiles that need it.
    """

    name: str
    kernel: Pair
    halves: int
    geometries: tuple[Geometry, ...]
    extra: Pair = (0, 0)
    bias: bool = False
    whole: bool = False

    def shape(self, block: Pair) -> FilterShape:
        """Return (K, C, R, S) for a block."""
        k, c = (self.halves * block[i] // 2 + self.extra[i] for i in (0, 1))
        return k, c, *self.kernel

    @property
    def taps(self) -> int:
        """R * S."""
        return self.kernel[0] * self.kernel[1]


# stride 2 with dilation 2 leaves phases of dgrad without any tap
STRIDED = ((2, 2), (2, 1), (2, 1))
EVEN = TileCase("even", (3, 3), 6, (UNIT, STRIDED))
CASES = (
    EVEN,
    TileCase("padded", (3, 3), 5, (UNIT, STRIDED)),
    TileCase("ragged", (3, 3), 5, (UNIT, STRIDED), extra=(1, 3), bias=True),
    TileCase("point", (1, 1), 6, (((1, 1), (0, 0), (1, 1)), ((2, 1), (0, 1), (1, 1))), bias=True),
    TileCase("wide_kernel", (7, 7), 5, (((2, 2), (3, 3), (1, 1)),)),
)
# the last band of rows is partial, and so are the last lanes
ROWS = TileCase("rows", (3, 3), 6, (UNIT, ((1, 1), (0, 2), (1, 1))), whole=True)
ROW_CASES = (
    ROWS,
    TileCase("padded_rows", (3, 3), 5, (UNIT,), extra=(8, 16), bias=True, whole=True),
    TileCase("wide_rows", (3, 5), 5, (((1, 1), (2, 0), (1, 1)),), whole=True),
)
# offsets of 64 bits; its problem is made in ``tile_wide``
BEYOND_INT32 = TileCase("beyond_int32", (3, 3), 8, (UNIT,))


@dataclass(frozen=True)
class Item:
    """One tile of one pass."""

    conv_pass: Pass
    tile: Tile


@dataclass(frozen=True)
class TileBatch:
    """Tiles that are checked on the same problems, in one process."""

    kind: Kind
    block: Pair
    case: TileCase
    items: tuple[Item, ...]

    def record(self, item: Item, status: str, reason: str | None, **fields: Any) -> dict[str, Any]:
        """Return the line that is stored for a tile."""
        figures = dict.fromkeys(("error", "bound", "rms_error", "rms_bound"))
        return {
            "schema": SCHEMA,
            "pass": str(item.conv_pass),
            "dtype": self.kind.dtype,
            "precision": self.kind.precision,
            "block": list(self.block),
            "tile": item.tile.name,
            "case": self.case.name,
            **figures,
            **fields,
            "status": status,
            "reason": reason,
        }

    def without(self, done: set[tuple[Any, ...]]) -> TileBatch:
        """Return the batch with the items whose key is not in ``done``."""
        left = tuple(i for i in self.items if key_of(self.record(i, "", None)) not in done)
        return replace(self, items=left)


def key_of(record: dict[str, Any]) -> tuple[Any, ...]:
    """Return what names a record's tile and case."""
    names = ("pass", "dtype", "precision", "tile", "case")
    return (*(record[name] for name in names), tuple(record["block"]))


@dataclass(frozen=True)
class Wanted:
    """Which tiles are asked for; ``quick`` are the default choices on whole blocks."""

    kinds: tuple[Kind, ...] = tuple(KINDS.values())
    blocks: tuple[Pair, ...] = ()
    passes: tuple[Pass, ...] = tuple(Pass)
    quick: bool = False


def tile_batches(wanted: Wanted, device: int) -> list[TileBatch]:
    """Return all that is asked for, in the order in which it matters.

    Args:
        device: number of the CUDA device, or -1 under the interpreter.
    """
    whole = wanted.blocks or all_blocks()
    default, rest, wide, others = [], [], [], []
    for kind, block in product(wanted.kinds, whole):
        picked = {p: set(default_tiles(p, kind, block, device)) for p in wanted.passes}
        items = _items(EVEN, kind, block, wanted.passes, device)
        default.append(
            TileBatch(kind, block, EVEN, tuple(i for i in items if i.tile in picked[i.conv_pass]))
        )
        rows = _items(ROWS, kind, block, wanted.passes, device)
        default.append(TileBatch(kind, block, ROWS, rows))
        if wanted.quick:
            continue
        rest.append(
            TileBatch(
                kind, block, EVEN, tuple(i for i in items if i.tile not in picked[i.conv_pass])
            )
        )
        if device >= 0 and kind.name == "bfloat16" and block == (64, 64):
            wide.append(TileBatch(kind, block, BEYOND_INT32, default[-2].items))
    if not wanted.quick:
        others = [
            TileBatch(kind, block, case, _items(case, kind, block, wanted.passes, device))
            for case, kind, block in product((*CASES[1:], *ROW_CASES[1:]), wanted.kinds, whole)
        ]
    return [batch for batch in (*default, *rest, *wide, *others) if batch.items]


def all_blocks() -> tuple[Pair, ...]:
    """Return every (block_k, block_c), square ones and those of 64 first."""
    order = {block: place for place, block in enumerate((64, 32, 128, 16))}
    pairs = product(BLOCKS, BLOCKS)
    return tuple(sorted(pairs, key=lambda b: (b[0] != b[1], order[b[0]], order[b[1]])))


def _items(
    case: TileCase, kind: Kind, block: Pair, passes: Iterable[Pass], device: int
) -> tuple[Item, ...]:
    from hrbp_core.kernels.gpu import capability

    k, c = case.shape(block)[:2]
    aligned, name = k % 8 == 0 and c % 8 == 0, arithmetic(kind.torch_dtype, kind.precision)
    if case.whole:
        able = name == "half" and capability(device) == HOPPER
        return tuple(Item(p, tile) for p in passes for tile in row_tiles(p, block) if able)
    about = (name, block, aligned, case.taps, capability(device))
    return tuple(Item(each, tile) for each in passes for tile in legal(each, *about))


def default_tiles(conv_pass: Pass, kind: Kind, block: Pair, device: int) -> list[Tile]:
    """Return the tiles chosen for the layers of the quick suite at a quarter of the blocks.

    Those that load rows are not among them: they are all checked on whole blocks.
    """
    from hrbp_core.kernels.gpu import capability, default_tile, processors
    from hrbp_core.kernels.problem import Problem

    found = []
    for layer in find_suite("quick").layers:
        shape = layer.shape
        grid = -(-shape.K // block[0]) * -(-shape.C // block[1])
        problem = Problem(
            shape.filter_shape, block, (shape.stride, shape.padding, shape.dilation),
            BATCH["cuda"], (shape.H, shape.W), -(-grid // 4) * shape.R * shape.S, kind.precision,
        )  # fmt: skip
        about = processors(device), capability(device)
        found.append(default_tile(conv_pass, problem, kind.torch_dtype, *about))
    return list(dict.fromkeys(found))


def parse_blocks(words: Sequence[str]) -> tuple[Pair, ...]:
    """Return blocks of "64" (square) or "32x64" (block_k x block_c).

    Raises:
        ValueError: anything else, or a size that the kernels do not take.
    """
    blocks = []
    for word in words:
        parts = word.split("x")
        if len(parts) > 2 or not all(p.isdecimal() and int(p) in BLOCKS for p in parts):
            sizes = ", ".join(map(str, BLOCKS))
            raise ValueError(f"expected blocks like 64 or 32x64, of {sizes}; got {word!r}")
        blocks.append(pair([int(p) for p in parts], "block", least=1))
    return tuple(dict.fromkeys(blocks))


def code_digest() -> str:
    """Return a hash of the kernels and of this check: what a stored line holds for."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted([*root.glob("hrbp_core/**/*.py"), *root.glob("bench/tile_*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
