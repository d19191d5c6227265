"""Which launches an offline profile compiles: every legal tile, or those of one layer.

Tensors are on the meta device and the launches come from the launchers' own code, so that
signature, constants and divisibility are those of a real call. What only moves programs about
(``GROUPS_INSIDE``), or is never specialized on (extents, strides), is taken as it comes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bench.records import Case
from hrbp_core.kernels import dgrad, fprop, gpu, tiles, wgrad
from hrbp_core.kernels.launch import Launch
from hrbp_core.kernels.limits import check_problem
from hrbp_core.kernels.problem import CL, WIDE, Problem
from hrbp_core.kernels.tile_types import RowTile, RowWgradTile, Tile, WgradTile
from hrbp_core.shapes import Pair, Pass

DTYPES = ("float16", "bfloat16", "float32")
# dtype and how float32 is multiplied; of no meaning for the others, "ieee" as in a call
ARITHMETIC = (
    ("float16", "ieee"), ("bfloat16", "ieee"), ("float32", "tf32"), ("float32", "ieee"),
)  # fmt: skip
SOME_BLOCKS = ((16, 16), (64, 64), (128, 128))
BATCH, IMAGE, GROUPS = 64, (14, 14), 4


@dataclass(frozen=True)
class Variant:
    """A kind of problem that compiles to another kernel.

    Attributes:
        blocks: (block_k, block_c) it is compiled for; every accepted block when None.
        passes: that it makes a difference to.
        kernel: extent of the filters; above 5 a pixel's set of taps takes 64 bits.
        more: channels and filters beyond whole blocks; not divisible by 8: the fallback tile.
        wide: offsets take 64 bits.
        bias: added by fprop.
        parts: into how many wgrad cuts the pixels; one writes dvalues itself.
        rows: whole blocks in tiles that load a row of pixels once for three taps.
    """

    name: str
    blocks: tuple[Pair, ...] | None = SOME_BLOCKS
    passes: tuple[Pass, ...] = tuple(Pass)
    kernel: int = 3
    more: int = 0
    wide: bool = False
    bias: bool = False
    parts: int = 4
    rows: bool = False


VARIANTS = (
    Variant("plain", None),
    Variant("fallback", None, more=3),
    Variant("7x7", kernel=7),
    Variant("1x1", kernel=1),
    Variant("wide", wide=True),
    Variant("masked", more=8),
    Variant("bias", passes=(Pass.FPROP,), bias=True),
    Variant("one part", passes=(Pass.WGRAD,), parts=1),
    Variant("fallback 7x7", more=3, kernel=7),
    Variant("fallback wide", more=3, wide=True),
    Variant("fallback bias", passes=(Pass.FPROP,), more=3, bias=True),
    Variant("fallback one part", passes=(Pass.WGRAD,), more=3, parts=1),
    Variant("rows", None, rows=True),
    Variant("rows masked", more=8, rows=True),
    Variant("rows wide", wide=True, rows=True),
    Variant("rows bias", passes=(Pass.FPROP,), bias=True, rows=True),
    Variant("rows one part", passes=(Pass.WGRAD,), parts=1, rows=True),
)


@dataclass(frozen=True)
class Job:
    """One kernel to compile.

    Attributes:
        arch: e.g. "sm_90".
        summing: the kernel that sums wgrad's parts, not the one that makes them.
    """

    conv_pass: Pass
    dtype: str
    problem: Problem
    tile: Tile
    variant: str
    arch: str
    bias: bool = False
    parts: int = 1
    summing: bool = False

    @property
    def arithmetic(self) -> str:
        """half, tf32 or ieee."""
        return tiles.arithmetic(getattr(torch, self.dtype), self.problem.precision)

    @property
    def label(self) -> str:
        """Names the job in one line."""
        block = "x".join(map(str, self.problem.block))
        tile = "sum_parts" if self.summing else self.tile.name
        words = (str(self.conv_pass), self.dtype, self.arithmetic, block, tile, self.variant)
        return " ".join((*words, self.arch))

    @property
    def largest_side(self) -> int:
        """The longer side of the product that the matrix unit is given."""
        block_k, block_c = self.problem.block
        if isinstance(self.tile, WgradTile | RowWgradTile):
            return max(block_k, self.tile.columns)
        lanes = self.tile.lanes if isinstance(self.tile, RowTile) else self.tile.pixels
        return max(lanes, block_k if self.conv_pass is Pass.FPROP else block_c)


def launch_of(job: Job) -> Launch:
    """Return the launch, on tensors without memory."""
    problem, dtype = job.problem, getattr(torch, job.dtype)
    k, c, _, _ = problem.shape
    x = _meta((problem.batch, c, *problem.size), dtype)
    y = _meta((problem.batch, k, *problem.out_size), dtype)
    values = _meta((problem.entries * problem.block[0], problem.block[1]), dtype)
    tables = _meta((problem.at.size,), torch.int64)
    if isinstance(job.tile, WgradTile | RowWgradTile):
        parts = _meta((job.parts, *values.shape), torch.float32) if job.parts > 1 else None
        made = wgrad.launches(y, x, tables, values, parts, problem, job.tile)
        return made[1 if job.summing else 0]
    if job.conv_pass is Pass.DGRAD:
        return dgrad.launch(y, values, tables, x, problem, job.tile)
    bias = _meta((k,), dtype) if job.bias else None
    return fprop.launch(x, values, tables, y, bias, problem, job.tile)


def _meta(size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    memory = CL if len(size) == 4 else torch.contiguous_format
    return torch.empty(size, dtype=dtype, device="meta", memory_format=memory)


def identity(job: Job) -> tuple[Any, ...]:
    """Return what two jobs that compile to the same binary share, and no others."""
    launch = launch_of(job)
    parts = []
    for param in launch.kernel.params:
        given: Any = launch.args[param.name]
        if isinstance(given, Tensor):
            given = str(given.dtype)
        elif param.do_not_specialize and not param.is_constexpr:
            given = "i32" if -(2**31) <= given < 2**31 else "i64"
        parts.append(given)
    options = sorted(launch.options.items())
    return launch.kernel.__name__, *parts, *options, job.arch


def all_tiles(
    archs: Sequence[str], passes: Sequence[Pass] = tuple(Pass), dtypes: Sequence[str] = DTYPES
) -> tuple[list[Job], list[str]]:
    """Return a job for every legal tile and variant, and what is accepted but has no tile."""
    jobs: list[Job] = []
    missing: list[str] = []
    for arch in archs:
        begun = len(jobs)
        for conv_pass in passes:
            for dtype, precision in (each for each in ARITHMETIC if each[0] in dtypes):
                for variant in (each for each in VARIANTS if conv_pass in each.passes):
                    for block in _blocks(variant):
                        found = _tile_jobs(conv_pass, dtype, precision, variant, block, arch)
                        if not found and not variant.rows:
                            words = (conv_pass, dtype, precision, "x".join(map(str, block)))
                            missing.append(" ".join(map(str, (*words, variant.name, arch))))
                        jobs += found
        jobs += _sums(jobs[begun:])
    return jobs, missing


def capability_of(arch: str) -> int:
    """Return 90 for "sm_90"."""
    return int(arch.removeprefix("sm_"))


def _blocks(variant: Variant) -> list[Pair]:
    every = [(k, c) for k in tiles.BLOCKS for c in tiles.BLOCKS]
    return [block for block in every if variant.blocks is None or block in variant.blocks]


def _tile_jobs(
    conv_pass: Pass, dtype: str, precision: str, variant: Variant, block: Pair, arch: str
) -> list[Job]:
    problem = _problem(variant, block, precision)
    try:
        allowed = gpu.legal_tiles(conv_pass, problem, getattr(torch, dtype), capability_of(arch))
    except KeyError:
        return []
    parts = variant.parts if conv_pass is Pass.WGRAD else 1
    if variant.rows:
        allowed = tuple(t for t in allowed if isinstance(t, RowTile | RowWgradTile))
    return [
        Job(conv_pass, dtype, problem, tile, variant.name, arch, variant.bias, parts)
        for tile in allowed
    ]


def _problem(variant: Variant, block: Pair, precision: str) -> Problem:
    """Return a problem of the variant: a quarter of the blocks of four by four groups, or so."""
    k, c = (GROUPS * extent + variant.more for extent in block)
    taps, pad = variant.kernel**2, variant.kernel // 2
    batch = -(-WIDE // (c * math.prod(IMAGE))) if variant.wide else BATCH
    return Problem(
        (k, c, variant.kernel, variant.kernel), block, ((1, 1), (pad, pad), (1, 1)),
        batch, IMAGE, GROUPS * taps, precision, whole=variant.rows,
    )  # fmt: skip


def _sums(jobs: Sequence[Job]) -> Iterator[Job]:
    """The kernel that sums wgrad's parts knows neither tile nor block: once a dtype."""
    done = set()
    for job in jobs:
        if job.conv_pass is Pass.WGRAD and job.parts > 1 and job.dtype not in done:
            done.add(job.dtype)
            yield replace(job, summing=True)


def layer_jobs(
    case: Case, archs: Sequence[str], processors: int, tile_name: str | None = None
) -> list[Job]:
    """Return the launches of one pass of a layer: one, or two where wgrad sums parts.

    Args:
        processors: multiprocessors of the GPU that default tile and parts are chosen for.
        tile_name: of a legal tile; the default one when left out.

    Raises:
        TypeError, ValueError: a dtype, block or tile that is not accepted.
    """
    dtype, shape = getattr(torch, case.dtype), case.shape
    problem = Problem(
        shape.filter_shape, case.recipe.block, (shape.stride, shape.padding, shape.dilation),
        shape.N, (shape.H, shape.W), case.entries,
        gpu.precision() if dtype == torch.float32 else "ieee",
        whole=not case.recipe.method.endswith("_pp"),
    )  # fmt: skip
    check_problem(problem, dtype, device=-1)
    return [
        job for arch in archs for job in _layer_jobs(case, problem, arch, processors, tile_name)
    ]


def _layer_jobs(
    case: Case, problem: Problem, arch: str, processors: int, tile_name: str | None
) -> list[Job]:
    dtype, capability = getattr(torch, case.dtype), capability_of(arch)
    allowed = gpu.legal_tiles(case.conv_pass, problem, dtype, capability)
    chosen = {tile.name: tile for tile in allowed}
    if tile_name is not None and tile_name not in chosen:
        raise ValueError(
            f"expected a tile of {case.conv_pass} for this layer on {arch}, one of "
            f"{', '.join(chosen)}; got {tile_name!r}"
        )
    if tile_name is None:
        tile = gpu.default_tile(case.conv_pass, problem, dtype, processors, capability)
    else:
        tile = chosen[tile_name]
    parts = 1
    if isinstance(tile, WgradTile | RowWgradTile):
        parts = gpu.default_parts(problem, tile, dtype.itemsize, processors)
    first = Job(case.conv_pass, case.dtype, problem, tile, "layer", arch, parts=parts)
    return [first, replace(first, summing=True)] if parts > 1 else [first]
