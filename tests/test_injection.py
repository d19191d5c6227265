"""bench.injection: a planted slow-down is as long as asked, where asked, and says so."""

from __future__ import annotations

import ast
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import hrbp_core
from bench import injection, measure
from bench.clocks import CpuClock
from bench.impls import block_sparse
from bench.injection import VARIABLE, Delay, delay, slowed
from bench.problem import Problem
from bench.records import Case, Recipe, Status
from bench.timing import StopRule
from hrbp_core.shapes import ConvShape, Pass

QUICK = StopRule(precision=1.0, cap_s=0.05, least_rounds=6, warmup_cap_s=0.05)
SHAPE = ConvShape(1, 32, 6, 5, 32, 3, 3, padding=(1, 1))
CASE = Case(
    "test", "conv4_3x3", SHAPE, "float32", "cpu", Pass.FPROP, Recipe("hrbp2", 0.5, (16, 16)), 18
)


@pytest.fixture(autouse=True)
def nothing_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("bench.warmup.WARMUP_S", 0.0)


def asked(monkeypatch: pytest.MonkeyPatch, text: str) -> Delay:
    monkeypatch.setenv(VARIABLE, text)
    found = delay()
    assert found is not None
    return found


# --- what is asked ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "share", "seconds", "words"),
    [
        ("10%", 0.1, 0.0, ()),
        ("2.5 %", 0.025, 0.0, ()),
        ("150%", 1.5, 0.0, ()),
        ("50us", None, 50e-6, ()),
        ("1.5ms", None, 1.5e-3, ()),
        ("  3ms  ", None, 3e-3, ()),
        ("10%@fprop", 0.1, 0.0, ("fprop",)),
        ("50us@conv4_3x3  wgrad 0.25", None, 50e-6, ("conv4_3x3", "wgrad", "0.25")),
        ("10% @ 16", 0.1, 0.0, ("16",)),
        ("10%@", 0.1, 0.0, ()),
    ],
)
def test_shares_seconds_and_words(monkeypatch, text, share, seconds, words) -> None:
    found = asked(monkeypatch, text)
    assert found.share == (None if share is None else pytest.approx(share))
    assert found.seconds == pytest.approx(seconds)
    assert found.words == words
    assert found.text == text.strip()


@pytest.mark.parametrize(
    "text", ["10", "ten%", "-5%", "+5%", "10%%", "10s", "%", "@fprop", "10%fprop", "1e2%", "1%,5us"]
)
def test_anything_else_is_refused_with_its_text(monkeypatch, text) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ValueError, match="expected HRBP_INJECT_DELAY like 10%") as found:
        delay()
    assert repr(text) in str(found.value)


@pytest.mark.parametrize("text", [None, "", "  "])
def test_nothing_is_asked_by_an_unset_or_empty_variable(monkeypatch, text) -> None:
    if text is not None:
        monkeypatch.setenv(VARIABLE, text)
    assert delay() is None


@pytest.mark.parametrize(
    ("words", "met"),
    [
        ("", True),
        ("fprop", True),
        ("conv4_3x3", True),
        ("conv4_3x3 fprop 0.5 16", True),
        ("16 fprop", True),
        ("dgrad", False),
        ("conv4_3x3 dgrad", False),
        ("conv4", False),
        ("prop", False),
        ("0.25", False),
        ("32", False),
    ],
)
def test_a_cell_is_met_when_every_word_is_one_of_its_own(monkeypatch, words, met) -> None:
    assert asked(monkeypatch, f"10%@{words}").meets(CASE) is met


# --- how long it takes --------------------------------------------------------------------


class Ticking:
    """Seconds that pass by a tick whenever somebody looks."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 0.0, tick

    def perf_counter(self) -> float:
        self.now += self.tick
        return self.now


@pytest.mark.parametrize(
    ("text", "longer"), [("50%", 1.0), ("10%", 0.2), ("300%", 6.0), ("0%", 0), ("70ms", 0.07)]
)
def test_a_call_takes_longer_by_its_share_or_the_seconds(monkeypatch, text, longer) -> None:
    clock, out = Ticking(1e-4), torch.ones(3)
    monkeypatch.setattr(injection, "time", clock)

    def run() -> torch.Tensor:
        clock.now += 2.0
        return out

    call = slowed(run, CASE, asked(monkeypatch, text))
    for _ in range(2):
        start = clock.now
        assert call() is out
        assert clock.now - start == pytest.approx(2.0 + longer, abs=2e-3)


def test_the_delay_is_real_time(monkeypatch) -> None:
    call = slowed(lambda: torch.ones(1), CASE, asked(monkeypatch, "20ms"))
    start = time.perf_counter()
    call()
    assert time.perf_counter() - start >= 0.02


def test_what_a_call_raises_comes_through(monkeypatch) -> None:
    def run() -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        slowed(run, CASE, asked(monkeypatch, "10%"))()


@pytest.mark.parametrize(("text", "cycles"), [("50%", 1_000_000), ("3ms", 3_000_000)])
def test_on_a_gpu_the_device_spins_after_the_call(monkeypatch, text, cycles) -> None:
    told: list[object] = []
    monkeypatch.setattr(injection, "_cycles_per_s", lambda: 1e9)
    monkeypatch.setattr(injection, "_device_s", lambda run: 2e-3)
    monkeypatch.setattr(torch.cuda, "_sleep", told.append)
    out = torch.ones(1)
    on_gpu = replace(CASE, device="cuda")
    call = slowed(lambda: told.append("run") or out, on_gpu, asked(monkeypatch, text))
    told.clear()
    assert call() is out
    assert told == ["run", pytest.approx(cycles, abs=1)]


# --- in a measurement ---------------------------------------------------------------------


def measured(case: Case = CASE):
    (found,) = measure.measure_case(case, ["block_sparse"], CpuClock(), QUICK, "env")
    assert (found.status, found.reason) == (Status.OK, None)
    return found


def test_a_slowed_cell_is_right_slower_and_says_so(monkeypatch) -> None:
    assert "injected_delay" not in measured().detail
    asked(monkeypatch, "3ms@fprop conv4_3x3")
    found = measured()
    assert found.detail["injected_delay"] == "3ms@fprop conv4_3x3"
    assert min(found.samples_s) >= 3e-3


@pytest.mark.parametrize("text", ["3ms@dgrad", "", None])
def test_a_cell_that_is_not_meant_is_left_alone(monkeypatch, text) -> None:
    if text is not None:
        monkeypatch.setenv(VARIABLE, text)

    def never(*_: object) -> None:
        raise AssertionError("expected no wrapper")

    monkeypatch.setattr(injection, "slowed", never)
    assert "injected_delay" not in measured().detail


@pytest.mark.parametrize("conv_pass", list(Pass))
def test_the_result_is_untouched(monkeypatch, conv_pass) -> None:
    problem = Problem.of(replace(CASE, conv_pass=conv_pass))
    plain = block_sparse.prepare(problem).run()
    asked(monkeypatch, "100us")
    prepared = block_sparse.prepare(problem)
    assert torch.equal(prepared.run(), plain)
    assert prepared.detail["injected_delay"] == "100us"


def test_the_library_knows_nothing_of_it() -> None:
    sources = sorted(Path(hrbp_core.__file__).parent.rglob("*.py"))
    assert len(sources) > 20
    for path in sources:
        text = path.read_text()
        assert "INJECT" not in text, path
        for node in ast.walk(ast.parse(text)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [n for n in names if n.split(".")[0] in ("bench", "tests")], path


def test_no_other_implementation_is_slowed(monkeypatch) -> None:
    """A rival that is slowed down with us would hide the slow-down in the speed-up."""
    asked(monkeypatch, "3ms")
    monkeypatch.setattr(injection, "slowed", lambda *_: SimpleNamespace())
    (found,) = measure.measure_case(CASE, ["masked_dense"], CpuClock(), QUICK, "env")
    assert (found.status, "injected_delay" in found.detail) == (Status.OK, False)
