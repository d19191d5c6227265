"""The check of tiles: its cases, its rule, its processes; real kernels in the interpreter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bench import tile_check, tile_pool
from bench.cli import app
from bench.problem import EPS
from bench.tile_cases import (
    BEYOND_INT32,
    CASES,
    EVEN,
    KINDS,
    TileBatch,
    TileCase,
    Wanted,
    all_blocks,
    key_of,
    parse_blocks,
    tile_batches,
)
from bench.tile_judge import Answer, DeviceLost, TileProblem, judge, kept_blocks
from hrbp_core.kernels import gpu
from hrbp_core.kernels.tiles import BLOCKS, legal
from hrbp_core.shapes import Pass

ROOT = Path(__file__).resolve().parent.parent
ONE = Wanted((KINDS["float32"],), ((16, 16),), quick=True)


# --- checks that stand in for the real one; a worker process finds them by name ------------------


def all_right(batch: TileBatch, device: str) -> Iterator[dict[str, Any]]:
    for item in batch.items:
        yield batch.record(item, "ok", None)


def loses_the_device(batch: TileBatch, device: str) -> Iterator[dict[str, Any]]:
    yield batch.record(batch.items[0], "failed", "illegal address")
    raise DeviceLost("gone")


# --- what is checked -----------------------------------------------------------------------------


def test_every_legal_tile_is_checked_once_a_case_and_defaults_come_first() -> None:
    found = tile_batches(Wanted(), -1)
    keys = [key_of(b.record(i, "", None)) for b in found for i in b.items]
    assert len(keys) == len(set(keys))
    for kind, conv_pass, block in ((k, p, b) for k in KINDS.values() for p in Pass for b in BLOCKS):
        name = "half" if "float16" in kind.name else kind.precision
        for case in CASES:
            wanted = legal(conv_pass, name, (block, 64), case.name != "ragged", case.taps)
            mine = [
                i.tile
                for b in found
                if (b.kind, b.block, b.case) == (kind, (block, 64), case)
                for i in b.items
                if i.conv_pass is conv_pass
            ]
            assert sorted(t.name for t in mine) == sorted(t.name for t in wanted)
    quick = tile_batches(replace(Wanted(), quick=True), -1)
    assert found[: len(quick)] == quick
    assert {(b.kind, b.block) for b in quick} == {
        (k, b) for k in KINDS.values() for b in all_blocks()
    }


def test_offsets_beyond_32_bits_are_for_a_device_and_not_for_quick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu, "processors", lambda device: 132)
    monkeypatch.setattr(gpu, "capability", lambda device: 90)
    full = tile_batches(Wanted(), 0)
    wide = [i.conv_pass for b in full if b.case == BEYOND_INT32 for i in b.items]
    assert list(dict.fromkeys(wide)) == list(Pass)
    assert not [b for b in tile_batches(Wanted(quick=True), 0) if b.case == BEYOND_INT32]


@pytest.mark.parametrize("block", [(16, 32), (128, 64)])
def test_cases_pad_groups_and_leave_channels_undivided_by_8(block: tuple[int, int]) -> None:
    shapes = {case.name: case.shape(block) for case in CASES}
    assert shapes["even"][:2] == (3 * block[0], 3 * block[1])
    assert [shapes["padded"][0] % size == 0 for size in (block[0], 8)] == [False, True]
    assert [extent % 8 == 0 for extent in shapes["ragged"][:2]] == [False, False]


@pytest.mark.parametrize("taps", [1, 9, 49])
def test_patterns_have_empty_groups_uneven_counts_and_lack_taps(taps: int) -> None:
    kept = kept_blocks((3, 3), taps, 0)
    counts = kept.sum((1, 2)).tolist()
    assert counts[0] == 0
    assert not kept[:, 1].any()
    assert 0 < counts[1] != counts[2] > 0
    assert taps == 1 or not kept[2, 2].all()


def test_blocks_are_read_and_refused() -> None:
    assert parse_blocks(["64", "32x16", "64x64"]) == ((64, 64), (32, 16))
    for word in ("48", "64x", "16x16x16", "x", "-16"):
        with pytest.raises(ValueError, match="expected blocks like 64 or 32x64"):
            parse_blocks([word])


# --- the rule ------------------------------------------------------------------------------------


def test_an_output_is_judged_by_its_worst_number_and_by_all() -> None:
    answer = Answer(torch.zeros(2, 1000, dtype=torch.float64), 1.0, 0.1)
    off = torch.zeros(2, 1000)
    assert judge(off, answer).reason is None
    off[1, 7] = 1.1
    assert "1 of 2000 numbers beyond the bound, 0 not finite; the first at [1, 7]" in str(
        judge(off, answer).reason
    )
    off[1, 7] = float("nan")
    assert "1 not finite" in str(judge(off, answer).reason)
    assert judge(torch.full((2, 1000), 0.2), answer).reason  # no number is far off, but all are
    assert "expected an output [2, 1000]" in str(judge(torch.zeros(2, 999), answer).reason)


def problem(kind: str, case: TileCase = EVEN) -> TileProblem:
    return TileProblem(TileBatch(KINDS[kind], (16, 16), case, ()), case.geometries[1], "cpu")


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("conv_pass", list(Pass))
def test_a_dense_convolution_passes_its_own_rule_and_one_lost_channel_does_not(
    kind: str, conv_pass: Pass
) -> None:
    made = problem(kind)
    answer = made.answer(conv_pass)
    assert judge(made._dense(conv_pass), answer).reason is None
    made.x[:, 3], made.dy[:, 37] = 0, 0  # kept in each pass's sum
    assert judge(made._dense(conv_pass), answer).reason


def test_bounds_are_those_of_the_rule() -> None:
    made = problem("float16")
    answer, dense = made.answer(Pass.FPROP), made._dense(Pass.FPROP).double()
    off, eps = dense - answer.expected, EPS[torch.float16]
    largest = float(answer.expected.abs().max())
    assert answer.bound == pytest.approx(2 * float(off.abs().max()) + 4 * eps * largest)
    assert made.answer(Pass.FPROP) is answer  # worked out once


def test_tf32_may_cut_its_operands_off_and_no_more() -> None:
    made = problem("tf32")
    answer = made.answer(Pass.FPROP)
    cut = [(t.view(torch.int32) & ~0x1FFF).view(torch.float32) for t in (made.x, made.weight)]
    y = made._oracle(Pass.FPROP, cut[0], cut[1], made.dy, None)
    assert judge(y, answer).reason is None
    assert judge(y * (1 + 2**-5), answer).reason


# --- the command, with stand-ins and with real kernels -------------------------------------------


def run_check(out: Path, check: tile_pool.Check, **more: Any) -> tile_check.CheckResult:
    wanted = more.pop("wanted", ONE)
    return tile_check.run_check(wanted, "interpreter", out, check=check, **{"jobs": 0, **more})


def test_what_is_stored_is_skipped_until_the_code_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_check(tmp_path, all_right)
    assert (first.checked, first.left, dict(first.counts)) == (3, 0, {"ok": 3})
    with (tmp_path / "check.jsonl").open("a") as file:
        file.write('{"torn')
    again = run_check(tmp_path, all_right)
    assert (again.checked, dict(again.counts)) == (0, {"ok": 3})
    monkeypatch.setattr(tile_check, "code_digest", lambda: "another")
    assert run_check(tmp_path, all_right).checked == 3
    lines = [json.loads(line) for line in (tmp_path / "check.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    assert {"pass", "dtype", "precision", "block", "tile", "case", "error", "bound", "status",
            "reason", "code", "device"} <= lines[0].keys()  # fmt: skip


def test_no_time_leaves_everything_and_says_so(tmp_path: Path) -> None:
    result = run_check(tmp_path, all_right, minutes=0.0)
    assert (result.checked, result.left, result.exit_code) == (0, 3, 0)


def test_a_bad_tile_stays_bad_in_the_next_call(tmp_path: Path) -> None:
    with pytest.raises(DeviceLost):
        run_check(tmp_path, loses_the_device)
    again = run_check(tmp_path, all_right)
    assert (again.checked, again.exit_code, len(again.bad)) == (2, 5, 1)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--device", "gpu"], "expected a device of cuda, interpreter; got 'gpu'"),
        (["--dtypes", "bfloat16"], "the interpreter multiplies bfloat16 wrongly"),
        (["--dtypes", "int8"], "expected dtypes of bfloat16, float16, tf32, float32; got 'int8'"),
        (["--blocks", "24"], "expected blocks like 64 or 32x64"),
        (["--passes", "backward"], "expected a pass of fprop, dgrad, wgrad"),
        (["--minutes", "0"], "expected --minutes above 0"),
        (["--jobs", "-1"], "expected --jobs of at least 0"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, words: list[str], sentence: str) -> None:
    usual = ["check", "--device", "interpreter", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*usual, *words])
    assert done.exit_code == 2
    assert sentence in done.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_device_is_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "expected a CUDA device, found none" in done.output
