"""Batches of tiles over processes: a crash, a hang or a lost device costs one tile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bench import tile_pool
from bench.tile_cases import EVEN, KINDS, Item, TileBatch, TileCase
from bench.tile_judge import DeviceLost
from hrbp_core.kernels.tiles import legal
from hrbp_core.shapes import Pass

HALF = KINDS["float16"]


def batches(count: int, block: tuple[int, int] = (16, 16)) -> list[TileBatch]:
    """Return batches of one fprop item each, told apart by their case's name."""
    item = Item(Pass.FPROP, legal(Pass.FPROP, "half", block)[0])
    return [
        TileBatch(HALF, block, TileCase(f"case {n}", (3, 3), 6, EVEN.geometries), (item, item))
        for n in range(count)
    ]


# what stands in for the real check; a worker process finds it by its name


def all_right(batch: TileBatch, device: str) -> Iterator[dict[str, Any]]:
    for item in batch.items:
        yield batch.record(item, "ok", None)


def dies_on_case_1(batch: TileBatch, device: str) -> Iterator[dict[str, Any]]:
    for place, item in enumerate(batch.items):
        if batch.case.name == "case 1" and len(batch.items) == 2 and place == 0:
            os._exit(11)
        yield batch.record(item, "ok", None)


def loses_the_device(batch: TileBatch, device: str) -> Iterator[dict[str, Any]]:
    yield batch.record(batch.items[0], "failed", "illegal address")
    raise DeviceLost("gone")


def hangs_on_case_1(batch: TileBatch, device: str) -> Iterator[dict[str, Any]]:
    for item in batch.items:
        if batch.case.name == "case 1" and len(batch.items) == 2:
            time.sleep(60)
        yield batch.record(item, "ok", None)


def pool(check: tile_pool.Check, count: int, **more: Any) -> list[tuple[str, str, str | None]]:
    records = tile_pool.pooled(batches(count), check, "cpu", 2, lambda: False, **more)
    return sorted((r["case"], r["status"], r["reason"]) for r in records)


def test_a_process_that_dies_costs_one_tile() -> None:
    assert pool(dies_on_case_1, 3) == [
        ("case 0", "ok", None),
        ("case 0", "ok", None),
        ("case 1", "failed", "its process ended with exit code 11"),
        ("case 1", "ok", None),
        ("case 2", "ok", None),
        ("case 2", "ok", None),
    ]


def test_a_lost_device_is_left_behind_and_blamed_once() -> None:
    assert pool(loses_the_device, 1) == [("case 0", "failed", "illegal address")] * 2


def test_a_tile_that_never_ends_is_stopped() -> None:
    found = [f[:2] for f in pool(hangs_on_case_1, 2, item_limit_s=4.0)]
    assert found == [("case 0", "ok")] * 2 + [("case 1", "failed"), ("case 1", "ok")]


def test_a_process_that_cannot_start_is_an_error_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(tile_pool.PoolError, match="expected a worker process to start"):
        pool(all_right, 1)
