"""Folders of results over time, made up, for the tests of trends: nothing was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from typer.testing import CliRunner

from bench import cli_history
from bench.history import History, Trend
from bench.records import Case, Cell, Environment, Measurement, Recipe, Status
from bench.store import Store
from hrbp_core.shapes import Pass
from tests.store_samples import ENVIRONMENT, SHAPE

PASSES = tuple(Pass)
WITHIN = tuple(1 + 0.002 * (i - 5) for i in range(11))  # samples of one cell, around 1
Factor = Callable[[int, int, Pass], float]  # folder, layer, pass -> time against usual; 0 fails


def commit(number: int) -> str:
    """Return 40 hex digits that start differently for each number."""
    return f"{number:03x}" + "abcdef0123456789" * 2 + "abcde"


def environment(number: int, **changes: Any) -> Environment:
    """Return the machine at a commit of its own."""
    return dataclasses.replace(ENVIRONMENT, **{"commit": commit(number), **changes})


def timed(
    layer: int, conv_pass: Pass, impl: str, seconds: float, paired: bool = True
) -> Measurement:
    """Return an ok measurement around ``seconds``; a failed one for 0."""
    case = Case(
        suite="test",
        layer=f"conv{layer}",
        shape=SHAPE,
        dtype="float32",
        device="cpu",
        conv_pass=conv_pass,
        recipe=Recipe("random", 0.25, (4, 8)),
        entries=12,
    )
    cell = Cell(case, impl, "cold")
    if not seconds:
        return Measurement(cell, "", Status.CRASHED, reason="made to fail")
    samples = tuple(seconds * each for each in WITHIN)
    detail = {"rounds": cell.case_id} if paired else {}
    return Measurement(cell, "", Status.OK, samples_s=samples, detail=detail)


def folder(
    path: Path,
    number: int,
    factor: Factor,
    *,
    layers: Sequence[int] = (0, 1, 2),
    passes: Sequence[Pass] = PASSES,
    paired: bool = True,
    drift: float = 1.0,
    facts: Environment | None = None,
) -> Path:
    """Store dense and block_sparse of every layer and pass; return the folder.

    Args:
        factor: the time of block_sparse against what is usual. drift: of both.
    """
    facts = facts or environment(number)
    measured = []
    for layer in layers:
        for conv_pass in passes:
            usual = (layer + 1) * 1e-3 * drift
            measured.append(timed(layer, conv_pass, "dense", 2 * usual, paired))
            own = usual * factor(number, layer, conv_pass)
            measured.append(timed(layer, conv_pass, "block_sparse", own, paired))
    with Store(path) as store:
        name = store.add_environment(facts)
        store.append_many([dataclasses.replace(m, environment=name) for m in measured])
    return path


def noisy(factor: Factor, spread: float, seed: int = 0) -> Factor:
    """Return the factors with noise: half of it a folder's own, half a cell's."""

    def found(number: int, layer: int, conv_pass: Pass) -> float:
        place = PASSES.index(conv_pass)
        together = np.random.default_rng([seed, number, place]).normal(0, spread)
        alone = np.random.default_rng([seed, number, place, layer + 1]).normal(0, spread)
        return factor(number, layer, conv_pass) * float(np.exp(together + alone / 2))

    return found


def usual(number: int, layer: int, conv_pass: Pass) -> float:
    """Every time is what is usual."""
    return 1.0


def history(base: Path, count: int, factor: Factor = usual, **more: Any) -> list[Path]:
    """Store ``count`` folders and return them in order."""
    return [folder(base / f"day{i:02d}", i, factor, **more) for i in range(count)]


def slower_fprop(base: Path) -> list[Path]:
    """Twenty folders with noise of 1.5 %; fprop is slower by 8 % from the thirteenth on."""
    return history(base, 20, noisy(step_at(12), 0.013))


def step_at(place: int, size: float = 1.08, conv_pass: Pass | None = Pass.FPROP) -> Factor:
    """Return times that rise by ``size`` from a folder on, in one pass or (None) in all."""
    return lambda number, layer, own: size if number >= place and conv_pass in (None, own) else 1.0


def only(found: Trend) -> History:
    """Return the one history."""
    (one,) = found.histories
    return one


def steps(one: History) -> dict[str, list[int]]:
    """Return pass -> positions of its steps, without those that have none."""
    return {n: [s.position for s in p.steps] for n, p in one.passes.items() if p.steps}


def command(*words: object) -> Any:
    """Run ``trend``; return what it said."""
    app = typer.Typer()
    cli_history.register(app)
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["trend", *map(str, words)])
