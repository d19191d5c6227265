"""Who may import whom. Every file is read, so a new module is held to the rules at once.

The floors are named in ``RANKS``; a module takes the rank of the longest name that leads to it.
It imports modules of lower rank, and those of its own unit (a folder, or bench's upper floor),
as long as no circle of imports at load time arises.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Container, Iterator
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.import_reader import PACKAGES, Import, Imports, loaded_by, read, sources

# hrbp_core's own modules must each be named; the folders of the other two have a floor.
RANKS: dict[str, float] = {
    "hrbp_core.shapes": 0,
    "bench.stats": 0,
    "bench.verdict": 0,
    "bench.records": 0.1,
    "bench.joules": 0,
    "bench.stop_rule": 0.1,
    "bench.layers": 0.1,
    "bench.plans": 0.2,
    "bench.floors": 0.2,
    "hrbp_core.tables": 1,
    "hrbp_core.pattern": 1.1,
    "hrbp_core.mask": 1.15,
    "hrbp_core.launch_tables": 1.1,
    "hrbp_core.convs": 1.15,
    "hrbp_core.padding": 1.15,
    "hrbp_core.budget": 1.18,
    "hrbp_core.scores": 1.2,
    "hrbp_core.allocate": 1.2,
    "bench.suites": 1,
    "bench.frames": 1,
    "bench.jsonl": 1,
    "bench.store": 1.1,
    "bench.table": 1.2,
    "bench.summary": 1.3,
    "bench.whole_folder": 1,
    "bench.change_points": 1,
    "bench.history": 1.1,
    "bench.trend_points": 1.25,
    "bench.trend_series": 1.27,
    "bench.gating.trend": 1.3,
    "bench.gating.promotion": 1.3,
    "bench.trend_forms": 1.4,
    "bench.accuracy_table": 1.2,
    "bench.step_table": 1.2,
    "bench.anchors": 1,
    "bench.equivalence": 1.3,
    "bench.pareto": 1.4,
    "bench.gate_result": 1.2,
    "bench.gating.rule": 0.1,
    "bench.gating.order": 0.1,
    "bench.gating.readings": 0.1,
    "bench.gating.evidence": 0.2,
    "bench.gating.unrest": 0.2,
    "bench.gating.course": 0.9,
    "bench.gating.decide": 1,
    "bench.gating.rehearsal": 1.1,
    "hrbp_core.regrouping": 2,
    "hrbp_core.reference": 2,
    "hrbp_core.kernels": 2,
    "hrbp_core.operators": 2.5,
    "hrbp_core.one_sided": 2.6,
    "hrbp_core.ops": 3,
    "hrbp_core.densely": 3.05,
    "hrbp_core.policy": 3.06,
    "hrbp_core.stored": 3.07,
    "hrbp_core.nn": 3.1,
    "hrbp_core.observing": 3.15,
    "hrbp_core.trials": 3.16,
    "hrbp_core.calibration_report": 3.15,
    "hrbp_core.calibration": 3.2,
    "hrbp_core.spaces": 3.15,
    "hrbp_core.conversion_report": 3.15,
    "hrbp_core.conversion": 3.2,
    "hrbp_core.dynamic": 3.2,
    "hrbp_core.permute": 3.2,
    "hrbp_core": 3.9,  # the public names, for those outside
    "bench": 4,
    "bench.cli_history": 5.5,
    "bench.cli_report": 5.5,
    "bench.cli": 6,
    "bench.__main__": 7,
    "reports": 5,
}
UNITS = (
    "hrbp_core.regrouping",
    "hrbp_core.kernels",
    "hrbp_core.spaces",
    "hrbp_core.dynamic",
    "bench",
    "reports",
)
NO_TORCH = (
    *(f"bench.{name}" for name in ("stats", "records", "store", "table", "gate", "suites")),
    *(
        f"bench.{name}"
        for name in (
            "jsonl",
            "gate_result",
            "accuracy_table",
            "anchors",
            "equivalence",
            "pareto",
            "frames",
            "verdict",
            "floors",
            "layers",
            "stop_rule",
            "gating.rule",
            "gating.order",
            "gating.readings",
            "gating.evidence",
            "gating.unrest",
            "gating.course",
            "gating.decide",
            "gating.rehearsal",
        )
    ),
    *(f"bench.{name}" for name in ("whole_folder", "change_points", "history", "trend_points")),
    *(f"bench.{name}" for name in ("trend_series", "trend_forms", "cli_history", "cli_report")),
    *(f"bench.gating.{name}" for name in ("trend", "promotion")),
    "hrbp_core.shapes",
    "reports",
)
STANDARD = sys.stdlib_module_names
OUTSIDE_OF = {0: {"numpy", "scipy"}, "hrbp_core": {"llvmlite", "numpy", "scipy", "torch", "triton"}}
LIGHT = {"typer", "click", "rich", "filelock"}  # what a command line may load


def leading(name: str, table: Container[str]) -> str:
    """Return the longest entry of the table that is the name, or a folder it lies in; or ""."""
    parts = name.split(".")
    tries = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((each for each in tries if each in table), "")


def unnamed(imports: Imports) -> Iterator[str]:
    for name in imports:
        if leading(name, RANKS) == "hrbp_core" != name:
            yield f"expected a floor for {name}: give it a rank"


def upward(imports: Imports) -> Iterator[str]:
    for name, found in imports.items():
        own = leading(name, RANKS)
        for target in {i.target for i in found if i.target.split(".")[0] in (*PACKAGES, "tests")}:
            theirs = leading(target, RANKS)
            if not theirs:
                yield f"{name} imports {target}, which has no floor"
                continue
            lower = RANKS[theirs] < RANKS[own]
            same_unit = RANKS[theirs] == RANKS[own] and own == theirs and own in UNITS
            if not (lower or same_unit or name == "hrbp_core"):
                yield f"{name} imports {target}: up, or sideways"


def forbidden(imports: Imports) -> Iterator[str]:
    """What no rank says: the library's borders, the oracle, triton, and torch."""
    for name, found in imports.items():
        library, rank = name.split(".")[0] == "hrbp_core", RANKS[leading(name, RANKS)]
        for target in {i.target for i in found}:
            top = target.split(".")[0]
            if library and top in ("bench", "reports", "tests"):
                yield f"{name} imports {target}: the library stands alone"
            if library and rank >= 3 and name != "hrbp_core" and target == "hrbp_core.reference":
                yield f"{name} imports the oracle"
            if top == "triton" and leading(name, UNITS) != "hrbp_core.kernels":
                yield f"{name} imports triton"
            if top == "torch" and leading(name, NO_TORCH):
                yield f"{name} imports torch"
            allowed = OUTSIDE_OF[0] if rank < 1 else OUTSIDE_OF["hrbp_core"] if library else {top}
            if top not in {*PACKAGES, *STANDARD, *allowed}:
                yield f"{name} imports {target}: not for its floor"


def torch_behind(imports: Imports) -> Iterator[str]:
    for name in imports:
        if leading(name, NO_TORCH) and "torch" in loaded_by(name, imports):
            yield f"loading {name} loads torch"


def heavy_command_line(imports: Imports) -> Iterator[str]:
    for name in ("bench.cli", "bench.__main__"):
        tops = {each.split(".")[0] for each in loaded_by(name, imports)}
        for top in sorted(tops - STANDARD - LIGHT - set(PACKAGES)):
            yield f"loading {name} loads {top}"


def circles(imports: Imports) -> Iterator[str]:
    graph = {
        n: {i.target for i in f if i.at_load and i.target in imports} for n, f in imports.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield " -> ".join(error.args[1])


RULES = {
    rule.__name__: rule
    for rule in (unnamed, upward, forbidden, torch_behind, heavy_command_line, circles)
}


@pytest.mark.parametrize("rule", RULES)
def test_the_house_stands(rule: str) -> None:
    assert sorted(RULES[rule](read(sources()))) == []


def test_all_files_are_read() -> None:
    imports = read(sources())
    assert {"hrbp_core", "hrbp_core.kernels.cpu", "bench.store", "reports"} <= imports.keys()
    assert Import("hrbp_core.pattern", True) in imports["hrbp_core.ops"]
    assert {"torch", "numpy", "hrbp_core.shapes"} <= loaded_by("hrbp_core.ops", imports)


PLANTED = [
    ("unnamed", "hrbp_core.newcomer", "import math"),
    ("upward", "hrbp_core.shapes", "from hrbp_core.tables import sort_keys"),
    ("upward", "hrbp_core.pattern", "from hrbp_core import ops"),
    ("upward", "hrbp_core.pattern", "from . import ops"),
    ("upward", "hrbp_core.pattern", "from hrbp_core import BlockSparseConv2d"),
    ("upward", "hrbp_core.kernels.newcomer", "from ..ops import run"),
    ("upward", "hrbp_core.kernels.newcomer", "from hrbp_core import reference"),
    ("upward", "hrbp_core.reference", "from hrbp_core.kernels import cpu"),
    ("upward", "hrbp_core.reference", "def f():\n    import hrbp_core.kernels.cpu"),
    ("upward", "hrbp_core.reference", "f = lambda: import_module('hrbp_core.kernels.cpu')"),
    ("upward", "hrbp_core.regrouping.newcomer", "import hrbp_core.kernels.plan"),
    ("upward", "hrbp_core.ops", "from hrbp_core.nn import BlockSparseConv2d"),
    ("upward", "bench.table", "from bench.newcomer import x"),
    ("upward", "bench.newcomer", "from reports import build"),
    ("upward", "bench.newcomer", "import tests.store_samples"),
    ("forbidden", "hrbp_core.nn", "from bench.records import Cell"),
    ("forbidden", "hrbp_core.nn", "from hrbp_core import reference"),
    ("forbidden", "hrbp_core.regrouping.newcomer", "import reports.style"),
    ("forbidden", "hrbp_core.regrouping.newcomer", "import pandas"),
    ("forbidden", "hrbp_core.shapes", "import torch"),
    ("forbidden", "bench.stats", "import pandas"),
    ("forbidden", "bench.newcomer", "from triton import language"),
    ("forbidden", "hrbp_core.ops", "try:\n    import triton\nexcept ImportError:\n    pass"),
    ("forbidden", "reports.newcomer", "def f():\n    from torch import nn"),
    ("forbidden", "bench.gate", "__import__('torch')"),
    ("torch_behind", "reports.newcomer", "import bench.impls.dense"),
    ("torch_behind", "bench.records", "import hrbp_core.tables"),
    ("torch_behind", "bench", "import hrbp_core.tables"),
    ("heavy_command_line", "bench.cli", "import bench.table"),
    ("heavy_command_line", "bench.__init__", "class A:\n    import numpy"),
    ("circles", "hrbp_core.kernels.plan", "from hrbp_core.kernels import cpu"),
]


@pytest.mark.parametrize(("rule", "name", "planted"), PLANTED)
def test_a_planted_import_is_found(rule: str, name: str, planted: str) -> None:
    files = sources()
    file = f"{name}.__init__" if f"{name}.__init__" in files else name
    before = set(RULES[rule](read(files)))
    files[file] = files.get(file, "") + "\n" + planted + "\n"
    assert set(RULES[rule](read(files))) - before


@pytest.mark.parametrize(
    "harmless",
    [
        "def f():\n    import bench.table",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import bench.table",
    ],
)
def test_what_is_imported_later_does_not_weigh(harmless: str) -> None:
    files = sources()
    files["bench.cli"] += "\n" + harmless
    assert list(heavy_command_line(read(files))) == list(heavy_command_line(read(sources())))


def test_the_public_names_exist() -> None:
    package = importlib.import_module("hrbp_core")
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)
    with pytest.raises(AttributeError, match="'hrbp_core' has no attribute 'nothing'"):
        _ = package.nothing
