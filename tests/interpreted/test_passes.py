"""Every pass, interpreted, against the oracle: shapes, blocks, taps, strides, tiles, dtypes."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from hrbp_core.kernels import gpu
from hrbp_core.kernels import problem as problems
from hrbp_core.kernels.choice import Cost
from hrbp_core.kernels.tile_types import RowTile, RowWgradTile, Tile
from hrbp_core.kernels.tiles import _ROWS, _ROWS_WGRAD, BLOCKS, legal
from hrbp_core.shapes import Pass
from tests.cpu_checks import check
from tests.kernel_checks import check_kernels, kernel_problems, kernels, sized
from tests.pattern_samples import Problem

pytestmark = pytest.mark.usefixtures("poisoned_memory")
DTYPES = (torch.float32, torch.float16, torch.float64)


@settings(max_examples=20)
@given(kernel_problems())
def test_three_passes_in_float64(problem: Problem) -> None:
    check_kernels(problem, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@settings(max_examples=10)
@given(problem=kernel_problems())
def test_three_passes(dtype: torch.dtype, problem: Problem) -> None:
    check_kernels(problem, dtype)


@pytest.mark.parametrize("block", [*itertools.product(BLOCKS, BLOCKS)])
def test_every_block(block: tuple[int, int]) -> None:
    check_kernels(sized(block, (2, 3), (3, 4), n=1, some_taps=True), torch.float32)


def distinct(conv_pass: Pass, block: tuple[int, int]) -> list[Tile]:
    """The tiles of every arithmetic and the fallback; numerics do not see warps and stages."""
    found = [t for kind in ("half", "tf32", "ieee") for t in legal(conv_pass, kind, block)]
    return list(
        {t.name: t for t in [*found, *legal(conv_pass, "half", block, aligned=False)]}.values()
    )


@pytest.mark.parametrize("block", [(16, 16), (64, 32), (32, 128)])
@pytest.mark.parametrize("conv_pass", Pass)
def test_every_tile(
    conv_pass: Pass, block: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles, usual = distinct(conv_pass, block), gpu.legal_tiles
    monkeypatch.setattr(
        gpu, "legal_tiles", lambda p, *rest: tuple(tiles) if p is conv_pass else usual(p, *rest)
    )
    problem = sized(block, (3, 2), (5, 5), n=2, seed=3, stride=(2, 1))
    name = {Pass.FPROP: "gather", Pass.DGRAD: "mirrored", Pass.WGRAD: "wgrad"}[conv_pass]
    assert len(tiles) >= 3
    for tile in tiles:
        chosen: dict[str, Any] = {name: tile}
        check_kernels(problem, torch.float32, **chosen)


ROW_TILES = [*itertools.chain(*_ROWS.values(), *_ROWS_WGRAD.values())]
ROW_BLOCKS = {32: (32, 64), 64: (64, 32), 128: (128, 64)}


def row_block(tile: Tile) -> tuple[int, int]:
    """A block of fprop or wgrad that the tile takes."""
    table: dict[int, Any] = dict(_ROWS_WGRAD if isinstance(tile, RowWgradTile) else _ROWS)
    return ROW_BLOCKS[next(extent for extent, tiles in table.items() if tile in tiles)]


@pytest.mark.parametrize(
    ("taps", "size", "padding", "more"),
    [((3, 3), (9, 7), (1, 1), (8, 24)), ((3, 5), (4, 6), (2, 0), (16, 0))],
)  # fmt: skip
@pytest.mark.parametrize("tile", ROW_TILES, ids=lambda tile: tile.name)
def test_row_tiles(
    tile: Tile, taps: tuple[int, int], size: tuple[int, int], padding: tuple[int, int],
    more: tuple[int, int], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    usual = gpu.legal_tiles
    monkeypatch.setattr(gpu, "legal_tiles", lambda *args: (*usual(*args), tile))
    block = row_block(tile)
    about: dict[str, Any] = {"padding": padding}
    problem = sized(block, taps, size, n=3, more=more, seed=3, **about)
    if isinstance(tile, RowWgradTile):
        for parts in (1, 3):
            check_kernels(problem, torch.float16, wgrad=tile, parts=parts)
    else:
        check_kernels(problem, torch.float16, gather=tile)
        swapped = sized(block[::-1], taps, size, n=3, more=more[::-1], seed=4, **about)
        check_kernels(swapped, torch.float16, mirrored=tile)


@settings(max_examples=10)
@given(problem=kernel_problems((32,), 3, whole_rows=True))
def test_row_tiles_on_any_shape(problem: Problem) -> None:
    """64 numbers of float64 a lane keep no rounding apart: what is left out or doubled shows."""
    gather, wgrad = _ROWS[32][0], _ROWS_WGRAD[32][0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "legal_tiles", lambda *args: (gather, wgrad))
        check_kernels(problem, torch.float64, gather=gather, mirrored=gather, wgrad=wgrad, parts=2)


def test_whole_patterns_take_rows_by_default() -> None:
    problem = sized((64, 64), more=(64, 64), size=(8, 8), n=2)
    with pytest.MonkeyPatch.context() as patch:
        taken = []
        for name in ("fprop", "dgrad", "wgrad"):
            module = importlib.import_module(f"hrbp_core.kernels.{name}")
            attribute = "launches" if name == "wgrad" else "launch"
            original = getattr(module, attribute)

            def seen(*args: Any, original: Any = original) -> Any:
                taken.append(args[-1])
                return original(*args)

            patch.setattr(module, attribute, seen)
        patch.setattr("hrbp_core.kernels.choice._GATHER_COSTS", {(64, _ROWS[64][1]): Cost(1, 1)})
        patch.setattr(
            "hrbp_core.kernels.choice._WGRAD_COSTS", {(64, _ROWS_WGRAD[64][0]): Cost(1, 1)}
        )
        check_kernels(problem, torch.float16)
    assert taken == [_ROWS[64][1], _ROWS[64][1], _ROWS_WGRAD[64][0]]
    assert isinstance(taken[0], RowTile)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 2), (5, 7)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1), (2, 3)])
def test_strides_and_dilations(stride: tuple[int, int], dilation: tuple[int, int]) -> None:
    problem = sized(
        (16, 16), (3, 3), (9, 11), n=1, stride=stride, dilation=dilation, padding=(2, 3)
    )
    check_kernels(problem, torch.float64)


@pytest.mark.parametrize("taps", [(1, 1), (7, 7), (1, 7), (8, 8), (5, 3)])
def test_kernel_sizes(taps: tuple[int, int]) -> None:
    """(7, 7) and (8, 8) hold their sets of taps in 64 bits, the last tap in the sign bit."""
    check_kernels(sized((16, 16), taps, (9, 8), n=1, some_taps=True), torch.float64)


@pytest.mark.parametrize("more", [(0, 0), (8, 1), (1, 8), (3, 13)])
def test_channels_that_fill_no_block(more: tuple[int, int]) -> None:
    for dtype in DTYPES:
        check_kernels(sized((16, 32), more=more), dtype)


@pytest.mark.parametrize("parts", [1, 2, 5, 64])
def test_parts_of_wgrad(parts: int) -> None:
    problem = sized((16, 16), size=(11, 13), n=3)
    check_kernels(problem, torch.float32, parts=parts)


def test_offsets_of_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "WIDE", 1)
    for block in ((16, 16), (64, 32)):
        problem = sized(block, stride=(2, 1))
        check_kernels(problem, torch.float64)
    monkeypatch.setattr(gpu, "legal_tiles", lambda *args: (_ROWS[32][0], _ROWS_WGRAD[32][0]))
    rows: dict[str, Any] = {
        "gather": _ROWS[32][0], "mirrored": _ROWS[32][0], "wgrad": _ROWS_WGRAD[32][0],
    }  # fmt: skip
    check_kernels(sized((32, 32)), torch.float64, **rows)


def test_the_check_can_fail() -> None:
    def off_by_a_little(*args: object) -> dict[str, torch.Tensor]:
        results = kernels(*args)  # type: ignore[arg-type]
        results["dgrad"][0, 0, 0, 0] += 0.01
        return results

    with pytest.raises(AssertionError):
        check(sized((16, 16)), torch.float32, off_by_a_little)
