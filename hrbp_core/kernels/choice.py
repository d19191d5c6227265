"""Which tile a problem gets: by a model with measured constants, or by size where there are none.

The model: programs run in waves, as many at once as the device holds, and a program takes a
start and a time a step. Fitted to 357 timings of 3x3 layers on an H200 (bfloat16, CUDA graphs), it
is off by 2 % on average for fprop and dgrad, 15 % at most, and for wgrad by 7 %, 50 % at most. The
numbers choose between tiles of one problem; they are no promise of a time elsewhere.
docs/kernel-notes.md has the measurements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch

from hrbp_core.kernels.problem import Problem
from hrbp_core.kernels.tile_types import GatherTile, RowTile, RowWgradTile, Tile, WgradTile
from hrbp_core.kernels.tiles import HOPPER, arithmetic, legal, row_tiles
from hrbp_core.shapes import Pass

MAX_SPLITS = 64
PART_US = 0.4  # to write and read again a million bytes of parts
WORKSPACE_BYTES = 64 * 2**20  # or a tenth of x, where that is more


@dataclass(frozen=True)
class Cost:
    """What a tile took on an H200.

    Attributes:
        start_us: of a program. step_us: of a step of its loop.
        resident: programs that a multiprocessor holds, as the fit counts them.
        fixed_us: of a launch.
    """

    start_us: float
    step_us: float
    resident: int = 1
    fixed_us: float = 0.0

    def predict_us(self, programs: float, steps: float, processors: int) -> float:
        """Return microseconds of ``programs`` that take ``steps`` each."""
        waves = programs / (processors * self.resident)
        # the last wave is as long as the others; where there are many, programs drift apart
        waves = max(1, math.ceil(waves - 0.03)) if waves < 6 else waves + 0.3
        return waves * (self.start_us + steps * self.step_us) + self.fixed_us


@dataclass(frozen=True)
class Choice:
    """What runs a problem.

    Attributes:
        parts: into how many wgrad cuts the pixels; None for the other passes.
        source: "tuned" (a table of measurements), "model" (measured costs), or "size".
    """

    tile: Tile
    parts: int | None
    source: str


# (extent of the block along the output's channels; wgrad: block_k), by tile
_GATHER_COSTS: dict[tuple[int, Tile], Cost] = {
    (32, GatherTile(128, 32, 4, 5, False)): Cost(0.803, 0.128),
    (32, GatherTile(256, 64, 8, 3, False)): Cost(2.438, 0.447),
    (32, RowTile(4, 64, 32, 4, 3, False)): Cost(3.552, 0.932, 2),
    (32, RowTile(7, 64, 32, 4, 2, False)): Cost(5.348, 1.691, 2),
    (64, GatherTile(64, 64, 4, 4, True)): Cost(0.519, 0.2),
    (64, GatherTile(128, 64, 4, 3, True)): Cost(1.073, 0.282),
    (64, RowTile(2, 128, 32, 4, 2, False)): Cost(3.661, 0.606),
    (64, RowTile(4, 64, 32, 4, 3, True)): Cost(3.838, 0.492),
    (128, GatherTile(64, 64, 4, 4, True)): Cost(0.0, 0.365),
    (128, GatherTile(128, 64, 4, 3, True)): Cost(0.0, 0.552),
    (128, GatherTile(128, 64, 8, 3, True)): Cost(0.0, 0.579),
    (128, GatherTile(256, 64, 8, 3, True)): Cost(0.0, 1.078),
}
_WGRAD_COSTS: dict[tuple[int, Tile], Cost] = {
    (32, WgradTile(64, 64, 4, 4, False)): Cost(0.0, 0.216, 1, 8.1),
    (32, WgradTile(64, 128, 4, 3, False)): Cost(0.0, 0.379, 1, 9.8),
    (32, RowWgradTile(4, 64, 32, 4, 3, False)): Cost(3.45, 0.594, 1, 4.1),
    (64, WgradTile(64, 64, 4, 4, True)): Cost(0.0, 0.243, 1, 5.6),
    (64, WgradTile(128, 64, 8, 3, True)): Cost(0.0, 0.458, 1, 5.5),
    (64, RowWgradTile(2, 64, 32, 4, 4, True)): Cost(2.766, 0.407),
    (128, WgradTile(128, 64, 8, 3, True)): Cost(0.0, 0.57),
    (128, RowWgradTile(2, 128, 32, 8, 3, True)): Cost(3.0, 1.27),
}


def legal_tiles(
    conv_pass: Pass, problem: Problem, dtype: torch.dtype, capability: int = HOPPER
) -> tuple[Tile, ...]:
    """Return the tiles that a problem may use on a device of this compute capability."""
    kind = kind_of(dtype, problem.precision)
    aligned = problem.shape[0] % 8 == 0 and problem.shape[1] % 8 == 0
    taps = problem.shape[2] * problem.shape[3]
    found = legal(conv_pass, kind, problem.block, aligned, taps, capability)
    # compiled for sm_100, the one of blocks of 128 came out without an instruction
    if kind == "half" and capability == HOPPER and problem.has_rows:
        found += row_tiles(conv_pass, problem.block)
    return found


def kind_of(dtype: torch.dtype, precision: str) -> str:
    """Return the ``arithmetic`` of a dtype; float64, which the interpreter takes, is "ieee"."""
    return "ieee" if dtype == torch.float64 else arithmetic(dtype, precision)


def default_choice(
    conv_pass: Pass,
    problem: Problem,
    dtype: torch.dtype,
    processors: int,
    capability: int = HOPPER,
) -> Choice:
    """Return what runs a problem that nobody has tuned, by geometry and density.

    Args:
        processors: multiprocessors of the device.
        capability: its compute capability, 90 for an H100.
    """
    tiles = legal_tiles(conv_pass, problem, dtype, capability)
    timed = {t: c for t in tiles if (c := cost_of(conv_pass, problem, t)) and dtype.itemsize == 2}
    if timed and capability == HOPPER:  # where they were measured
        source = "model"
        tile = min(timed, key=lambda t: _predicted(conv_pass, problem, t, timed[t], processors))
    else:
        source, tile = "size", pick(tiles, *_room(conv_pass, problem), processors)
    parts = None
    if isinstance(tile, WgradTile | RowWgradTile):
        parts = default_parts(problem, tile, dtype.itemsize, processors)
    return Choice(tile, parts, source)


def default_tile(
    conv_pass: Pass,
    problem: Problem,
    dtype: torch.dtype,
    processors: int,
    capability: int = HOPPER,
) -> Tile:
    """Return the tile of ``default_choice``."""
    return default_choice(conv_pass, problem, dtype, processors, capability).tile


def cost_of(conv_pass: Pass, problem: Problem, tile: Tile) -> Cost | None:
    """Return what is known of a tile's time, if it was measured."""
    if conv_pass is Pass.WGRAD:
        return _WGRAD_COSTS.get((problem.block[0], tile))
    return _GATHER_COSTS.get((problem.block[conv_pass is Pass.DGRAD], tile))


def _predicted(
    conv_pass: Pass, problem: Problem, tile: Tile, cost: Cost, processors: int
) -> float:  # fmt: skip
    if isinstance(tile, WgradTile | RowWgradTile):
        return min(_by_parts(problem, tile, cost, processors, 2).values())
    programs, steps = gather_work(conv_pass, problem, tile)
    return cost.predict_us(programs, steps, processors)


def gather_work(conv_pass: Pass, problem: Problem, tile: GatherTile | RowTile) -> tuple[int, float]:
    """Return (programs, mean steps of one) of fprop or dgrad."""
    pixels, slots = _room(conv_pass, problem)
    taps_down = problem.shape[2]
    forward = conv_pass is Pass.FPROP
    reduced = problem.block[1 if forward else 0]
    if isinstance(tile, GatherTile):
        return slots * -(-pixels // tile.pixels), problem.entries / slots * reduced / tile.reduce
    height, width = problem.out_size if forward else problem.size
    spots = -(-problem.batch * width // tile.lanes) * -(-height // tile.rows)
    return slots * spots, problem.entries / (taps_down * slots) * reduced / tile.reduce


def wgrad_work(problem: Problem, tile: WgradTile | RowWgradTile) -> tuple[int, int]:
    """Return (programs a part, steps of all parts) of wgrad."""
    _, _, r, s = problem.shape
    block_c = problem.block[1]
    if isinstance(tile, WgradTile):
        pixels = problem.batch * math.prod(problem.out_size)
        return -(-problem.entries * block_c // tile.columns), -(-pixels // tile.reduce)
    height, width = problem.out_size
    groups, blocks = problem.groups[0], problem.entries // (r * s)
    glue = max(1, tile.columns // block_c)
    runs = -(-(2 * blocks + groups * (glue - 1)) // (2 * glue))  # last ones of a group: half full
    steps = -(-height // tile.rows) * -(-problem.batch * width // tile.reduce)
    return s * runs, steps


@lru_cache(maxsize=1024)
def _by_parts(
    problem: Problem, tile: WgradTile | RowWgradTile, cost: Cost, processors: int, itemsize: int
) -> dict[int, float]:
    """Return the predicted microseconds by the number of parts.

    Fewer than two programs a multiprocessor were never fastest, nor measured by the fit.
    """
    programs, steps = wgrad_work(problem, tile)
    part_bytes, limit_bytes = _workspace(problem, itemsize)
    most = most_parts(steps, part_bytes, limit_bytes)
    least = min(most, max(1, math.ceil(1.9 * processors / max(programs, 1))))
    return {
        parts: cost.predict_us(programs * parts, -(-steps // parts), processors)
        + (PART_US * parts * part_bytes * 1e-6 if parts > 1 else 0.0)
        for parts in range(least, most + 1)
    }


def most_parts(steps: int, part_bytes: int, limit_bytes: int) -> int:
    """Return into how many parts the pixels may be cut: four steps each, within the limit."""
    return min(MAX_SPLITS, max(1, steps // 4), max(1, limit_bytes // max(part_bytes, 1)))


def parts_limit(problem: Problem, tile: WgradTile | RowWgradTile, itemsize: int) -> int:
    """Return the most parts that wgrad may cut the pixels into; ``itemsize``: of x, in bytes."""
    return most_parts(wgrad_work(problem, tile)[1], *_workspace(problem, itemsize))


def default_parts(
    problem: Problem, tile: WgradTile | RowWgradTile, itemsize: int, processors: int
) -> int:
    """Return into how many parts wgrad cuts the pixels.

    Args:
        itemsize: bytes of one number of x.
        processors: multiprocessors of the device.
    """
    cost = cost_of(Pass.WGRAD, problem, tile)
    if cost and itemsize == 2:
        times = _by_parts(problem, tile, cost, processors, itemsize)
        return min(times, key=lambda parts: times[parts])
    programs, steps = wgrad_work(problem, tile)
    return splits(programs, steps, *_workspace(problem, itemsize), processors)


def _workspace(problem: Problem, itemsize: int) -> tuple[int, int]:
    """Return bytes of a part, and of all that wgrad may take for them."""
    x_bytes = problem.batch * problem.shape[1] * math.prod(problem.size) * itemsize
    part_bytes = problem.entries * math.prod(problem.block) * 4
    return part_bytes, max(WORKSPACE_BYTES, x_bytes // 10)


def _room(conv_pass: Pass, problem: Problem) -> tuple[int, int]:
    """Return (pixels, slots): what ``pick`` takes."""
    if conv_pass is Pass.DGRAD:
        stride = problem.geometry[0]
        extents = (-(-problem.size[i] // stride[i]) for i in (0, 1))
        return problem.batch * math.prod(extents), math.prod(stride) * problem.groups[1]
    pixels = problem.batch * math.prod(problem.out_size)
    if conv_pass is Pass.FPROP:
        return pixels, problem.groups[0]
    return pixels, max(1, problem.entries * problem.block[1] // 64)


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
        elif isinstance(tile, GatherTile):
            enough = -(-pixels // tile.pixels) * slots >= processors
        else:
            enough = False  # rows are chosen where their cost is known
        if enough:
            fitting = (tile,)
    return fitting[0]


def splits(
    programs: int, steps: int, part_bytes: int, limit_bytes: int, processors: int
) -> int:  # fmt: skip
    """Return into how many parts wgrad cuts the pixels where no tile's cost is known.

    Enough for two programs a multiprocessor, each with at least four steps; the float32 parts
    stay within ``limit_bytes``.
    """
    wanted = -(-2 * processors // max(programs, 1))
    return min(wanted, most_parts(steps, part_bytes, limit_bytes))
