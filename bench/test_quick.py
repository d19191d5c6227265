"""The quick suite in pytest-benchmark: ``pytest bench --benchmark-only``.

One test a case and implementation (``HRBP_BENCH_IMPLS=dense,csr`` names others): compared with
the oracle, timed on fresh values, and compared again on those. Times are device time on CUDA and
host time on a CPU. Tests are named without torch; a case's inputs are made once and shared by
its implementations, and no two cases' inputs are in memory together.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from bench import impls
from bench.records import Case, Cell, Flag, Measurement, Status
from bench.suites import Sweep, cases, find_suite

if TYPE_CHECKING:
    from torch import Tensor

    from bench.conftest import Bench
    from bench.device_timer import DeviceTimer
    from bench.problem import Prepared, Problem

pytestmark = [
    pytest.mark.benchmark,
    # a test that fails before it is timed has said why
    pytest.mark.filterwarnings("ignore:Benchmark fixture was not used at all:pytest.PytestWarning"),
]

SUITE = "quick"
IMPLS = "dense,masked_dense,gather_grouped,block_sparse"
LEAST_ROUNDS, LEAST_WARM_UPS, MOST_ROUNDS = 30, 10, 200
SAMPLE_S, WARM_UP_S = 0.4, 0.2


class WrongResult(AssertionError):
    """An output that is not the oracle's, or an input that was changed."""


def key_of(case: Case) -> str:
    """Return what the case is called in a test's name; the device is no part of it."""
    k, c = case.recipe.block
    return f"{case.layer}-{case.conv_pass}-{case.recipe.density:g}-{k}x{c}"


def impl_names() -> list[str]:
    """Return the implementations to time.

    Raises:
        UsageError: an unknown one, or none.
    """
    asked = os.environ.get("HRBP_BENCH_IMPLS", IMPLS)
    names = list(dict.fromkeys(n.strip() for n in asked.split(",") if n.strip()))
    if not names:
        raise pytest.UsageError(f"HRBP_BENCH_IMPLS: expected names with commas, got {asked!r}")
    try:
        impls.check(names)
    except ValueError as error:
        raise pytest.UsageError(f"HRBP_BENCH_IMPLS: {error}") from error
    return names


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Name every test; a case's implementations follow one another."""
    if "problem" in metafunc.fixturenames:
        keys = [key_of(case) for case in cases(Sweep(SUITE, "cpu"))[0]]
        metafunc.parametrize("problem", keys, indirect=True, scope="module")
        metafunc.parametrize("impl", impl_names())


@pytest.fixture(scope="module")
def problem(request: pytest.FixtureRequest, bench: Bench) -> Problem:
    """Return one case's inputs and oracle, for all of its implementations."""
    from bench.problem import Problem

    found = {key_of(case): case for case in cases(Sweep(SUITE, bench.device))[0]}
    return Problem.of(found[request.param])


@pytest.fixture
def timer(request: pytest.FixtureRequest, bench: Bench) -> DeviceTimer | None:
    """Return the timer of device time, where there is one, and have pytest-benchmark use it."""
    timer = bench.timer()
    options = {"disable_gc": True} | ({"timer": timer} if timer else {})
    # pytest-benchmark reads the closest marker when its fixture is made, which is after this one
    request.node.add_marker(pytest.mark.benchmark(**options), append=False)
    return timer


def test_quick(
    timer: DeviceTimer | None, problem: Problem, impl: str, bench: Bench,
    gaps: list[dict[str, Any]], benchmark: Any,
) -> None:  # fmt: skip
    """Compare with the oracle, time, and compare again."""
    from bench.attempt import poisoned, watched_memory
    from bench.benchmark_json import cell_facts, labels

    cell, detail = Cell(problem.case, impl, bench.mode), {"repeats": 1}
    for name, value in labels(cell).items():
        setattr(benchmark, name, value)
    with accounted(cell, benchmark, gaps), untouched(problem):
        start = time.perf_counter()
        prepared = impls.load(impl).prepare(problem)
        prep_s = time.perf_counter() - start
        answered(problem, prepared)  # first: a run may spoil the inputs
        with poisoned(), watched_memory(bench.device, detail):
            out = prepared.run()
        compare(problem, prepared, out, "before timing")
    # new values, others for each implementation: an answer that was kept is wrong from here on
    problem.refresh(1 + impl_names().index(impl))
    with accounted(cell, benchmark, gaps), untouched(problem):
        prepared.follow()
        answered(problem, prepared)
        out = timed(benchmark, prepared, bench, timer, detail)
        errors = compare(problem, prepared, out, "a timed output")
    if benchmark.stats:  # not with --benchmark-disable
        samples, seen = tuple(benchmark.stats.stats.data), {**prepared.detail, **detail}
        measurement = Measurement(
            cell, bench.environment.environment_id, Status.OK, samples_s=samples,
            errors=errors, flags=flags_of(samples, detail), prep_s=prep_s, detail=seen,
        )  # fmt: skip
        benchmark.extra_info.update(cell_facts(measurement))


def timed(
    benchmark: Any, prepared: Prepared, bench: Bench, timer: DeviceTimer | None,
    detail: dict[str, Any],
) -> Tensor:  # fmt: skip
    """Have pytest-benchmark time the call; return the last round's output."""
    call_s = min(bench.seconds(prepared.run) for _ in range(3))
    rounds = min(max(math.ceil(SAMPLE_S / call_s), LEAST_ROUNDS), MOST_ROUNDS)
    warm_ups = min(max(math.ceil(WARM_UP_S / call_s), LEAST_WARM_UPS), MOST_ROUNDS)
    out: Tensor = benchmark.pedantic(
        prepared.run,
        setup=timer.prepare if timer else None,
        rounds=rounds,
        warmup_rounds=warm_ups,
    )
    detail["warm_up_rounds"] = warm_ups
    detail["late_rounds"] = sum(timer.late[-rounds:]) if timer else None
    return out


def flags_of(samples: tuple[float, ...], detail: dict[str, Any]) -> tuple[Flag, ...]:
    """Return what a reader must know about the samples."""
    from bench.stats import is_bimodal, median, median_interval

    low, high = median_interval(samples)
    found = {
        Flag.NOISY: (high - low) / 2 / median(samples) > find_suite(SUITE).rule.precision,
        Flag.BIMODAL: is_bimodal(samples),
        Flag.LAUNCH_BOUND: bool(detail["late_rounds"]),
    }
    return tuple(flag for flag, on in found.items() if on)


def answered(problem: Problem, prepared: Prepared) -> None:
    """Compute the oracle's answer, and keep it where implementations share it."""
    if prepared.oracle is None:
        problem.answer(masked=prepared.masked)


def compare(problem: Problem, prepared: Prepared, out: Tensor, when: str) -> dict[str, float]:
    """Return the error figures of an output.

    Raises:
        WrongResult: they are beyond their bounds.
    """
    from bench.problem import is_right

    errors = problem.errors(prepared.to_oracle(out), masked=prepared.masked, oracle=prepared.oracle)
    if not is_right(errors):
        raise WrongResult(
            f"{when}: error {errors['worst_over_bound']:.3g} times its bound, "
            f"rms {errors['rel_rms']:.3g} (bound {errors['rel_rms_bound']:.3g})"
        )
    return errors


@contextmanager
def untouched(problem: Problem) -> Iterator[None]:
    """Restore the inputs that the next implementation shares.

    Raises:
        WrongResult: an input was changed; names it.
    """
    kept = {name: getattr(problem, name).clone() for name in ("x", "dy", "weight")}
    try:
        yield
    finally:
        changed = [n for n, value in kept.items() if not value.equal(getattr(problem, n))]
        for name in changed:
            getattr(problem, name).copy_(kept[name])
        if changed:
            raise WrongResult(f"changed its input {', '.join(changed)}")


@contextmanager
def accounted(cell: Cell, benchmark: Any, gaps: list[dict[str, Any]]) -> Iterator[None]:
    """Let a failure leave no time behind, but a line that says why; skip what is unsupported."""
    from bench.attempt import status_of
    from bench.benchmark_json import gap

    try:
        yield
    except Exception as error:
        wrong = isinstance(error, WrongResult)
        status, reason = (Status.WRONG, str(error)) if wrong else status_of(error)
        gaps.append(gap(cell, str(status), reason))
        benchmark.has_error = True
        if benchmark.stats:
            benchmark.stats.stats.data.clear()
        if status is Status.SKIPPED:
            pytest.skip(reason)
        raise
