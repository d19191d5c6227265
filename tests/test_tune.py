"""Tuning on a scripted device: who is timed, who wins, what is kept, how it goes on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from bench import tune, tune_cases
from bench.suites import Sweep
from bench.tune_cases import Candidate, candidates, kernel_problem, parts_around, tasks
from hrbp_core.kernels import choice
from hrbp_core.kernels.tile_types import RowWgradTile, WgradTile
from hrbp_core.shapes import Pass
from tests.tuning_samples import GPU, ScriptedGpu, lines, name_of, quick, statuses

ONE = quick()[0]
PROBLEM = kernel_problem(ONE.case)
DEFAULT, FOUND = candidates(Pass.FPROP, PROBLEM, torch.bfloat16, 132, 90)
NAMES = [c.name for c in FOUND]


# --- what is tuned -------------------------------------------------------------------------------


def test_candidates_are_every_legal_tile_once_and_the_default_first() -> None:
    legal = choice.legal_tiles(Pass.FPROP, PROBLEM, torch.bfloat16)
    assert {c.tile for c in FOUND} == set(legal)
    assert len(FOUND) == len(legal) > 4
    assert FOUND[0] == Candidate(DEFAULT.tile)
    assert DEFAULT.source == "model"


def test_wgrads_candidates_are_tiles_by_parts_around_the_default() -> None:
    default, found = candidates(Pass.WGRAD, PROBLEM, torch.bfloat16, 132, 90)
    assert found[0] == Candidate(default.tile, default.parts)
    assert len(found) == len(set(found))
    for tile in choice.legal_tiles(Pass.WGRAD, PROBLEM, torch.bfloat16):
        assert isinstance(tile, WgradTile | RowWgradTile)
        usual = choice.default_parts(PROBLEM, tile, 2, 132)
        mine = {c.parts for c in found if c.tile == tile}
        assert {usual, max(1, round(usual / 2))} <= mine
        assert max(p or 0 for p in mine) <= choice.parts_limit(PROBLEM, tile, 2)


@pytest.mark.parametrize(
    ("usual", "most", "tried"),
    [(1, 64, [1, 2]), (8, 64, [8, 4, 16, 6, 12]), (8, 10, [8, 4, 10, 6]), (1, 1, [1])],
)
def test_parts_around_the_usual_number(usual: int, most: int, tried: list[int]) -> None:
    assert parts_around(usual, most) == tried


def test_problems_that_a_kernel_cannot_tell_apart_are_one() -> None:
    found, _ = tasks(Sweep("targets", "cuda", "bfloat16", batch=256))
    problems = {(t.case.conv_pass, kernel_problem(t.case)) for t in found}
    assert len(found) == len(problems)
    lots = tune_cases.grouped(found)
    assert all(len(lot) == 3 for lot in lots)
    assert len(lots) == len({t.lot for t in found})
    balanced = {t.case.recipe.balance for t in found}
    assert balanced == {"none"}  # what comes first: the kernels see no difference
    assert len(quick(densities=(0.25, 0.25))) == 1
    twice = [*quick(), *quick((Pass.FPROP, Pass.DGRAD))]
    assert len({t.key(GPU, "code") for t in twice}) == 2


def test_a_key_changes_with_the_gpu_and_the_code() -> None:
    assert len({ONE.key(g, c) for g in ("a", "b") for c in ("x", "y")}) == 4
    digest = tune_cases.kernels_digest()
    assert re.fullmatch("[0-9a-f]{16}", digest)


def test_every_file_that_triton_compiles_belongs_to_the_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernels = Path(tune_cases.__file__).parent.parent / "hrbp_core" / "kernels"
    found = {path.stem for path in kernels.glob("*.py") if "triton.jit" in path.read_text()}
    assert {"gather", "wgrad_rows"} <= found <= set(tune_cases.KERNELS)
    before = tune_cases.kernels_digest()
    monkeypatch.setattr(tune_cases, "KERNELS", tune_cases.KERNELS[1:])
    assert tune_cases.kernels_digest() != before


def test_lacking_taps_are_told_by_the_method() -> None:
    (part,) = quick(method="hrbp2_pp")
    assert not kernel_problem(part.case).whole
    assert kernel_problem(part.case, whole=True).whole


# --- the gates -----------------------------------------------------------------------------------


def test_the_fastest_right_candidate_wins(tmp_path: Path) -> None:
    device = ScriptedGpu(times={NAMES[3]: 80e-6, NAMES[2]: 90e-6})
    result = device.tune(tmp_path)
    (line,) = lines(tmp_path)
    assert (line["status"], name_of(line["best"])) == ("done", NAMES[3])
    assert line["best"]["median_us"] == pytest.approx(80, rel=0.01)
    assert line["best"]["low_us"] <= line["best"]["median_us"] <= line["best"]["high_us"]
    assert name_of(line["default"]) == NAMES[0]
    assert (line["default"]["from"], line["gpu"]) == ("model", GPU)
    assert line["default"]["median_us"] == pytest.approx(100, rel=0.01)
    assert device.checked[: len(NAMES)] == NAMES  # before any of them is timed
    assert device.checked[len(NAMES) :] == [NAMES[3]]  # and the winner once more
    assert (result.tuned, result.left, result.exit_code) == (1, 0, 0)
    assert {"pass", "kind", "shape", "size", "block", "batch", "whole", "density_bucket",
            "versions", "date", "code"} <= line.keys()  # fmt: skip


def test_the_default_stays_where_nothing_is_faster(tmp_path: Path) -> None:
    ScriptedGpu(times={NAMES[0]: 70e-6}).tune(tmp_path)
    assert name_of(lines(tmp_path)[0]["best"]) == NAMES[0]


@pytest.mark.parametrize("verdict", ["wrong", "failed", "not repeatable"])
def test_a_wrong_candidate_is_neither_timed_nor_chosen(tmp_path: Path, verdict: str) -> None:
    device = ScriptedGpu(times={NAMES[1]: 10e-6}, verdicts={NAMES[1]: [(verdict, "off by 3")]})
    result = device.tune(tmp_path)
    (line,) = lines(tmp_path)
    assert NAMES[1] not in device.clock.order
    assert name_of(line["best"]) != NAMES[1]
    assert statuses(line)[NAMES[1]] == verdict
    assert result.exit_code == 5
    (sentence,) = result.bad
    assert sentence.startswith(f"{verdict.upper()}: conv4_3x3 fprop density 0.25 block 64x64")
    assert sentence.endswith(f"tile {NAMES[1]}: off by 3")
    assert device.tune(tmp_path).exit_code == 5  # nor is it forgotten in the next call


def test_a_winner_that_turns_wrong_makes_room_for_the_next(tmp_path: Path) -> None:
    times = {NAMES[1]: 10e-6, NAMES[2]: 20e-6}
    device = ScriptedGpu(times=times, verdicts={NAMES[1]: [("ok", None), ("wrong", "late")]})
    result = device.tune(tmp_path)
    (line,) = lines(tmp_path)
    assert name_of(line["best"]) == NAMES[2]
    told = {name_of(c): c["reason"] for c in line["candidates"]}
    assert (statuses(line)[NAMES[1]], told[NAMES[1]]) == ("wrong", "after timing: late")
    assert result.exit_code == 5


def test_what_the_compiler_speaks_against_is_not_even_checked(tmp_path: Path) -> None:
    pruned = {NAMES[0], NAMES[2]}
    device = ScriptedGpu(times={NAMES[2]: 10e-6}, pruned=pruned)
    result = device.tune(tmp_path)
    (line,) = lines(tmp_path)
    assert not pruned & {*device.checked, *device.clock.order}
    for each in line["candidates"]:
        if name_of(each) in pruned:
            assert (each["status"], each["reason"]) == ("pruned", "failed to compile: it spills")
            assert "samples_us" not in each
    assert line["default"].get("median_us") is None
    assert result.exit_code == 0  # the report did what it is for
    assert device.compiled == NAMES  # each once


def test_no_right_candidate_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    device = ScriptedGpu(verdicts={name: [("wrong", "off")] for name in NAMES})
    result = device.tune(tmp_path, tell=said.append)
    assert lines(tmp_path)[0]["best"] is None
    assert "no candidate is right" in said[-1]
    assert len(result.bad) == len(NAMES)


def test_a_candidate_that_raises_while_it_is_timed_is_out(tmp_path: Path) -> None:
    result = ScriptedGpu(times={NAMES[1]: 10e-6}, raising={NAMES[1]}).tune(tmp_path)
    (line,) = lines(tmp_path)
    assert statuses(line)[NAMES[1]] == "failed"
    assert name_of(line["best"]) != NAMES[1]
    assert "out of resources" in result.bad[0]


def test_wgrads_winner_has_its_parts(tmp_path: Path) -> None:
    (task,) = quick((Pass.WGRAD,))
    found = candidates(Pass.WGRAD, PROBLEM, torch.bfloat16, 132, 90)[1]
    fast = found[-1]
    ScriptedGpu(times={fast.name: 30e-6}).tune(tmp_path, [task])
    best = lines(tmp_path)[0]["best"]
    assert (best["tile"], best["parts"]) == (fast.tile.name, fast.parts)


# --- minutes, resumption -------------------------------------------------------------------------

MANY = quick(tuple(Pass), densities=(0.25, 0.5))


def test_a_run_that_is_cut_off_goes_on_without_loss_or_repetition(tmp_path: Path) -> None:
    assert len(MANY) == 6
    first = ScriptedGpu(open_s=40.0)
    cut = first.tune(tmp_path, MANY, minutes=0.5)
    assert (cut.tuned, cut.left, cut.exit_code) == (0, 6, 0)  # inputs alone took it all
    second = ScriptedGpu(open_s=40.0)
    cut = second.tune(tmp_path, MANY, minutes=1.0)
    assert (cut.tuned, cut.left) == (3, 3)
    before = (tmp_path / "tune.jsonl").read_text()
    third = ScriptedGpu()
    done = third.tune(tmp_path, MANY, minutes=1.0)
    assert (done.tuned, done.left, len(done.records)) == (3, 0, 6)
    assert (tmp_path / "tune.jsonl").read_text().startswith(before)
    assert len({line["key"] for line in lines(tmp_path)}) == 6
    again = ScriptedGpu()
    assert again.tune(tmp_path, MANY).tuned == 0
    assert (again.opened, again.checked, again.compiled) == ([], [], [])


def test_no_time_at_all_compiles_nothing(tmp_path: Path) -> None:
    device = ScriptedGpu()
    assert device.tune(tmp_path, MANY, minutes=0.0).left == 6
    assert (device.compiled, device.opened) == ([], [])


def test_a_torn_last_line_is_tuned_again(tmp_path: Path) -> None:
    ScriptedGpu().tune(tmp_path, MANY[:2])
    path = tmp_path / "tune.jsonl"
    whole, torn = path.read_text().splitlines(keepends=True)
    path.write_text(whole + torn[:200])
    result = ScriptedGpu().tune(tmp_path, MANY[:2])
    assert (result.tuned, len(result.torn)) == (1, 1)
    assert [line["status"] for line in lines(tmp_path)] == ["done", "done"]
    assert (tmp_path / "tune.torn").read_text() == torn[:200] + "\n"


def test_other_kernels_make_earlier_times_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ScriptedGpu().tune(tmp_path)
    assert ScriptedGpu(name="Another GPU").tune(tmp_path).tuned == 1
    monkeypatch.setattr(tune, "kernels_digest", lambda: "another")
    assert ScriptedGpu().tune(tmp_path).tuned == 1
    assert ScriptedGpu().tune(tmp_path).tuned == 0


def test_inputs_that_cannot_be_made_are_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    wanted = quick(layers=("conv4_3x3", "conv5_3x3"))
    said: list[str] = []
    result = ScriptedGpu(unable=("conv4_3x3",)).tune(tmp_path, wanted, tell=said.append)
    assert [line["status"] for line in lines(tmp_path)] == ["skipped", "done"]
    assert "skipped: MemoryError: no room" in said[1]
    assert (result.tuned, result.left, result.exit_code) == (2, 0, 0)


def test_a_candidate_that_takes_the_device_down_is_left_out_of_the_next_call(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    broken = ScriptedGpu(times={NAMES[1]: 10e-6}, fatal={NAMES[1]})
    result = broken.tune(tmp_path, tell=said.append)
    assert (result.tuned, result.left, result.exit_code) == (0, 1, 5)
    assert "took the device down: DeviceLost: illegal address" in result.bad[0]
    assert said[-1] == f"the device is lost; the same command goes on without {NAMES[1]}"
    again = ScriptedGpu(times={NAMES[1]: 10e-6}, fatal={NAMES[1]})
    result = again.tune(tmp_path)
    assert (result.tuned, result.left, result.exit_code) == (1, 0, 5)
    assert NAMES[1] not in again.checked
    assert statuses(lines(tmp_path)[-1])[NAMES[1]] == "failed"
