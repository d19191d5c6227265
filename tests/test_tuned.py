"""The table of tuned tiles: what is found in it, for whom, and what it must be like."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from bench import problem as measured
from bench.impls import block_sparse
from bench.records import Case, Recipe
from bench.tune_table import write
from hrbp_core.kernels import choice, gpu, tuned
from hrbp_core.kernels.problem import Problem
from hrbp_core.kernels.tile_types import RowWgradTile, WgradTile
from hrbp_core.shapes import ConvShape, Pass
from tests.tuning_samples import GPU, entry

HALF = torch.bfloat16
GEOMETRY = ((1, 1), (1, 1), (1, 1))
Use = Callable[..., None]


def problem(blocks: int = 64, **more: Any) -> Problem:
    """512 filters and channels in blocks of 64: 64 blocks, of which some are kept."""
    about: dict[str, Any] = {"entries": 9 * blocks, "whole": True, **more}
    return Problem((512, 512, 3, 3), (64, 64), GEOMETRY, 128, (14, 14), **about)


QUARTER = problem(16)
TILES = choice.legal_tiles(Pass.FPROP, QUARTER, HALF)
WGRADS = choice.legal_tiles(Pass.WGRAD, QUARTER, HALF)


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Use:
    """Make a table of these entries the one in use."""

    def made(*entries: dict[str, Any]) -> None:
        path = tmp_path / f"table{len(list(tmp_path.iterdir()))}.json"
        write(path, entries)
        monkeypatch.setenv("HRBP_TUNED", str(path))

    return made


def found(each: Problem, conv_pass: Pass = Pass.FPROP, dtype: torch.dtype = HALF, gpu: str = GPU,
          capability: int = 90) -> str | None:  # fmt: skip
    answer = tuned.lookup(conv_pass, each, dtype, gpu, capability)
    return answer[0].name if answer else None


def test_the_librarys_own_table_can_be_read() -> None:
    assert isinstance(tuned.load(tuned.TABLE), dict)
    assert json.loads(tuned.TABLE.read_text())["schema"] == tuned.SCHEMA


def test_an_entry_serves_its_own_problem_alone(use: Use) -> None:
    use(entry(QUARTER, TILES[1]))
    assert found(QUARTER) == TILES[1].name
    assert found(QUARTER, dtype=torch.float16) == TILES[1].name  # the same arithmetic
    others = {
        "another GPU": found(QUARTER, gpu="Another GPU"),
        "another pass": found(QUARTER, Pass.DGRAD),
        "another kind": found(QUARTER, dtype=torch.float32),
        "batch": found(replace(QUARTER, batch=129)),
        "size": found(replace(QUARTER, size=(14, 15))),
        "geometry": found(replace(QUARTER, geometry=((2, 2), (1, 1), (1, 1)))),
        "padding": found(replace(QUARTER, geometry=((1, 1), (0, 1), (1, 1)))),
        "filters": found(replace(QUARTER, shape=(1024, 512, 3, 3))),
        "block": found(replace(QUARTER, block=(64, 32))),
        "taps": found(replace(QUARTER, whole=False)),
    }
    assert others == dict.fromkeys(others)


@pytest.mark.parametrize(
    ("blocks", "bucket"), [(64, 0), (32, 3), (16, 6), (15, 6), (14, 7), (18, 5), (17, 6), (8, 9)]
)
def test_buckets_are_a_third_of_a_halving_wide(blocks: int, bucket: int) -> None:
    assert tuned.density_bucket(problem(blocks)) == bucket


def test_a_tenth_and_an_eighth_are_two_buckets() -> None:
    tenth = replace(QUARTER, shape=(640, 640, 3, 3), entries=90)
    assert (tuned.density_bucket(tenth), tuned.density_bucket(problem(8))) == (10, 9)


def test_the_nearest_bucket_serves_and_none_beyond_a_neighbour(use: Use) -> None:
    use(entry(QUARTER, TILES[1]))  # bucket 6
    served = {n: found(problem(n)) is not None for n in range(8, 33)}
    assert {tuned.density_bucket(problem(n)) for n, yes in served.items() if yes} == {5, 6, 7}
    assert not any(
        yes for n, yes in served.items() if abs(tuned.density_bucket(problem(n)) - 6) > 1
    )
    use(entry(problem(13), TILES[0]), entry(problem(20), TILES[1]))  # 7 and 5: 6 has none
    assert found(problem(15)) == TILES[0].name
    assert found(problem(17)) == TILES[1].name
    use(entry(problem(13), TILES[0]), entry(QUARTER, TILES[1]))
    assert found(problem(15)) == TILES[1].name  # its own bucket goes first


def test_a_tile_that_is_not_legal_any_more_is_ignored(use: Use) -> None:
    gone = entry(QUARTER, TILES[1]) | {"tile": "512x64.m.w4s4"}
    use(gone)
    assert found(QUARTER) is None
    use(gone, entry(problem(20), TILES[0]))
    assert found(QUARTER) == TILES[0].name
    rows = next(t for t in TILES if "rows" in t.name)
    use(entry(QUARTER, rows))
    assert found(QUARTER) == rows.name
    assert found(QUARTER, capability=100) is None  # rows are Hopper's


def test_parts_stay_within_the_workspace(use: Use) -> None:
    tile = WGRADS[0]
    assert isinstance(tile, WgradTile | RowWgradTile)
    most = choice.parts_limit(QUARTER, tile, 2)
    for parts in (1, most, most + 1, 10**6):
        use(entry(QUARTER, tile, Pass.WGRAD, parts=parts))
        assert tuned.lookup(Pass.WGRAD, QUARTER, HALF, GPU, 90) == (tile, min(parts, most))


def test_off_means_no_table_and_nothing_the_librarys(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(entry(QUARTER, TILES[1]))
    path = Path(os.environ["HRBP_TUNED"])
    monkeypatch.setenv("HRBP_TUNED", "off")
    assert found(QUARTER) is None
    monkeypatch.setattr(tuned, "TABLE", path)
    assert found(QUARTER) is None
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("HRBP_TUNED")
        else:
            monkeypatch.setenv("HRBP_TUNED", unset)
        assert found(QUARTER) == TILES[1].name


def test_a_table_is_read_once(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    use(entry(QUARTER, TILES[1]))
    read = Mock(wraps=tuned.read)
    monkeypatch.setattr(tuned, "read", read)
    assert [found(problem(n)) for n in (16, 17, 3)] == [TILES[1].name] * 2 + [None]
    assert read.call_count == 1


RIGHT = entry(QUARTER, TILES[1])


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in RIGHT.items() if key != name}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "expected a table of tiles in JSON, got "),
        ("[]", "expected an object with schema and entries, got a list"),
        ('{"entries": 3, "schema": 1}', r"schema and entries, got \['entries', 'schema'\]"),
        ('{"schema": 2, "entries": []}', "expected schema 1, got 2"),
        ([3], "entry 1: expected an object, got a int"),
        ([RIGHT, without("tile")], "entry 2: expected tile, a name; got gpu, "),
        ([RIGHT | {"tile": 7}], "entry 1: expected tile as a name, got 7"),
        (
            [RIGHT | {"pass": "forward"}],
            "expected pass as one of fprop, dgrad, wgrad, got 'forward'",
        ),
        ([RIGHT | {"shape": [512, 512, 3]}], r"expected shape as K, C, R, S, got \[512, 512, 3\]"),
        ([RIGHT | {"batch": True}], "expected batch as an int from 1 on, got True"),
        ([RIGHT | {"whole": 1}], "expected whole as true or false, got 1"),
        ([RIGHT | {"density_bucket": -1}], "expected density_bucket as an int from 0 on, got -1"),
        ([RIGHT | {"median_us": 0}], "expected median_us as microseconds above 0, got 0"),
        ([RIGHT | {"parts": 4}], "expected parts with wgrad alone, got 4"),
        ([RIGHT | {"pass": "wgrad"}], "expected parts with wgrad alone, got None"),
        ([RIGHT, RIGHT | {"tile": "another"}], "entry 2: expected each problem once"),
    ],
)
def test_a_malformed_table_is_told(
    text: str | list[Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text if isinstance(text, str) else json.dumps({"schema": 1, "entries": text}))
    monkeypatch.setenv("HRBP_TUNED", str(path))
    with pytest.raises(ValueError, match=words) as error:
        found(QUARTER)
    assert str(path) in str(error.value)


def test_a_table_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRBP_TUNED", str(tmp_path / "none.json"))
    with pytest.raises(ValueError, match=r"expected a table of tiles at .*none\.json, got "):
        found(QUARTER)


# --- the launcher --------------------------------------------------------------------------------


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device, as far as the choice of a tile looks at it."""
    monkeypatch.setattr(gpu, "device_name", lambda device: GPU)
    monkeypatch.setattr(gpu, "processors", lambda device: 132)
    monkeypatch.setattr(gpu, "capability", lambda device: 90)
    monkeypatch.setattr(gpu, "_device", lambda tensor: 0)


LIKE = torch.zeros(1, dtype=HALF)


@pytest.mark.usefixtures("device")
def test_the_launcher_takes_what_was_tuned_and_else_the_default(use: Use) -> None:
    usual = choice.default_tile(Pass.FPROP, problem(16), HALF, 132)
    other = next(tile for tile in TILES if tile != usual)
    use()
    assert gpu._tile(Pass.FPROP, problem(16), LIKE, None) == usual
    use(entry(QUARTER, other))
    each = problem(16)
    assert gpu._tile(Pass.FPROP, each, LIKE, None) == other
    assert gpu._tile(Pass.DGRAD, each, LIKE, None) in TILES
    assert gpu._tile(Pass.FPROP, each, LIKE, usual) == usual  # asked for by name


@pytest.mark.usefixtures("device")
def test_tuned_parts_belong_to_the_tuned_tile(use: Use) -> None:
    tile, other = (t for t in WGRADS[:2] if isinstance(t, WgradTile | RowWgradTile))
    usual = choice.default_parts(QUARTER, tile, 2, 132)
    use(entry(QUARTER, tile, Pass.WGRAD, parts=usual + 1))
    each = problem(16)
    assert gpu._tile(Pass.WGRAD, each, LIKE, None) == tile
    assert gpu._parts(each, tile, LIKE, 0) == usual + 1
    assert gpu._parts(each, other, LIKE, 0) == choice.default_parts(QUARTER, other, 2, 132)


@pytest.mark.usefixtures("device")
def test_what_is_chosen_is_kept_with_the_problem(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch must not pay for the table."""
    use(entry(QUARTER, TILES[1]), entry(QUARTER, WGRADS[0], Pass.WGRAD, parts=3))
    each, lookup = problem(16), Mock(wraps=tuned.lookup)
    monkeypatch.setattr(tuned, "lookup", lookup)
    tile = gpu._tile(Pass.WGRAD, each, LIKE, None)
    assert isinstance(tile, WgradTile | RowWgradTile)
    for _ in range(3):
        assert gpu._tile(Pass.FPROP, each, LIKE, None) == TILES[1]
        assert gpu._tile(Pass.WGRAD, each, LIKE, None) == WGRADS[0]
        assert gpu._parts(each, tile, LIKE, 0) == 3
    assert lookup.call_count == 3


@pytest.mark.usefixtures("device")
def test_a_choice_says_where_it_is_from(use: Use) -> None:
    use(entry(QUARTER, TILES[1]))
    assert gpu.choose(Pass.FPROP, QUARTER, HALF, 0) == choice.Choice(TILES[1], None, "tuned")
    assert gpu.choose(Pass.DGRAD, QUARTER, HALF, 0).source == "model"
    assert gpu.choose(Pass.FPROP, QUARTER, torch.float32, 0).source == "size"
    third = gpu.choose(Pass.WGRAD, QUARTER, HALF, 0)
    assert isinstance(third.tile, WgradTile | RowWgradTile)
    assert (third.source, third.parts) == (
        "model", choice.default_parts(QUARTER, third.tile, 2, 132),
    )  # fmt: skip


def test_a_measured_cell_says_which_tile_ran_and_where_it_is_from(use: Use) -> None:
    shape = ConvShape(2, 64, 5, 4, 64, 3, 3, padding=(1, 1))
    recipe = Recipe("hrbp2", 0.5, (32, 32))
    case = Case("quick", "small", shape, "float16", "cpu", Pass.WGRAD, recipe, 18)
    made = measured.Problem.of(case)
    use()
    usual = block_sparse.triton_backend(made, -1)
    assert (usual["tile_from"], usual["parts"]) == ("model", 1)
    each = Problem(shape.filter_shape, (32, 32), GEOMETRY, 2, (5, 4), 18, whole=True)
    other = next(
        tile
        for tile in choice.legal_tiles(Pass.WGRAD, each, torch.float16)
        if tile.name != usual["tile"]
    )
    use(entry(each, other, Pass.WGRAD, parts=1) | {"gpu": "interpreter"})
    assert block_sparse.triton_backend(made, -1) == {
        "backend": "triton", "tile": other.name, "tile_from": "tuned", "parts": 1,
    }  # fmt: skip


def test_an_interpreted_launch_has_a_name_of_its_own() -> None:
    assert gpu.device_name(-1) == "interpreter"
