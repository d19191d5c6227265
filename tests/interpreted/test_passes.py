"""Every pass, interpreted, against the oracle: shapes, blocks, taps, strides, tiles, dtypes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from hrbp_core.kernels import gpu
from hrbp_core.kernels import problem as problems
from hrbp_core.kernels.tiles import BLOCKS, Tile, legal
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


def test_the_check_can_fail() -> None:
    def off_by_a_little(*args: object) -> dict[str, torch.Tensor]:
        results = kernels(*args)  # type: ignore[arg-type]
        results["dgrad"][0, 0, 0, 0] += 0.01
        return results

    with pytest.raises(AssertionError):
        check(sized((16, 16)), torch.float32, off_by_a_little)
