"""bench.gating.known: a side's later processes ask the oracle only about what is new to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench import impls
from bench.attempt import Attempt
from bench.clocks import CpuClock
from bench.extras import Extras
from bench.gating import known
from bench.gating.known import Answers, Remembering, bits_of, pattern_kept
from bench.gating.process import WARM
from bench.problem import Prepared, Problem
from bench.records import Case, Cell, Recipe, Status
from hrbp_core import reference
from hrbp_core.shapes import ConvShape, Pass

SHAPE = ConvShape(1, 32, 6, 5, 48, 3, 3, padding=(1, 1))
CASE = Case(
    "test", "layer", SHAPE, "float32", "cpu", Pass.FPROP, Recipe("hrbp2", 0.5, (16, 16)), 27
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The oracle's passes, as they are computed."""
    told: list[str] = []
    for name in ("fprop", "dgrad", "wgrad"):
        real = getattr(reference, name)

        def counted(*rest, name=name, real=real):
            told.append(name)
            return real(*rest)

        monkeypatch.setattr(reference, name, counted)
    return told


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Go through a cell as one process of a side does; ``change`` stands between us and it."""
    ours = impls.load("block_sparse")

    def one(change=lambda problem, run: run(), case: Case = CASE, folder: str = "side") -> Attempt:
        def prepare(problem: Problem) -> Prepared:
            prepared = ours.prepare(problem)
            return replace(prepared, run=lambda: change(problem, prepared.run))

        monkeypatch.setattr(impls, "load", lambda _: SimpleNamespace(prepare=prepare))
        cell, attempt = Cell(case, "block_sparse", "hot"), Attempt("block_sparse")
        problem = Problem.of(case, pattern_kept(tmp_path / folder)(cell))
        kept = Answers(tmp_path / folder).of(cell)
        lane = Remembering(problem, [attempt], CpuClock(), WARM["cpu"], Extras(), kept)
        lane.before()
        for run in lane.runs().values():
            run()
            attempt.samples_s = [1.0]
        lane.after()
        return attempt

    return one


def nudged(problem: Problem, run) -> torch.Tensor:
    """Return an output that is as right, and differs in one bit."""
    out = run().clone()
    out[0, 1, 2, 3] = torch.nextafter(out[0, 1, 2, 3], torch.tensor(9.0))
    return out


def spoilt(problem: Problem, run) -> torch.Tensor:
    out = run().clone()
    out[0, 1, 2, 3] += 1
    return out


def right(attempt: Attempt) -> bool:
    return attempt.prepared is not None and attempt.errors["worst_over_bound"] <= 1


# --- answers ------------------------------------------------------------------------------


@pytest.mark.parametrize("conv_pass", list(Pass))
def test_the_second_process_asks_nothing_and_has_the_same_errors(process, asked, conv_pass) -> None:
    case = replace(CASE, conv_pass=conv_pass)
    first = process(case=case)
    assert asked == [str(conv_pass)] * 2  # before timing, and of a timed output
    second = process(case=case)
    assert len(asked) == 2
    assert right(first)
    assert right(second)
    assert second.errors == first.errors


def test_one_other_bit_asks_and_is_remembered_too(process, asked) -> None:
    process()
    assert right(process(nudged))
    assert len(asked) == 2 + 2
    assert right(process(nudged))
    assert right(process())
    assert len(asked) == 2 + 2


def test_an_other_bit_in_a_timed_output_alone_asks_once(process, asked) -> None:
    process()
    calls: list[int] = []

    def later(problem: Problem, run) -> torch.Tensor:
        calls.append(1)
        return run() if len(calls) == 1 else nudged(problem, run)

    assert right(process(later))
    assert len(asked) == 2 + 1


def test_a_wrong_output_is_wrong_in_every_process(process, asked, tmp_path: Path) -> None:
    process()
    kept = sorted((tmp_path / "side").iterdir())
    for _ in range(2):
        attempt = process(spoilt)
        assert attempt.status is Status.WRONG
        assert "before timing: error" in attempt.reason
    assert len(asked) == 2 + 2
    assert sorted((tmp_path / "side").iterdir()) == kept
    assert right(process())


def test_a_wrong_first_process_leaves_no_answer(process, asked, tmp_path: Path) -> None:
    assert process(spoilt).status is Status.WRONG
    assert not list((tmp_path / "side").glob("*.json"))
    assert right(process())
    assert len(asked) == 1 + 2


def test_the_checked_answer_of_the_first_inputs_is_wrong_for_the_timed_ones(process) -> None:
    """What an implementation keeps from the check has known bits, but of another question."""
    process()
    kept: list[torch.Tensor] = []

    def cheat(problem: Problem, run) -> torch.Tensor:
        kept.append(run().clone())
        return kept[0]

    attempt = process(cheat)
    assert attempt.status is Status.WRONG
    assert "a timed output: error" in attempt.reason


def test_a_changed_input_is_found_in_a_later_process(process) -> None:
    process()

    def vandal(problem: Problem, run) -> torch.Tensor:
        out = run()
        problem.x.add_(1)
        return out

    attempt = process(vandal)
    assert (attempt.status, attempt.reason) == (Status.WRONG, "changed its input x")


def test_what_is_no_tensor_is_a_crash_in_a_later_process(process) -> None:
    process()
    attempt = process(lambda problem, run: run().tolist())
    assert attempt.status is Status.CRASHED
    assert "expected run() to return a tensor, got list" in attempt.reason


def test_cells_and_sides_keep_their_own(process, asked) -> None:
    process()
    for other in (
        {"case": replace(CASE, conv_pass=Pass.DGRAD)},
        {"case": replace(CASE, recipe=replace(CASE.recipe, seed=1))},
        {"folder": "other side"},
    ):
        before = len(asked)
        assert right(process(**other))
        assert len(asked) == before + 2


def test_nothing_half_written_stays(process, tmp_path: Path) -> None:
    process()
    suffixes = sorted(path.suffix for path in (tmp_path / "side").iterdir())
    assert suffixes == [".json", ".json", ".pt"]


def test_bits_name_shape_dtype_and_every_bit() -> None:
    plain = torch.arange(24, dtype=torch.float32).reshape(1, 2, 3, 4)
    names = [bits_of(t) for t in (
        plain, plain.reshape(1, 2, 4, 3), plain.view(torch.int32), plain.double(),
        plain.to(torch.bfloat16), torch.nextafter(plain, torch.tensor(99.0)), -plain,
        plain.flip(0, 1, 2, 3), torch.zeros(2), -torch.zeros(2),
    )]  # fmt: skip
    assert len(set(names)) == len(names)
    assert bits_of(plain.clone()) == names[0]
    assert bits_of(plain.to(memory_format=torch.channels_last)) == names[0]
    assert bits_of(plain.clone().requires_grad_()) == names[0]


# --- patterns -----------------------------------------------------------------------------


def no_search(*_: object) -> None:
    raise AssertionError("expected no search")


@pytest.mark.parametrize(
    ("method", "layout"),
    [
        ("hrbp2", "canonical"),
        ("aligned", "canonical"),
        ("hrbp2_pp", "standalone"),
        ("hrbp", "standalone"),
    ],
)
def test_a_kept_pattern_equals_the_one_that_was_found(
    tmp_path: Path, monkeypatch, method: str, layout: str
) -> None:
    case = replace(CASE, recipe=Recipe(method, 0.5, (16, 16)), layout=layout)
    cell = Cell(case, "block_sparse", "hot")
    first = pattern_kept(tmp_path)(cell)
    monkeypatch.setattr(known, "pattern_of", no_search)
    second = pattern_kept(tmp_path)(cell)
    assert second is not first
    assert second.content_hash == first.content_hash
    assert (second.shape, second.block) == (first.shape, first.block)
    for name in ("entries", "filters", "channels"):
        assert torch.equal(getattr(second, name), getattr(first, name))
    assert torch.equal(second.mask(), first.mask())
    assert second.partitioned == first.partitioned


def test_the_passes_of_a_layer_share_a_pattern_and_other_recipes_do_not(
    tmp_path: Path, monkeypatch
) -> None:
    find = pattern_kept(tmp_path / "new" / "folder")
    find(Cell(CASE, "block_sparse", "hot"))
    with monkeypatch.context() as patched:
        patched.setattr(known, "pattern_of", no_search)
        find(Cell(replace(CASE, conv_pass=Pass.WGRAD), "dense", "cold"))
    for recipe in (replace(CASE.recipe, seed=1), replace(CASE.recipe, density=0.67)):
        case = replace(CASE, recipe=recipe)
        expected = known.pattern_of(SHAPE.filter_shape, recipe)
        assert find(Cell(case, "block_sparse", "hot")).content_hash == expected.content_hash
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 3
