"""bench.gating.process: what one process makes of its cells, led order by order."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench import impls
from bench.gating import process, trials
from bench.gating.process import Led
from bench.gating.readings import Reading
from bench.gating.sides import Side
from bench.gating.trials import Machine
from bench.problem import Problem, Unsupported
from bench.records import Case, Cell, Flag, Measurement, Recipe, Status
from hrbp_core.shapes import ConvShape, Pass
from tests.scripted_clock import ScriptedWatch

SHAPE = ConvShape(1, 32, 6, 5, 32, 3, 3, padding=(1, 1))
RECIPE = Recipe("hrbp2", 0.5, (16, 16))
CELLS = {
    cell.cell_id: cell
    for conv_pass in (Pass.FPROP, Pass.DGRAD)
    for cell in [
        Cell(Case("test", "layer", SHAPE, "float32", "cpu", conv_pass, RECIPE, 18),
             "block_sparse", "hot")
    ]
}  # fmt: skip
FPROP, DGRAD = CELLS
OURS = impls.load("block_sparse")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process' threads and memory are not the tests' to change."""
    monkeypatch.setattr(process, "set_up", lambda *_: None)
    monkeypatch.setattr(process, "SPIN_S", 0.0)
    monkeypatch.setattr("bench.warmup.WARMUP_S", 0.0)


def request(folder: Path) -> dict:
    cells = [cell.to_dict() for cell in CELLS.values()]
    return {"device": "cpu", "dtype": "float32", "mode": "hot", "cells": cells,
            "cache": str(folder)}  # fmt: skip


def failing(how: str):
    """Return an implementation whose fprop fails in one way."""

    def prepare(problem: Problem):
        prepared = OURS.prepare(problem)
        calls: list[int] = []

        def run() -> torch.Tensor:
            calls.append(1)
            if how == "raises in a call" and len(calls) > 4:
                raise RuntimeError("later")
            bad = how == "wrong" or (how == "wrong in a turn" and len(calls) > 1)
            return prepared.run() * 2 if bad else prepared.run()

        if problem.case.conv_pass is not Pass.FPROP:
            return prepared
        if how == "skipped":
            raise Unsupported("not here")
        if how == "lacks":
            raise AttributeError("no such name")
        return SimpleNamespace(**vars(prepared) | {"run": run})

    return SimpleNamespace(prepare=prepare)


def ended(led: Led) -> dict[str, Measurement]:
    environment, *lines = led.finish()
    assert environment["environment"]["device"] == "cpu"
    found = [Measurement.from_dict(line["measurement"]) for line in lines]
    return {m.cell.cell_id: m for m in found}


# --- one process --------------------------------------------------------------------------


def test_turns_become_the_samples_of_checked_cells(tmp_path: Path) -> None:
    told: list[str] = []
    led = Led(request(tmp_path), told.append)
    assert led.prepare() == {}
    seconds = led.warm()
    assert set(seconds) == set(CELLS)
    assert all(s > 0 for s in seconds.values())
    turns = [led.turn([FPROP, DGRAD]), led.turn([FPROP]), led.turn([])]
    assert [set(turn) for turn in turns] == [{FPROP, DGRAD}, {FPROP}, set()]
    found = ended(led)
    assert list(found) == list(CELLS)
    assert [m.status for m in found.values()] == [Status.OK] * 2
    assert found[FPROP].samples_s == tuple(turn[FPROP] for turn in turns[:2])
    assert found[DGRAD].samples_s == (turns[0][DGRAD],)
    assert all(m.errors["worst_over_bound"] <= 1 for m in found.values())
    assert told == [*CELLS, *CELLS, FPROP, DGRAD, FPROP, *CELLS]  # prepared, warmed, timed, checked


@pytest.mark.parametrize(
    ("how", "status"),
    [("wrong", Status.WRONG), ("skipped", Status.SKIPPED), ("lacks", Status.CRASHED)],
)
def test_a_cell_that_cannot_be_prepared_is_out_and_the_other_goes_on(
    tmp_path: Path, monkeypatch, how: str, status: Status
) -> None:
    monkeypatch.setattr(impls, "load", lambda _: failing(how))
    led = Led(request(tmp_path), lambda _: None)
    assert list(led.prepare()) == [FPROP]
    assert list(led.warm()) == [DGRAD]
    assert list(led.turn([FPROP, DGRAD])) == [DGRAD]
    found = ended(led)
    assert [found[n].status for n in (FPROP, DGRAD)] == [status, Status.OK]


def test_a_cell_that_raises_later_is_out_from_then_on(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(impls, "load", lambda _: failing("raises in a call"))
    monkeypatch.setattr("bench.gating.process.warm_up", one_call)
    led = Led(request(tmp_path), lambda _: None)
    led.prepare()
    assert set(led.warm()) == set(CELLS)
    seen = [set(led.turn([FPROP, DGRAD])) for _ in range(3)]
    assert seen[-1] == {DGRAD}
    found = ended(led)
    assert [found[n].status for n in (FPROP, DGRAD)] == [Status.CRASHED, Status.OK]
    assert found[FPROP].reason == "RuntimeError: later"
    assert len(found[DGRAD].samples_s) == 3


def test_a_timed_output_is_checked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(impls, "load", lambda _: failing("wrong in a turn"))
    led = Led(request(tmp_path), lambda _: None)
    assert led.prepare() == {}
    assert set(led.warm()) == set(led.turn([FPROP, DGRAD])) == {FPROP, DGRAD}
    found = ended(led)
    assert [found[n].status for n in (FPROP, DGRAD)] == [Status.WRONG, Status.OK]
    assert "a timed output: error" in (found[FPROP].reason or "")


@pytest.mark.parametrize(
    ("cause", "flags"),
    [(None, ()), ("thermal", (Flag.THROTTLED,)), ("brake", (Flag.THROTTLED,)),
     ("power", (Flag.POWER_LIMITED,))],
)  # fmt: skip
def test_what_held_the_clocks_back_is_a_flag_of_every_cell(tmp_path: Path, cause, flags) -> None:
    led = Led(request(tmp_path), lambda _: None)
    led.prepare()
    led.warm()
    led.watch = ScriptedWatch(cause)  # type: ignore[assignment]
    for _ in range(3):
        led.turn([FPROP, DGRAD])
    assert led.watch.ticks == 6  # type: ignore[union-attr]
    wanted = {Flag.THROTTLED, Flag.POWER_LIMITED}
    assert all(set(m.flags) & wanted == set(flags) for m in ended(led).values())


def one_call(name, run, clock, rule):
    from bench.warmup import Runner

    return Runner(name, clock.arm(run), 1, 1e-3, True, None)


# --- three processes ----------------------------------------------------------------------


class Near:
    """A child without a process."""

    loads: dict = {}

    def __init__(self, side: Side, folder: Path, told: dict, number: int) -> None:
        self.side = side
        self.led = self._as_side(lambda: Led(told, lambda _: None))

    def _as_side(self, do):
        with pytest.MonkeyPatch.context() as patched:
            loaded = self.loads.get(self.side.name, OURS)
            patched.setattr(impls, "load", lambda _: loaded)
            return do()

    def answer(self, limit_s: float = 0.0) -> dict:
        return {}

    def ask(self, limit_s: float = 0.0, *, do: str, **order):
        step = getattr(self.led, do)
        rest = [order["cells"]] if "cells" in order else []
        found = self._as_side(lambda: step(*rest))
        return list(found) if do == "finish" else found

    def end(self) -> None:
        pass


@pytest.fixture
def machine(tmp_path: Path, monkeypatch) -> Machine:
    monkeypatch.setattr(trials, "Child", Near)
    monkeypatch.setattr(trials, "LEAST_LAPS", 1)
    monkeypatch.setattr(trials, "MOST_LAPS", 1)
    base, head = (Side(n, n, False, tmp_path / n) for n in ("base", "head"))
    told = {"device": "cpu", "dtype": "float32", "mode": "hot", "impls": ["block_sparse"]}
    return Machine(base, head, CELLS, tmp_path, told)


@pytest.mark.parametrize("side", ["base", "head"])
@pytest.mark.parametrize(
    ("how", "status"), [("wrong", "wrong"), ("skipped", "skipped"), ("lacks", "crashed")]
)
def test_what_fails_on_one_side_is_told_of_that_side_alone(
    machine, monkeypatch, side: str, how: str, status: str
) -> None:
    """The other side's cell had no turn because of it: it has no outcome of its own."""
    monkeypatch.setattr(Near, "loads", {side: failing(how)})
    found = machine.take(list(CELLS))
    assert found[DGRAD].timed
    other = {"base": "head", "head": "base"}[side]
    assert getattr(found[FPROP], side)[0] == status
    assert getattr(found[FPROP], other) is None


def test_what_fails_on_both_sides_is_told_of_both(machine, monkeypatch) -> None:
    monkeypatch.setattr(Near, "loads", dict.fromkeys(("base", "head"), failing("skipped")))
    told = ("skipped", "not here")
    assert machine.take(list(CELLS))[FPROP] == Reading(base=told, head=told)
