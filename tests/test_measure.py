"""Every way an implementation can fail becomes a status with a reason, and the rest goes on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from bench import impls, measure
from bench.clocks import CpuClock
from bench.impls import block_sparse
from bench.problem import EPS, Prepared, Problem, Unsupported, is_right, pattern_of
from bench.records import Case, Flag, Recipe, Status
from bench.timing import StopRule
from hrbp_core.shapes import ConvShape, Pass

QUICK = StopRule(precision=1.0, cap_s=0.05, least_rounds=6)
CORE = {"dense", "masked_dense", "gather_grouped", "block_sparse", "plain_grouped", "thin_dense"}


def make_case(conv_pass=Pass.FPROP, dtype="float32", method="hrbp2", **changes):
    shape = ConvShape(2, 32, 6, 5, 48, 3, 3, padding=(1, 1), **changes)
    recipe = Recipe(method, 0.5, (16, 16))
    return Case("test", "layer", shape, dtype, "cpu", conv_pass, recipe, 3 * 9)


@pytest.fixture
def fake(monkeypatch):
    """Register implementations by their prepare functions; the short warm-up is for speed."""
    known = {}
    real = impls.load
    monkeypatch.setattr(impls, "load", lambda name: known.get(name) or real(name))
    monkeypatch.setattr("bench.warmup.WARMUP_S", 0.0)

    def register(name, prepare):
        known[name] = SimpleNamespace(prepare=prepare)
        return name

    return register


def measured(names, case=None):
    found = measure.measure_case(case or make_case(), names, CpuClock(), QUICK, "env")
    return {m.cell.impl: m for m in found}


@pytest.mark.parametrize("layout", ["canonical", "standalone"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("conv_pass", list(Pass))
def test_every_implementation_agrees_with_the_oracle(fake, conv_pass, dtype, layout):
    case = make_case(conv_pass, dtype, stride=(2, 1))
    case = Case(**{**vars(case), "layout": layout})
    found = measured(impls.IMPLS, case)
    ran = {n: m for n, m in found.items() if m.status is not Status.SKIPPED}
    assert {n: (m.status, m.reason) for n, m in ran.items()} == dict.fromkeys(
        ran, (Status.OK, None)
    )
    assert set(ran) >= CORE
    assert all(m.reason for n, m in found.items() if n not in ran)
    by_rounds = {}
    for m in ran.values():
        by_rounds.setdefault(m.detail["rounds"], set()).add(len(m.samples_s))
    assert all(len(lengths) == 1 for lengths in by_rounds.values())
    assert len(by_rounds) <= 2  # those much slower than dense have rounds of their own
    assert all(m.prep_s > 0 and is_right(m.errors) for m in ran.values())


def good(problem):
    return impls.load("block_sparse").prepare(problem)


def test_wrong_numbers(fake):
    def prepare(problem):
        prepared = good(problem)
        return Prepared(lambda: prepared.run() * 1.001, masked=True)

    found = measured([fake("bad", prepare), "block_sparse"])
    assert found["bad"].status is Status.WRONG
    assert "before timing: error" in found["bad"].reason
    assert not found["bad"].samples_s
    assert found["block_sparse"].status is Status.OK


@pytest.mark.parametrize("masked", [True, False])
def test_one_wrong_element_is_enough(masked):
    problem = Problem.of(make_case())
    out = problem.answer(masked=masked).float()
    assert is_right(problem.errors(out, masked=masked))
    out[1, 7, 3, 2] += 1e-3
    assert not is_right(problem.errors(out, masked=masked))


def test_masked_and_unmasked_answers_differ():
    problem = Problem.of(make_case())
    assert not is_right(problem.errors(problem.answer(masked=False).float(), masked=True))


def test_bounds_are_tight_to_rounding():
    """Rounding the exact answer once must pass, and three more units in the last place not."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        problem = Problem.of(make_case(dtype=str(dtype).removeprefix("torch.")))
        answer = problem.answer(masked=True)
        assert is_right(problem.errors(answer.to(dtype), masked=True))
        off = (answer * (1 + 20 * EPS[dtype])).to(dtype)
        assert not is_right(problem.errors(off, masked=True))


def test_unwritten_output(fake):
    """Memory that nobody writes is poisoned: an implementation cannot pass by luck."""

    def prepare(problem):
        right = problem.answer(masked=True).float()

        def run():
            out = torch.empty_like(right)
            out[:1] = right[:1]
            return out

        return Prepared(run, masked=True)

    found = measured([fake("lazy", prepare)])
    assert found["lazy"].status is Status.WRONG


def test_the_first_run_sees_poisoned_memory(fake):
    """What ``torch.empty`` hands out is NaN in the checked run; without that, luck could pass."""
    seen = []

    def prepare(problem):
        prepared = good(problem)

        def run():
            seen.append(bool(torch.empty(4096).isnan().all()))
            return prepared.run()

        return Prepared(run, masked=True)

    measured([fake("watcher", prepare)])
    assert seen[0]


def test_an_answer_kept_from_the_check_is_found(fake):
    def prepare(problem):
        kept = problem.answer(masked=True).float()
        return Prepared(lambda: kept, masked=True)

    found = measured([fake("cheat", prepare)])
    assert found["cheat"].status is Status.WRONG
    assert "a timed output" in found["cheat"].reason


def test_changed_inputs(fake):
    def prepare(problem):
        prepared = good(problem)

        def run():
            out = prepared.run()
            problem.x.add_(1)
            return out

        return Prepared(run, masked=True)

    found = measured([fake("vandal", prepare), "block_sparse"])
    assert found["vandal"].status is Status.WRONG
    assert found["vandal"].reason == "changed its input x"
    assert found["block_sparse"].status is Status.OK


def raising(error):
    def prepare(problem):
        raise error

    return prepare


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (Unsupported("needs a GPU"), Status.SKIPPED, "needs a GPU"),
        (MemoryError("no room"), Status.OOM, "no room"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
            Status.OOM,
            "9 bytes",
        ),
        (RuntimeError("boom"), Status.CRASHED, "RuntimeError: boom"),
        (ZeroDivisionError(), Status.CRASHED, "ZeroDivisionError"),
    ],
)
def test_exceptions_become_statuses(fake, error, status, text):
    found = measured([fake("bad", raising(error)), "block_sparse"])
    assert found["bad"].status is status
    assert text in found["bad"].reason
    assert found["block_sparse"].status is Status.OK


def test_a_crash_while_timing_leaves_the_others(fake):
    def prepare(problem):
        prepared, calls = good(problem), []

        def run():
            calls.append(1)
            if len(calls) > 12:
                raise RuntimeError("later")
            return prepared.run()

        return Prepared(run, masked=True)

    found = measured([fake("bad", prepare), "block_sparse"])
    assert found["bad"].status is Status.CRASHED
    assert found["block_sparse"].status is Status.OK
    assert found["block_sparse"].samples_s  # how many hangs on how busy the machine is


def test_wrong_shape_is_a_crash_with_both_shapes(fake):
    prepare = lambda problem: Prepared(lambda: torch.zeros(1), masked=True)  # noqa: E731
    found = measured([fake("bad", prepare)])
    assert found["bad"].status is Status.CRASHED
    assert "expected output [2, 48, 6, 5], got [1]" in found["bad"].reason


def test_a_first_call_over_the_limit_is_a_timeout(fake, monkeypatch):
    monkeypatch.setattr(measure, "CALL_LIMIT_S", 0.0)
    found = measured(["block_sparse"])
    assert found["block_sparse"].status is Status.TIMEOUT
    assert "limit 0" in found["block_sparse"].reason


def test_a_pattern_that_cannot_be_is_a_crash_of_the_case(fake):
    case = make_case(method="magic")
    found = measured(["dense", "block_sparse"], case)
    assert {m.status for m in found.values()} == {Status.CRASHED}
    assert "magic" in found["dense"].reason


def test_grouped_baseline_says_what_it_cannot(fake):
    case = make_case()
    odd = ConvShape(2, 32, 6, 5, 40, 3, 3, padding=(1, 1))
    case = Case(**{**vars(case), "shape": odd})
    found = measured(["gather_grouped", "block_sparse"], case)
    assert found["gather_grouped"].status is Status.SKIPPED
    assert "whole groups" in found["gather_grouped"].reason
    assert found["block_sparse"].status is Status.OK


def test_noise_is_flagged_not_failed(fake, monkeypatch):
    rule = StopRule(precision=1e-9, cap_s=0.02, least_rounds=6)
    (found,) = measure.measure_case(make_case(), ["block_sparse"], CpuClock(), rule, "env")
    assert found.status is Status.OK
    assert Flag.NOISY in found.flags


def test_the_tile_of_a_gpu_case_is_named():
    detail = block_sparse.triton_backend(Problem.of(make_case()), -1)
    assert detail["backend"] == "triton"
    assert detail["precision"] == "tf32"
    assert detail["tile"].endswith(("s3", "s4"))


def test_a_block_without_gpu_kernels_is_skipped():
    recipe = Recipe(method="aligned", density=0.5, block=(8, 8))
    pattern = pattern_of((32, 32, 3, 3), recipe)
    shape = ConvShape(2, 32, 6, 5, 32, 3, 3, padding=(1, 1))
    case = replace(make_case(), recipe=recipe, shape=shape, entries=len(pattern.entries))
    with pytest.raises(Unsupported, match="of 16, 32, 64, 128 on a GPU, got 8 and 8"):
        block_sparse.triton_backend(Problem.of(case), -1)


def test_device_memory_is_noted(monkeypatch):
    figures = {"memory_allocated": 100, "max_memory_allocated": 164}
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: figures.update(reset=1))
    for name in ("memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: figures[name])
    on_cpu, on_cuda = {}, {}
    with measure.watched_memory("cpu", on_cpu), measure.watched_memory("cuda", on_cuda):
        pass
    assert (on_cpu, on_cuda, figures["reset"]) == ({}, {"peak_bytes": 64}, 1)
