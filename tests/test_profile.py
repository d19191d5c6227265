"""What the compiler makes of the kernels: the facts of real binaries, and verdicts that go red."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bench import offline_table, profile
from bench.cli import app
from bench.offline_table import Job, Variant
from bench.profile import Facts, Outcome, Row
from bench.suites import Sweep, cases
from hrbp_core.kernels import gpu, tiles
from hrbp_core.kernels.offline import compile_launch
from hrbp_core.kernels.tile_types import GatherTile, RowTile, RowWgradTile, WgradTile
from hrbp_core.shapes import Pass

compiles = pytest.mark.skipif(
    gpu.interpreted(), reason="TRITON_INTERPRET=1: interpreted kernels cannot be compiled"
)
ALL = ["profile", "--offline", "--all-tiles", "--dtype", "bfloat16", "--jobs", "1"]


def layer_job(conv_pass: Pass, tile: str | None = None) -> Job:
    sweep = Sweep(
        "quick", "cuda", dtype="bfloat16", passes=(conv_pass,), densities=(0.25,), blocks=(64,),
        layers=("conv4_3x3",),
    )  # fmt: skip
    return offline_table.layer_jobs(cases(sweep)[0][0], ["sm_90"], 132, tile)[0]


@compiles
@pytest.mark.parametrize("conv_pass", Pass)
def test_the_default_tile_is_well_formed(conv_pass: Pass) -> None:
    row = Row(job := layer_job(conv_pass), facts := profile.examine(job))
    assert row.offences == []
    assert facts.stack_bytes == 0
    assert 32 < facts.registers <= 255
    assert set(facts.matrix) == {"HGMMA"}
    assert set(facts.async_loads) == {128}
    assert facts.two_byte_loads == 0
    assert facts.hot_loop is not None
    assert 20 < facts.hot_loop < facts.instructions / 2
    assert facts.warps == job.tile.warps
    assert facts.programs >= 1
    rows = isinstance(job.tile, RowTile | RowWgradTile)
    names = ("row_wgrad", "wgrad_conv") if conv_pass is Pass.WGRAD else ("row_conv", "gather_conv")
    assert facts.kernel == names[0 if rows else 1]


@pytest.fixture
def one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave one block and plain problems, so that --all-tiles is short."""
    monkeypatch.setattr(tiles, "BLOCKS", (64,))
    monkeypatch.setattr(offline_table, "VARIANTS", (Variant("plain", None),))


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*ALL, *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


@compiles
@pytest.mark.usefixtures("one_block")
def test_all_tiles_goes_red_on_a_tile_that_spills(monkeypatch, tmp_path) -> None:
    good, bad = tiles._GATHER["half", 64][0], GatherTile(256, 64, 4, 3, True)
    monkeypatch.setitem(tiles._GATHER, ("half", 64), (good,))
    assert run("--pass", "fprop")[0] == 0
    monkeypatch.setitem(tiles._GATHER, ("half", 64), (good, bad))
    code, text = run("--pass", "fprop", "--out", str(tmp_path))
    assert code == 1
    assert "2 launches, 2 compiled: 1 spilling, 0 without wgmma" in text
    assert f"SPILLING: fprop bfloat16 half 64x64 {bad.name} plain sm_90: 255 registers" in text
    report = json.loads((tmp_path / "profile.json").read_text())
    assert report["counts"]["spilling"] == 1
    fine, spilling = report["rows"]
    assert (fine["offences"], fine["stack_bytes"]) == ([], 0)
    assert (spilling["offences"], spilling["registers"]) == (["spilling"], 255)
    assert spilling["stack_bytes"] > 0


@compiles
@pytest.mark.usefixtures("one_block")
def test_all_tiles_goes_red_without_wgmma(monkeypatch) -> None:
    """16 filters on the matrix unit's M side are too few for wgmma, whatever the pixels."""
    monkeypatch.setattr(tiles, "BLOCKS", (16,))
    monkeypatch.setitem(tiles._GATHER, ("half", 16), (GatherTile(64, 64, 4, 3, True),))
    code, text = run("--pass", "fprop")
    assert code == 1
    assert "1 without wgmma" in text
    assert "WITHOUT WGMMA: fprop bfloat16 half 16x16" in text
    assert "'HMMA'" in text


@compiles
@pytest.mark.usefixtures("one_block")
@pytest.mark.parametrize("left", [None, ()])
def test_all_tiles_goes_red_on_a_missing_tile(monkeypatch, left) -> None:
    if left is None:
        monkeypatch.delitem(tiles._WGRAD, ("half", 64))
    else:
        monkeypatch.setitem(tiles._WGRAD, ("half", 64), left)
    code, text = run("--pass", "wgrad")
    assert code == 1
    assert "1 missing, 0 failed" in text
    assert "MISSING: wgrad bfloat16 ieee 64x64 plain" in text


@compiles
@pytest.mark.usefixtures("one_block")
def test_a_tile_that_does_not_compile_is_named_and_hides_no_other(monkeypatch) -> None:
    good = tiles._GATHER["half", 64][0]
    monkeypatch.setitem(tiles._GATHER, ("half", 64), (GatherTile(48, 64, 4, 3, True), good))
    code, text = run("--pass", "fprop")
    assert code == 1
    assert "2 launches, 2 compiled: 0 spilling" in text
    assert "FAILED: fprop bfloat16 half 64x64 48x64.m.w4s3" in text


FINE = Facts("k", 128, 0, 65536, 4, 3, {"HGMMA": 4}, {128: 4}, {64: 2}, 0, 99, 999)


@pytest.mark.parametrize(
    ("changed", "arch", "offences"),
    [
        ({}, "sm_90", []),
        ({"stack_bytes": 8}, "sm_80", ["spilling"]),
        ({"matrix": {"HMMA": 4}}, "sm_90", ["without wgmma"]),
        ({"matrix": {"HMMA": 4}}, "sm_80", []),
        ({"shared_bytes": 163 * 1024}, "sm_80", []),
        ({"shared_bytes": 163 * 1024 + 1}, "sm_80", ["too much shared memory"]),
        ({"shared_bytes": 227 * 1024}, "sm_90", []),
        ({"shared_bytes": 227 * 1024 + 1}, "sm_90", ["too much shared memory"]),
    ],
)
def test_offences(changed: dict[str, Any], arch: str, offences: list[str]) -> None:
    row = Row(replace(layer_job(Pass.FPROP), arch=arch), replace(FINE, **changed))
    assert row.offences == offences
    outcome = Outcome([row])
    assert outcome.exit_code == bool(offences)
    assert sorted(k for k, names in outcome.offenders.items() if names) == sorted(offences)


def test_who_needs_no_wgmma() -> None:
    without, job = replace(FINE, matrix={"HMMA": 4}), layer_job(Pass.WGRAD)
    small = replace(job, problem=replace(job.problem, block=(32, 32)))
    for fine in (
        replace(job, summing=True),
        replace(job, dtype="float32", problem=replace(job.problem, precision="ieee")),
        replace(job, tile=WgradTile(64, 16, 8, 1, False, fallback=True)),
        replace(small, tile=WgradTile(32, 64, 4, 3, False)),
    ):
        assert Row(fine, without).offences == []
    assert Row(replace(job, dtype="float32"), without).offences == []  # ieee, as in a bf16 call
    for bad in (
        job,
        replace(small, tile=WgradTile(64, 64, 4, 3, False)),
        replace(job, tile=WgradTile(32, 64, 4, 3, False)),  # 64 filters
        replace(job, dtype="float32", problem=replace(job.problem, precision="tf32")),
    ):
        assert Row(bad, without).offences == ["without wgmma"]


def test_a_failure_is_an_offence() -> None:
    outcome = Outcome([Row(layer_job(Pass.FPROP), reason="no way")])
    assert outcome.exit_code == 1
    assert outcome.offenders["failed"][0].endswith("sm_90: no way")


@compiles
def test_all_legal_tiles_are_there() -> None:
    jobs, missing = offline_table.all_tiles(["sm_90", "sm_80"])
    assert missing == []
    assert {job.arch for job in jobs} == {"sm_90", "sm_80"}
    blocks = [(k, c) for k in (16, 32, 64, 128) for c in (16, 32, 64, 128)]
    kinds = [("float16", "half"), ("bfloat16", "half"), ("float32", "tf32"), ("float32", "ieee")]
    for aligned, name in ((True, "plain"), (False, "fallback")):
        found = {
            (job.arch, job.conv_pass, job.dtype, job.arithmetic, job.problem.block, job.tile)
            for job in jobs
            if job.variant == name
        }
        assert found == {
            (arch, conv_pass, dtype, kind, block, tile)
            for arch, capability in (("sm_90", 90), ("sm_80", 80))
            for conv_pass in Pass
            for dtype, kind in kinds
            for block in blocks
            for tile in tiles.legal(conv_pass, kind, block, aligned, capability=capability)
        }
    assert {
        (job.conv_pass, job.dtype, job.problem.block, job.tile)
        for job in jobs
        if job.variant == "rows"
    } == {
        (conv_pass, dtype, block, tile)
        for conv_pass in Pass
        for dtype in ("float16", "bfloat16")
        for block in blocks
        for tile in tiles.row_tiles(conv_pass, block)
    }
    assert {job.arch for job in jobs if "rows" in job.variant} == {"sm_90"}
    assert {job.variant for job in jobs} == {each.name for each in offline_table.VARIANTS}
    assert all(job.tile.fallback == ("fallback" in job.variant) for job in jobs)
    assert [j.dtype for j in jobs if j.summing] == [*offline_table.DTYPES] * 2


@compiles
def test_variants_are_what_they_are_called() -> None:
    launches = {
        job.variant: offline_table.launch_of(job).args
        for job in offline_table.all_tiles(["sm_90"], (Pass.FPROP,), ("bfloat16",))[0]
        if job.problem.block == (64, 64)
    }
    for name, args in launches.items():
        assert ("ROWS" in args) == ("rows" in name)
        assert args.get("R", 3) == (7 if "7x7" in name else 1 if "1x1" in name else 3)
        assert args["WIDE"] == ("wide" in name)
        assert args["HAS_BIAS"] == ("bias" in name)
        assert args["MASK_IN"] == args["MASK_OUT"] == ("masked" in name or "fallback" in name)
        assert args["IN_UNIT"] == args["OUT_UNIT"] == (1 if "fallback" in name else 8)


@compiles
def test_the_sum_of_parts_is_a_launch_of_its_own() -> None:
    job = replace(layer_job(Pass.WGRAD), parts=4)
    launches = [offline_table.launch_of(replace(job, summing=each)) for each in (False, True)]
    assert [launch.kernel.__name__ for launch in launches] == ["row_wgrad", "sum_parts"]


@pytest.mark.parametrize("conv_pass", Pass)
@pytest.mark.parametrize("processors", [1, 132, 10**6])
def test_tile_and_parts_are_chosen_for_the_named_processors(conv_pass, processors) -> None:
    sweep = Sweep(
        "vgg16", "cuda", dtype="float16", passes=(conv_pass,), densities=(0.5,), blocks=(64,),
        layers=("conv4_2",),
    )  # fmt: skip
    jobs = offline_table.layer_jobs(cases(sweep)[0][0], ["sm_90"], processors)
    job = jobs[0]
    allowed = gpu.legal_tiles(conv_pass, job.problem, torch.float16)
    assert job.tile == gpu.default_tile(conv_pass, job.problem, torch.float16, processors)
    assert job.tile in allowed
    if isinstance(job.tile, WgradTile | RowWgradTile):
        assert job.parts == gpu.default_parts(job.problem, job.tile, 2, processors)
    assert [each.summing for each in jobs] == ([False, True] if job.parts > 1 else [False])


@compiles
def test_what_comes_to_the_same_binary_is_compiled_once(monkeypatch) -> None:
    job = layer_job(Pass.WGRAD, "64x64.m.w4s4")
    k, c, _, _ = job.problem.shape
    same = replace(job, problem=replace(job.problem, shape=(k, c, 1, 1), batch=3), variant="1x1")
    other = replace(job, parts=1)
    keys = [offline_table.identity(each) for each in (job, same, other, replace(job, arch="sm_80"))]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    cubins = [compile_launch(offline_table.launch_of(each), 90).cubin for each in (job, same)]
    assert cubins[0] == cubins[1]
    asked = []

    def examine(job: Job) -> Facts:
        asked.append(job)
        return FINE

    monkeypatch.setattr(profile, "examine", examine)
    outcome = profile.profile_jobs([job, same, other], 1, lambda *_: None)
    assert (len(outcome.rows), outcome.compiled, len(asked)) == (3, 2, 2)
    assert [row.job.variant for row in outcome.rows] == [job.variant, "1x1", job.variant]


def test_a_compiler_that_ends_its_process_costs_one_job(monkeypatch) -> None:
    jobs = {name: layer_job(Pass.FPROP) for name in ("a", "b", "bad", "c", "worse", "d")}

    def pool(left, processes):
        for name in list(left):
            if name in ("bad", "worse"):
                return
            yield name, FINE

    monkeypatch.setattr(profile, "_pool", pool)
    found = dict(profile._side_by_side(jobs, 2))
    assert found.keys() == jobs.keys()
    assert [name for name, made in found.items() if isinstance(made, str)] == ["bad", "worse"]
