"""A machine that is none: what would happen there is told by the test, and so is the time."""

from __future__ import annotations

import math
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from bench.gating import live
from bench.gating.child import Died
from bench.gating.live import Budgeted, Question
from bench.gating.readings import Reading
from bench.gating.sides import Side
from bench.suites import Sweep
from hrbp_core.shapes import Pass

BASE, HEAD = "b" * 40, "a" * 40
SWEEP = Sweep(
    "resnet50", "cpu", passes=(Pass.FPROP, Pass.DGRAD), densities=(0.25,), blocks=(32,),
    layers=("conv3_expand",), batch=1,
)  # fmt: skip


class Clock:
    """Seconds that pass when somebody says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """What would happen on a machine.

    Attributes:
        says: (cell's place, trial) -> a reading. takes_s: trial -> seconds. broken: side -> why
            it does not load. dies: raised by the second trial.
        names: the cells of each trial.
    """

    def __init__(self) -> None:
        self.says = lambda place, trial: timed(0.001 * (-1) ** trial)
        self.takes_s = lambda trial: 10.0
        self.broken: dict[str, Died] = {}
        self.dies: Died | None = None
        self.commits, self.dirty = (BASE, HEAD), False
        self.revision: Exception | None = None
        self.clock, self.names = Clock(), list[list[str]]()
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    @contextmanager
    def laid_out(self, root: Path, revision: str):
        if self.revision is not None:
            raise self.revision
        base = Side("base", self.commits[0], False, root / "base")
        yield base, Side("head", self.commits[1], self.dirty, root / "head")

    def check_loads(self, side: Side, folder: Path, impls) -> None:
        self.asked.append((side.name, tuple(impls)))
        assert folder.is_dir()
        if side.name in self.broken:
            raise self.broken[side.name]

    def machine(self, base, head, cells, folder, request, keep):
        return Pretended(self, list(cells), keep)


class Pretended:
    """A machine that is none."""

    def __init__(self, scene: Scene, names: list[str], keep) -> None:
        self.scene, self.places, self.keep = scene, names, keep
        self.made, self.environments = 0, {"base": {"of": "base"}, "head": {"of": "head"}}

    def take(self, names):
        self.made += 1
        self.scene.names.append(list(names))
        if self.made == 2 and self.scene.dies is not None:
            raise self.scene.dies
        for role in ("base", "head", "again"):
            self.keep({"trial": self.made, "role": role, "measurements": []})
        self.scene.clock.now += self.scene.takes_s(self.made)
        return {n: self.scene.says(self.places.index(n), self.made) for n in names}


def timed(d: float, a: float = 0.001) -> Reading:
    return Reading(d, a, base_s=1e-3, head_s=1e-3 * math.exp(d))


def staged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Return a scene that stands in for everything that a gate asks of a machine."""
    made = Scene()
    monkeypatch.setattr(live, "checkout", lambda: folder)
    for name, value in (
        ("laid_out", made.laid_out), ("check_loads", made.check_loads), ("Machine", made.machine),
        ("Budgeted", partial(Budgeted, now=made.clock)), ("monotonic", made.clock),
    ):  # fmt: skip
        monkeypatch.setattr(live, name, value)
    return made


def question(tmp_path: Path, budget_s: float = 720.0, **changes) -> Question:
    told = {"revision": "main", "sweep": SWEEP, "impls": ("block_sparse",), **changes}
    return Question(budget_s=budget_s, out=tmp_path / "out", **told)
