"""Tuning with real kernels, interpreted: inputs, oracle, candidates; the table in a launch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.clocks import Rotation
from bench.records import Case, Recipe
from bench.tile_problem import draw
from bench.tune_cases import Candidate, candidates, kernel_problem
from bench.tune_device import JudgedStand
from bench.tune_table import write
from hrbp_core.kernels import gpu, tuned
from hrbp_core.kernels.choice import parts_limit
from hrbp_core.kernels.tile_types import GatherTile, WgradTile
from hrbp_core.shapes import ConvShape, Pass

SHAPE = ConvShape(2, 64, 5, 4, 64, 3, 3, padding=(1, 1))
RECIPE = Recipe("hrbp2", 0.5, (32, 32))
CASE = Case("quick", "small", SHAPE, "float16", "cuda", Pass.FPROP, RECIPE, 18)


@pytest.fixture
def stand() -> JudgedStand:
    return JudgedStand(CASE, "cpu", 0, draw)


def of(stand: JudgedStand, conv_pass: Pass) -> list[Candidate]:
    return candidates(conv_pass, stand.problem, torch.float16, 4, 90)[1]


@pytest.mark.parametrize("conv_pass", Pass)
def test_every_candidate_is_right_and_a_planted_fault_is_not(
    conv_pass: Pass, stand: JudgedStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stand.problem == kernel_problem(CASE)  # what was compiled ahead is what runs
    found = of(stand, conv_pass)
    assert any("rows" in candidate.name for candidate in found)
    for candidate in found:
        assert stand.check(conv_pass, candidate) == ("ok", None)
    usual = getattr(gpu, str(conv_pass))

    def wrong(*args: Any, **more: Any) -> torch.Tensor:
        out: torch.Tensor = usual(*args, **more)
        out[(0,) * out.dim()] += 1
        return out

    monkeypatch.setattr(gpu, str(conv_pass), wrong)
    status, reason = stand.check(conv_pass, found[0])
    assert (status, "1 of" in str(reason)) == ("wrong", True)


def test_what_cannot_run_is_a_finding(stand: JudgedStand) -> None:
    status, reason = stand.check(Pass.FPROP, Candidate(GatherTile(64, 64, 4, 9, False)))
    assert status == "failed"
    assert "expected a legal tile" in str(reason)


def test_short_calls_turn_through_copies_that_outlast_the_cache() -> None:
    cache = 20_000
    stand = JudgedStand(CASE, "cpu", cache, draw)
    run = stand.run(Pass.FPROP, of(stand, Pass.FPROP)[0])
    assert isinstance(run, Rotation)
    assert run.outlasts(cache)
    outs = [run() for _ in run.runs]
    assert all(torch.equal(outs[0], out) for out in outs)  # type: ignore[arg-type]
    assert len({made.x.data_ptr() for made in (stand._made, *stand._rotated())}) == len(outs)
    huge = JudgedStand(CASE, "cpu", 2**40, draw)
    assert not isinstance(huge.run(Pass.FPROP, of(huge, Pass.FPROP)[0]), Rotation)


def entry(conv_pass: Pass, candidate: Candidate, **more: Any) -> dict[str, Any]:
    problem = kernel_problem(CASE)
    return {
        **tuned.identity(conv_pass, problem, torch.float16, gpu.INTERPRETER),
        "density_bucket": tuned.density_bucket(problem), "tile": candidate.tile.name,
        "parts": candidate.parts, "median_us": 1.0, "default_us": None, "versions": {},
        "date": "now", **more,
    }  # fmt: skip


def test_a_launch_takes_the_tuned_tile_and_parts(
    tmp_path: Path, stand: JudgedStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    fprop = [c for c in of(stand, Pass.FPROP) if isinstance(c.tile, GatherTile)][-1]
    tile = next(c.tile for c in of(stand, Pass.WGRAD) if isinstance(c.tile, WgradTile))
    wgrad = Candidate(tile, min(2, parts_limit(stand.problem, tile, 2)))
    write(tmp_path / "t.json", [entry(Pass.FPROP, fprop), entry(Pass.WGRAD, wgrad)])
    monkeypatch.setenv("HRBP_TUNED", str(tmp_path / "t.json"))
    gpu._checked.cache_clear()
    made, args = stand._made, (stand._made.shape, stand._made.block, stand._made.geometry)
    y = gpu.fprop(made.x, made.values, None, made.tables, *args)
    dvalues = gpu.wgrad(made.dy, made.x, made.tables, len(made.pattern.entries), *args)
    about = (Pass.FPROP, Pass.WGRAD)
    problem = gpu._problem(
        made.x, made.values, made.tables, *args, made.x.shape[2:]
    )  # the one that the launches used
    assert [problem.kept[p, torch.float16, -1] for p in about] == [fprop.tile, wgrad.tile]
    assert problem.kept[wgrad.tile, torch.float16, -1] == wgrad.parts
    assert torch.equal(y, made.call(_item(Pass.FPROP, fprop), None))
    assert torch.equal(dvalues, made.call(_item(Pass.WGRAD, wgrad), wgrad.parts))
    gpu._checked.cache_clear()  # what was kept is not for other tests


def _item(conv_pass: Pass, candidate: Candidate) -> Any:
    from bench.tile_cases import Item

    return Item(conv_pass, candidate.tile)


def test_blocks_that_lack_taps_are_seen() -> None:
    lacking = replace(CASE, recipe=replace(RECIPE, method="hrbp2_pp"))
    assert not JudgedStand(lacking, "cpu", 0, draw).problem.whole
