"""bench.gate: every verdict on a cell, and no claim beyond the samples."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bench.gate import compare
from bench.records import Flag, Measurement, Status
from bench.verdict import Verdict, VerdictKind
from tests.store_samples import CALM, cell, failed, scaled, store

Kind = VerdictKind
FAILURES = [s for s in Status if s is not Status.OK]


def one(tmp_path: Path, base: Measurement, head: Measurement) -> tuple[Verdict, int]:
    """Return the verdict on a single cell, and the exit code."""
    result = compare(store(tmp_path / "base", base), store(tmp_path / "head", head))
    (verdict,) = result.verdicts
    return verdict, result.exit_code


# --- times --------------------------------------------------------------------------------


def test_the_same_folder_twice_passes(tmp_path: Path) -> None:
    folder = store(tmp_path, cell(0), cell(1, scaled(3)), failed(Status.SKIPPED, 2))
    result = compare(folder, folder)
    assert [v.kind for v in result.verdicts] == [Kind.PASS] * 3
    assert (result.exit_code, result.notes, result.errors) == (0, [], [])
    assert result.worst_ratio == result.geometric_mean_ratio == 1.0


def test_identical_samples_pass_however_few_or_throttled(tmp_path: Path) -> None:
    same = cell(0, (1e-3,), flags=(Flag.THROTTLED,))
    assert one(tmp_path, same, same)[1] == 0


def test_doubled_samples_of_one_implementation_fail(tmp_path: Path) -> None:
    dense = [dataclasses.replace(c, cell=dataclasses.replace(c.cell, impl="dense"))
             for c in (cell(0), cell(1))]  # fmt: skip
    base = store(tmp_path / "base", cell(0), cell(1), *dense)
    head = store(tmp_path / "head", cell(0, scaled(2)), cell(1, scaled(2)), *dense)
    result = compare(base, head)
    assert [v.kind for v in result.verdicts] == [Kind.FAIL, Kind.FAIL, Kind.PASS, Kind.PASS]
    assert result.exit_code == 1
    assert "single process" in result.verdicts[0].reason
    assert result.worst_ratio == pytest.approx(2.0)
    assert result.geometric_mean_ratio == pytest.approx(2**0.5)
    assert compare(head, base).exit_code == 0  # faster is no regression


def test_the_interval_is_made_of_the_intervals_of_the_medians(tmp_path: Path) -> None:
    verdict, _ = one(tmp_path, cell(), cell(0, scaled(1.05)))
    assert verdict.ratio == pytest.approx(1.05)
    assert verdict.low == pytest.approx(1.05 * 0.993 / 1.006)
    assert verdict.high == pytest.approx(1.05 * 1.006 / 0.993)


# the interval is 1.3 % wide to each side
@pytest.mark.parametrize(
    ("factor", "kind", "code"),
    [
        (0.5, Kind.PASS, 0),
        (1.0001, Kind.PASS, 0),
        (1.085, Kind.PASS, 0),
        (1.09, Kind.INCONCLUSIVE, 3),
        (1.10, Kind.INCONCLUSIVE, 3),
        (1.11, Kind.INCONCLUSIVE, 3),
        (1.12, Kind.FAIL, 1),
        (3.0, Kind.FAIL, 1),
    ],
)
def test_a_cell_fails_only_with_its_whole_interval(
    tmp_path: Path, factor: float, kind: Kind, code: int
) -> None:
    verdict, got = one(tmp_path, cell(), cell(0, scaled(factor)))
    assert (verdict.kind, got) == (kind, code)
    assert "single process" in verdict.reason


def test_noise_that_straddles_the_margin_is_inconclusive(tmp_path: Path) -> None:
    wild = tuple((700 + 30 * i) * 1e-6 for i in range(40))  # median 1.3 times base's
    verdict, code = one(tmp_path, cell(), cell(0, wild))
    assert verdict.ratio is not None
    assert verdict.low is not None
    assert verdict.ratio > 1.25
    assert verdict.low < 1.10
    assert (verdict.kind, code) == (Kind.INCONCLUSIVE, 3)


def test_a_slow_down_below_a_microsecond_is_no_failure(tmp_path: Path) -> None:
    fast, slow = (tuple(s * f * 1e-3 for s in CALM) for f in (1, 1.9))
    verdict, code = one(tmp_path, cell(0, fast), cell(0, slow))
    assert (verdict.kind, code) == (Kind.INCONCLUSIVE, 3)
    assert "slower by 0.90 us, less than 1 us" in verdict.reason


def test_a_slow_down_above_a_microsecond_fails(tmp_path: Path) -> None:
    fast, slow = (tuple(s * f * 1e-3 for s in CALM) for f in (1, 2.1))
    assert one(tmp_path, cell(0, fast), cell(0, slow))[1] == 1


@pytest.mark.parametrize("side", ["base", "head"])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_throttled_cell_is_inconclusive(tmp_path: Path, side: str, factor: float) -> None:
    flags = {side: (Flag.THROTTLED,)}
    verdict, code = one(
        tmp_path,
        cell(flags=flags.get("base", ())),
        cell(0, scaled(factor), flags=flags.get("head", ())),
    )
    assert (verdict.kind, code) == (Kind.INCONCLUSIVE, 3)
    assert verdict.reason == f"throttled in {side}"
    assert verdict.ratio is None


def test_other_flags_do_not_stop_a_verdict(tmp_path: Path) -> None:
    flags = tuple(f for f in Flag if f is not Flag.THROTTLED)
    assert one(tmp_path, cell(flags=flags), cell(0, scaled(2), flags=flags))[1] == 1


@pytest.mark.parametrize(("n", "code"), [(1, 3), (5, 3), (6, 1)])
def test_too_few_samples_are_no_evidence(tmp_path: Path, n: int, code: int) -> None:
    assert one(tmp_path / "a", cell(), cell(0, scaled(2)[:n]))[1] == code
    assert one(tmp_path / "b", cell(0, CALM[:n]), cell(0, scaled(2)))[1] == code


# --- statuses -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.WRONG, Status.IMPOSSIBLE])
@pytest.mark.parametrize("before", list(Status))
def test_a_wrong_cell_is_wrong_whatever_it_was(
    tmp_path: Path, status: Status, before: Status
) -> None:
    base = cell() if before is Status.OK else failed(before)
    verdict, code = one(tmp_path, base, failed(status))
    assert (verdict.kind, code) == (Kind.WRONG, 5)
    assert f"{status} (because)" in verdict.reason


@pytest.mark.parametrize("status", [Status.CRASHED, Status.OOM, Status.TIMEOUT, Status.SKIPPED])
def test_a_cell_that_gives_no_time_any_more_is_missing(tmp_path: Path, status: Status) -> None:
    verdict, code = one(tmp_path, cell(), failed(status))
    assert (verdict.kind, code) == (Kind.MISSING, 5)
    assert verdict.reason == f"{status} (because) in head; ok in base"


@pytest.mark.parametrize("before", FAILURES)
def test_a_crash_is_never_excused(tmp_path: Path, before: Status) -> None:
    verdict, code = one(tmp_path, failed(before), failed(Status.CRASHED))
    assert (verdict.kind, code) == (Kind.MISSING, 5)


@pytest.mark.parametrize("status", list(Status))
def test_a_dropped_cell_is_missing(tmp_path: Path, status: Status) -> None:
    dropped = cell(1) if status is Status.OK else failed(status, 1)
    base = store(tmp_path / "base", cell(0), dropped)
    result = compare(base, store(tmp_path / "head", cell(0)))
    assert [v.kind for v in result.verdicts] == [Kind.PASS, Kind.MISSING]
    assert result.exit_code == 5
    assert "absent from head" in result.verdicts[1].reason


@pytest.mark.parametrize("status", [Status.SKIPPED, Status.OOM, Status.TIMEOUT])
def test_the_same_explained_skip_passes_and_another_does_not(
    tmp_path: Path, status: Status
) -> None:
    verdict, code = one(tmp_path / "same", failed(status), failed(status))
    assert (verdict.kind, code, verdict.ratio) == (Kind.PASS, 0, None)
    verdict, code = one(tmp_path / "other", failed(status), failed(status, reason="else"))
    assert (verdict.kind, code) == (Kind.INCONCLUSIVE, 3)
    verdict, code = one(tmp_path / "wrong", failed(Status.WRONG), failed(status))
    assert (verdict.kind, code) == (Kind.INCONCLUSIVE, 3)


@pytest.mark.parametrize("before", FAILURES)
def test_a_cell_that_became_ok_passes_with_a_note(tmp_path: Path, before: Status) -> None:
    base, head = store(tmp_path / "base", failed(before)), store(tmp_path / "head", cell())
    result = compare(base, head)
    assert (result.verdicts[0].kind, result.exit_code) == (Kind.PASS, 0)
    assert result.worst_ratio is None
    (note,) = result.notes
    assert note.startswith("1 cells ok in head but not in base")


def test_cells_only_in_head_are_a_note(tmp_path: Path) -> None:
    base = store(tmp_path / "base", cell(0))
    head = store(tmp_path / "head", cell(0), *(cell(i) for i in range(1, 6)))
    result = compare(base, head)
    assert len(result.verdicts) == 1
    assert result.exit_code == 0
    (note,) = result.notes
    assert note.startswith("5 cells only in head, not judged: test/conv1 fprop float32 cpu")
    assert note.endswith(", ...")


def test_a_new_cell_that_is_wrong_is_still_wrong(tmp_path: Path) -> None:
    base = store(tmp_path / "base", cell(0))
    result = compare(base, store(tmp_path / "head", cell(0), failed(Status.WRONG, 1)))
    assert [v.kind for v in result.verdicts] == [Kind.PASS, Kind.WRONG]
    assert result.exit_code == 5
