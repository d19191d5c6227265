"""The table of tiles: complete, and the choice from it sensible."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrbp_core.kernels import choice, gpu, limits
from hrbp_core.kernels.choice import Cost, pick, splits
from hrbp_core.kernels.fastdiv import magic
from hrbp_core.kernels.problem import Problem
from hrbp_core.kernels.tile_types import GatherTile, RowTile, RowWgradTile, WgradTile
from hrbp_core.kernels.tiles import (
    BLOCKS,
    MAX_GLUE,
    MAX_RUN,
    arithmetic,
    check_block,
    legal,
    row_tiles,
)
from hrbp_core.shapes import Pass

PAIRS = list(itertools.product(BLOCKS, BLOCKS))
KINDS = ("half", "tf32", "ieee")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("conv_pass", Pass)
def test_every_accepted_block_has_tiles(conv_pass: Pass, kind: str) -> None:
    cases = itertools.product(PAIRS, (True, False), (1, 9, 49), (80, 90, 100))
    for block, aligned, taps, capability in cases:
        tiles = legal(conv_pass, kind, block, aligned, taps, capability)
        assert tiles
        assert len({t.name for t in tiles}) == len(tiles)
        assert all(t.fallback != aligned for t in tiles)
        own, other = block if conv_pass is Pass.FPROP else block[::-1]
        for tile in tiles:
            if isinstance(tile, WgradTile):
                assert conv_pass is Pass.WGRAD
                assert tile.columns <= MAX_RUN * block[1]
                assert tile.columns % min(block[1], tile.columns) == 0
            else:
                assert isinstance(tile, GatherTile)
                assert tile.reduce <= MAX_GLUE * other
                assert tile.out_on_m is False or own >= 64 or tile.fallback


def test_sets_of_64_taps_leave_room_for_64_sums_a_thread() -> None:
    tile = GatherTile(128, 64, 4, 3, True)
    for taps, able in ((9, True), (32, True), (33, False), (49, False)):
        assert (tile in legal(Pass.FPROP, "half", (128, 128), taps=taps)) is able
    assert tile in legal(Pass.FPROP, "half", (64, 128), taps=49)


def test_ampere_takes_smaller_tiles_where_hoppers_would_spill() -> None:
    hopper, ampere = (
        {t.name for t in legal(Pass.FPROP, "half", (64, 64), capability=c)} for c in (90, 86)
    )
    assert hopper
    assert ampere
    assert hopper.isdisjoint(ampere)
    assert gpu.capability(-1) == 90


@pytest.mark.parametrize("block", [(8, 16), (16, 48), (256, 64), (0, 16)])
def test_other_blocks_are_refused(block: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"of 16, 32, 64, 128 on a GPU, got "):
        check_block(block)


def test_arithmetic() -> None:
    assert arithmetic(torch.bfloat16, "ieee") == arithmetic(torch.float16, "tf32") == "half"
    assert arithmetic(torch.float32, "tf32") == "tf32"
    assert arithmetic(torch.float32, "ieee") == "ieee"
    with pytest.raises(TypeError, match="got float64"):
        arithmetic(torch.float64, "ieee")


def test_the_largest_tile_that_fills_the_device() -> None:
    small, large = GatherTile(64, 64, 4, 4, False), GatherTile(256, 64, 8, 3, False)
    assert pick((small, large), 256 * 10, 13, 130) == large
    assert pick((small, large), 256 * 10 - 256, 13, 130) == small
    assert pick((small, large), 1, 1, 130) == small


@given(
    st.integers(1, 10**4), st.integers(1, 10**7), st.integers(1, 10**9), st.integers(0, 10**9),
    st.integers(1, 200),
)  # fmt: skip
def test_splits_stay_within_memory_and_steps(
    programs: int, pixels: int, part: int, limit: int, processors: int
) -> None:
    steps = -(-pixels // 64)
    parts = splits(programs, steps, part, limit, processors)
    assert 1 <= parts <= 64
    if parts > 1:
        assert parts * part <= limit
        assert steps // parts >= 4
        assert (parts - 1) * programs < 2 * processors


@given(st.integers(0, 2**31 - 1), st.integers(1, 2**31 - 1) | st.integers(1, 300))
def test_division_by_multiplication(number: int, divisor: int) -> None:
    multiplier, shift = magic(divisor)
    assert -(2**31) <= multiplier < 2**31
    high = (number * (multiplier % 2**32)) >> 32
    assert high + number < 2**32
    assert (high + number) >> shift == number // divisor


@pytest.mark.parametrize("divisor", [0, -1, 2**31])
def test_divisors_out_of_range(divisor: int) -> None:
    with pytest.raises(ValueError, match="expected a divisor"):
        magic(divisor)


def problem(batch: int = 128, size: int = 14, channels: int = 256, **more: Any) -> Problem:
    geometry = ((1, 1), (1, 1), (1, 1))
    about = {"block": (64, 64), "geometry": geometry, "entries": 36, **more}
    shape = (channels, channels, 3, 3)
    return Problem(shape, batch=batch, size=(size, size), **about)


def test_the_wave_model_by_hand() -> None:
    cost = Cost(start_us=2.0, step_us=0.5, resident=2, fixed_us=3.0)
    assert cost.predict_us(20, 10, processors=10) == (2 + 5) * 1 + 3  # one full wave
    assert cost.predict_us(1, 10, processors=10) == 7 + 3  # never less than one
    assert cost.predict_us(24, 10, processors=10) == 2 * 7 + 3  # the last wave is a whole one
    assert cost.predict_us(200, 10, processors=10) == pytest.approx(10.3 * 7 + 3)


def test_work_by_hand() -> None:
    """256 channels in blocks of 64, 4 blocks, 2 images of 14 x 14: 28 pairs a row."""
    each = problem(batch=2, whole=True)
    rows = RowTile(4, 64, 32, 4, 3, True)
    # 4 groups x 4 bands x 1 run of pairs; 1 block x 3 columns of taps x 2 halves
    assert choice.gather_work(Pass.FPROP, each, rows) == (16, 6)
    assert choice.gather_work(Pass.DGRAD, each, rows) == (16, 6)
    assert choice.gather_work(Pass.FPROP, each, GatherTile(128, 64, 4, 3, True)) == (16, 9)
    # 4 blocks x 3 columns of taps; 7 bands x 1 run of pairs
    assert choice.wgrad_work(each, RowWgradTile(2, 64, 32, 4, 4, True)) == (12, 7)
    assert choice.wgrad_work(each, WgradTile(64, 64, 4, 4, True)) == (36, 7)


@pytest.mark.parametrize("conv_pass", Pass)
def test_the_default_is_the_tile_that_the_model_finds_fastest(conv_pass: Pass) -> None:
    for block, channels, size in (((64, 64), 512, 28), ((32, 32), 256, 14), ((128, 128), 512, 7)):
        each = problem(128, size, channels, block=block, entries=9 * 16, whole=True)
        tiles = choice.legal_tiles(conv_pass, each, torch.bfloat16)
        chosen = choice.default_tile(conv_pass, each, torch.bfloat16, 132)
        times = {
            t: choice._predicted(conv_pass, each, t, c, 132)
            for t in tiles
            if (c := choice.cost_of(conv_pass, each, t))
        }
        assert chosen in tiles
        assert times[chosen] == min(times.values())


def test_every_cost_is_a_legal_tiles() -> None:
    """A typing error in the table would silently lose a measurement."""
    for extent, tile in choice._GATHER_COSTS:
        block = (extent, 64)
        assert tile in (*legal(Pass.FPROP, "half", block), *row_tiles(Pass.FPROP, block))
    for extent, tile in choice._WGRAD_COSTS:
        block = (extent, extent)
        assert tile in (*legal(Pass.WGRAD, "half", block), *row_tiles(Pass.WGRAD, block))


def test_rows_are_for_whole_blocks_three_rows_of_taps_and_hopper() -> None:
    whole = problem(whole=True)
    for each, dtype, capability, able in (
        (whole, torch.bfloat16, 90, True),
        (whole, torch.float16, 90, True),
        (whole, torch.float16, 100, False),
        (whole, torch.float32, 90, False),
        (whole, torch.bfloat16, 80, False),
        (problem(), torch.bfloat16, 90, False),
        (problem(whole=True, geometry=((2, 2), (1, 1), (1, 1))), torch.bfloat16, 90, False),
        (problem(whole=True, geometry=((1, 1), (1, 1), (2, 1))), torch.bfloat16, 90, False),
        (problem(whole=True, channels=255), torch.bfloat16, 90, False),
    ):
        for conv_pass in Pass:
            found = choice.legal_tiles(conv_pass, each, dtype, capability)
            assert any(isinstance(t, RowTile | RowWgradTile) for t in found) is able


@pytest.mark.parametrize("block", PAIRS)
def test_rows_divide_their_blocks(block: tuple[int, int]) -> None:
    for conv_pass in (Pass.FPROP, Pass.DGRAD):
        reduced = block[conv_pass is Pass.FPROP]
        for tile in row_tiles(conv_pass, block):
            assert isinstance(tile, RowTile)
            assert reduced % tile.reduce == 0
    for tile in row_tiles(Pass.WGRAD, block):
        assert isinstance(tile, RowWgradTile)
        assert tile.columns // block[1] in (1, 2, 4)
        assert tile.columns % block[1] == 0


def test_ampere_keeps_the_tiles_that_were_compiled_for_it() -> None:
    for conv_pass in Pass:
        names = {t.name for t in legal(conv_pass, "half", (32, 32), capability=80)}
        assert not names & {"128x32.n.w4s5", "64x128.n.w4s3"}


def test_without_measured_tiles_the_largest_that_fills_the_device() -> None:
    def pixels(conv_pass: Pass, **sizes: int) -> int:
        tile = gpu.default_tile(conv_pass, problem(**sizes), torch.bfloat16, 132, 80)
        assert isinstance(tile, GatherTile)
        return tile.pixels

    for conv_pass in (Pass.FPROP, Pass.DGRAD):
        assert pixels(conv_pass) == 128
        assert pixels(conv_pass, batch=1, size=4) == 64


def test_workspace_of_wgrad_is_bounded() -> None:
    """Parts stay within 64 MiB or a tenth of x, whichever is more."""
    for batch in (1, 64, 1024):
        each = problem(batch)
        tile = legal(Pass.WGRAD, "half", each.block)[0]
        assert isinstance(tile, WgradTile)
        parts = gpu.default_parts(each, tile, 2, 1000)
        limit = max(64 * 2**20, batch * 256 * 14 * 14 * 2 // 10)
        assert parts * each.entries * 64 * 64 * 4 <= limit


def test_cpu_tensors_are_refused_outside_the_interpreter() -> None:
    x = torch.zeros(1, 16, 2, 2)
    with pytest.raises(ValueError, match="expected a CUDA tensor, got one on cpu"):
        gpu.fprop(
            x, torch.zeros(16, 16), None, torch.zeros(1), (16, 16, 1, 1), (16, 16),
            ((1, 1), (0, 0), (1, 1)),
        )  # fmt: skip


def test_float32_follows_torchs_own_switch() -> None:
    before = torch.backends.cudnn.allow_tf32
    try:
        for allowed, name in ((True, "tf32"), (False, "ieee")):
            torch.backends.cudnn.allow_tf32 = allowed
            assert gpu.precision() == name
    finally:
        torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize(
    ("capability", "version", "words"),
    [
        ((7, 5), "3.7.1", "expected a GPU of compute capability 8.0 or newer.*got T4 with 7.5"),
        ((9, 0), "3.5.1", "expected Triton 3.6 or newer, got 3.5.1"),
        ((9, 0), "3.6.0", None),
    ],
)
def test_what_is_too_old_is_named(
    capability: tuple[int, int], version: str, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "T4")
    monkeypatch.setattr("triton.__version__", version)
    limits._check_device.cache_clear()
    with pytest.raises(RuntimeError, match=words) if words else nullcontext():
        limits._check_device(0)
    limits._check_device.cache_clear()
