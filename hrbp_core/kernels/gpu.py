"""The three passes on CUDA tensors: checks, choice of tile, memory, launch.

The functions take the same arguments as ``cpu``'s and return channels_last. Everything that
hangs on sizes alone is worked out once and kept, because a launch's host time is longer than
many a kernel. Nothing waits for the device, so all can be captured in a CUDA graph.

Under Triton's interpreter (TRITON_INTERPRET=1) they take CPU tensors, for tests.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor

from hrbp_core.kernels import tuned
from hrbp_core.kernels.choice import (
    Choice,
    default_choice,
    default_parts,
    legal_tiles,
)
from hrbp_core.kernels.choice import (
    default_tile as default_tile,  # what compiles for a GPU that is not here looks for it beside
)
from hrbp_core.kernels.limits import check_dy, check_problem
from hrbp_core.kernels.problem import CL, Problem, new_output
from hrbp_core.kernels.tile_types import GatherTile, RowTile, RowWgradTile, Tile, WgradTile
from hrbp_core.kernels.tiles import HOPPER
from hrbp_core.launch_tables import Geometry
from hrbp_core.shapes import FilterShape, Pair, Pass

INTERPRETED_PROCESSORS = 4
INTERPRETER = "interpreter"  # instead of a device's name

conversions: Counter[str] = Counter()  # copies made because a tensor was not dense channels_last


def fprop(
    x: Tensor, values: Tensor, bias: Tensor | None, tables: Tensor, shape: Sequence[int],
    block: Sequence[int], geometry: Geometry, tile: Tile | None = None,
) -> Tensor:  # fmt: skip
    """Return y [N, K, P, Q]. x: [N, C, H, W]; values as BlockPattern packs them; bias: [K].

    Raises:
        TypeError, ValueError: a dtype, block, kernel size or tensor that is not accepted.
        RuntimeError: a device or a Triton that is too old.
    """
    from hrbp_core.kernels import fprop as kernel

    x, values = dense(x, "x"), dense_rows(values)
    bias = None if bias is None else bias.contiguous()  # an expanded one has no stride
    problem = _problem(x, values, tables, shape, block, geometry, x.shape[2:])
    tile = cast(GatherTile | RowTile, _tile(Pass.FPROP, problem, x, tile))
    out = new_output(x, len(x), problem.shape[0], problem.out_size)
    if out.numel():
        with _on(x):
            kernel.launch(x, values, tables, out, bias, problem, tile).run()
    return out


def dgrad(
    dy: Tensor, values: Tensor, tables: Tensor, input_size: Sequence[int], shape: Sequence[int],
    block: Sequence[int], geometry: Geometry, tile: Tile | None = None,
) -> Tensor:  # fmt: skip
    """Return dx [N, C, H, W] of dy [N, K, P, Q]; ``input_size`` is (H, W). Raises as fprop."""
    from hrbp_core.kernels import dgrad as kernel

    dy, values = dense(dy, "dy"), dense_rows(values)
    problem = _problem(dy, values, tables, shape, block, geometry, input_size)
    check_dy(dy, problem)
    tile = cast(GatherTile | RowTile, _tile(Pass.DGRAD, problem, dy, tile))
    out = new_output(dy, len(dy), problem.shape[1], problem.size)
    if out.numel():
        with _on(dy):
            kernel.launch(dy, values, tables, out, problem, tile).run()
    return out


def wgrad(
    dy: Tensor, x: Tensor, tables: Tensor, entries: int, shape: Sequence[int],
    block: Sequence[int], geometry: Geometry, tile: Tile | None = None,
    parts: int | None = None, out_dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """Return dvalues [entries * block_k, block_c] of dy [N, K, P, Q] and x [N, C, H, W].

    Args:
        entries: stored blocks.
        parts: into how many the pixels are cut; chosen when left out.
        out_dtype: x's when left out. Sums are kept in float32, and fp16 can overflow.

    Raises as fprop.
    """
    from hrbp_core.kernels import wgrad as kernel

    dy, x = dense(dy, "dy"), dense(x, "x")
    out = x.new_empty((entries * block[0], block[1]), dtype=out_dtype)
    problem = _problem(x, out, tables, shape, block, geometry, x.shape[2:])
    check_dy(dy, problem)
    if not len(x):
        return out.zero_()
    tile = cast(WgradTile | RowWgradTile, _tile(Pass.WGRAD, problem, x, tile))
    with _on(x):
        memory = kernel.new_parts(out, parts or _parts(problem, tile, x, _device(x)))
        for launch in kernel.launches(dy, x, tables, out, memory, problem, tile):
            launch.run()
    return out


def dense(tensor: Tensor, name: str) -> Tensor:
    """Return the tensor as dense channels_last memory on a 16-byte boundary; a copy is counted."""
    if tensor.is_contiguous(memory_format=CL) and tensor.data_ptr() % 16 == 0:
        return tensor
    conversions[name] += 1
    return tensor.clone(memory_format=CL)


def dense_rows(values: Tensor) -> Tensor:
    """Return values as dense rows on a 16-byte boundary; a copy is counted."""
    if values.is_contiguous() and values.data_ptr() % 16 == 0:
        return values
    conversions["values"] += 1
    return values.clone(memory_format=torch.contiguous_format)


def precision() -> str:
    """Return how torch's own convolutions multiply float32 here: "tf32" or "ieee"."""
    conv = getattr(torch.backends.cudnn, "conv", None)
    found = getattr(conv, "fp32_precision", None)
    if found in ("tf32", "ieee"):
        return str(found)
    return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"


def _problem(
    like: Tensor, values: Tensor, tables: Tensor, shape: Sequence[int], block: Sequence[int],
    geometry: Geometry, size: Sequence[int],
) -> Problem:  # fmt: skip
    how = precision() if like.dtype == torch.float32 else "ieee"
    problem = _checked(
        tuple(shape), tuple(block), geometry, len(like), tuple(size), len(values) // block[0], how,
        like.dtype, _device(like), tables.numel(),
    )  # fmt: skip
    if tables.dtype != torch.int64:
        raise ValueError(f"expected tables of int64, got {tables.dtype}")
    if values.device != like.device or tables.device != like.device:
        raise ValueError(
            f"expected values and tables on {like.device}, got {values.device}, {tables.device}"
        )
    return problem


@lru_cache(maxsize=4096)
def _checked(
    shape: FilterShape, block: Pair, geometry: Geometry, batch: int, size: Pair, entries: int,
    how: str, dtype: torch.dtype, device: int, table_size: int,
) -> Problem:  # fmt: skip
    problem = Problem(shape, block, geometry, batch, size, entries, how)
    check_problem(problem, dtype, device)
    whole = replace(problem, whole=True)
    for each in (problem, whole):  # the length of the tables says which
        if each.at.size == table_size:
            return each
    raise ValueError(
        f"expected tables of {problem.at.size} int64 for this pattern and geometry "
        f"({whole.at.size} for whole blocks), got {table_size}"
    )


def _tile(conv_pass: Pass, problem: Problem, like: Tensor, tile: Tile | None) -> Tile:
    """Return the tile to use: the one asked for, if it is legal, or the one of ``choose``."""
    if tile is None:
        key = conv_pass, like.dtype, like.get_device()
        if key not in problem.kept:
            problem.kept[key] = choose(conv_pass, problem, like.dtype, _device(like)).tile
        return cast(Tile, problem.kept[key])
    allowed = legal_tiles(conv_pass, problem, like.dtype, capability(_device(like)))
    if tile not in allowed:
        names = ", ".join(t.name for t in allowed)
        raise ValueError(f"expected a legal tile, one of {names}; got {tile}")
    return tile


def choose(conv_pass: Pass, problem: Problem, dtype: torch.dtype, device: int) -> Choice:
    """Return what runs a problem: what was tuned for this GPU, or the default.

    Args:
        device: number of the CUDA device, or -1 under the interpreter.

    Raises:
        ValueError: a table of tuned tiles that cannot be read.
    """
    found = tuned.lookup(conv_pass, problem, dtype, device_name(device), capability(device))
    if found:
        return Choice(*found, "tuned")
    return default_choice(conv_pass, problem, dtype, processors(device), capability(device))


@lru_cache(maxsize=64)
def device_name(device: int) -> str:
    """Return the device's name, by which tuned tiles are looked up."""
    return INTERPRETER if device < 0 else str(torch.cuda.get_device_name(device))


@lru_cache(maxsize=64)
def processors(device: int) -> int:
    """Return the device's multiprocessors."""
    if device < 0:
        return INTERPRETED_PROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@lru_cache(maxsize=64)
def capability(device: int) -> int:
    """Return the device's compute capability, 90 for an H100; an interpreted one is Hopper."""
    if device < 0:
        return HOPPER
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _parts(problem: Problem, tile: WgradTile | RowWgradTile, x: Tensor, device: int) -> int:
    key = tile, x.dtype, device
    if key not in problem.kept:
        found = choose(Pass.WGRAD, problem, x.dtype, device)
        problem.kept[key] = (
            found.parts
            if found.tile == tile
            else default_parts(problem, tile, x.element_size(), processors(device))
        )
    return cast(int, problem.kept[key])


def _device(tensor: Tensor) -> int:
    """Return the CUDA device's number, or -1 under the interpreter.

    Raises:
        ValueError: neither.
    """
    if tensor.is_cuda:
        return int(tensor.device.index)
    if not interpreted():
        raise ValueError(f"expected a CUDA tensor, got one on {tensor.device}")
    return -1


def interpreted() -> bool:
    """Return whether Triton's interpreter runs the kernels in this process."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def _on(tensor: Tensor) -> AbstractContextManager[Any]:
    """Make the tensor's device current: Triton launches on the current one."""
    if not tensor.is_cuda or tensor.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(tensor.device)
