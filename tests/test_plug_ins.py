"""Implementations of third parties: found by entry point, and never able to harm the others."""

from __future__ import annotations

import sys

import pytest

from bench import impls, measure
from bench.clocks import CpuClock
from bench.records import Status
from bench.timing import StopRule
from tests.test_measure import make_case

SOURCE = """
import torch
from types import SimpleNamespace
from bench.problem import Prepared

def good(problem):
    from bench.impls import block_sparse
    return block_sparse.prepare(problem)

def raises(problem):
    raise RuntimeError("no licence")

def raises_later(problem):
    real, calls = good(problem), []
    def run():
        calls.append(1)
        if len(calls) > 5:
            raise RuntimeError("ran out of breath")
        return real.run()
    return Prepared(run, masked=True)

def wrong(problem):
    real = good(problem)
    return Prepared(lambda: real.run() * 1.01, masked=True)

def wrong_later(problem):
    real, calls = good(problem), []
    def run():
        calls.append(1)
        out = real.run()
        return out if len(calls) < 3 else out * 1.01
    return Prepared(run, masked=True)

def writes_nothing(problem):
    real = good(problem)
    return Prepared(lambda: torch.empty_like(real.run()), masked=True)

def vandal(problem):
    real = good(problem)
    def run():
        problem.x.mul_(1.01)
        return real.run()
    return Prepared(run, masked=True)

def late_vandal(problem):
    real, calls = good(problem), []
    def run():
        calls.append(1)
        if len(calls) > 3:
            problem.weight.mul_(1.01)
        return real.run()
    return Prepared(run, masked=True)

def returns_none(problem):
    return Prepared(lambda: None, masked=True)

for _name, _call in list(globals().items()):
    if callable(_call) and getattr(_call, "__module__", "") == __name__:
        globals()["impl_" + _name] = SimpleNamespace(prepare=_call)
"""
NAMES = (
    "good", "raises", "raises_later", "wrong", "wrong_later", "writes_nothing", "vandal",
    "late_vandal", "returns_none",
)  # fmt: skip


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with entry points, as pip would leave it."""

    def install(points, source=SOURCE, name="rival"):
        site = tmp_path / name
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "\n".join(f"{n} = {value}" for n, value in points.items())
        (info / "entry_points.txt").write_text(f"[{impls.GROUP}]\n{lines}\n")
        (site / f"{name}_impls.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, f"{name}_impls", raising=False)

    return install


def measured(names, monkeypatch):
    monkeypatch.setattr("bench.warmup.WARMUP_S", 0.0)
    rule = StopRule(precision=1.0, cap_s=0.05, least_rounds=6, steady=1.0)
    found = measure.measure_case(make_case(), names, CpuClock(), rule, "env")
    return {m.cell.impl: m for m in found}


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("good", Status.OK, None),
        ("raises", Status.CRASHED, "RuntimeError: no licence"),
        ("raises_later", Status.CRASHED, "RuntimeError: ran out of breath"),
        ("wrong", Status.WRONG, "before timing"),
        ("wrong_later", Status.WRONG, "a timed output"),
        ("writes_nothing", Status.WRONG, "before timing"),
        ("vandal", Status.WRONG, "changed its input x"),
        ("late_vandal", Status.WRONG, "changed its input weight"),
        ("returns_none", Status.CRASHED, "expected run() to return a tensor, got NoneType"),
    ],
)
def test_what_a_plug_in_does_is_a_status_of_its_own(install, monkeypatch, name, status, reason):
    install({n: f"rival_impls:impl_{n}" for n in NAMES})
    found = measured(["dense", name, "block_sparse"], monkeypatch)
    assert found[name].status is status
    assert reason is None or reason in found[name].reason
    assert found["dense"].status is found["block_sparse"].status is Status.OK


def test_plug_ins_are_listed_with_their_origin(install):
    install({"rival": "rival_impls:impl_good"})
    assert impls.available()["rival"] == "plug-in of rival: rival_impls:impl_good"
    impls.check(["rival", "dense"])
    with pytest.raises(ValueError, match=r"block_sparse, rival; got 'none'"):
        impls.check(["none"])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("rival_impls:nothing", "expected to load rival_impls:nothing of rival"),
        ("no_such_module:x", "No module named 'no_such_module'"),
        ("rival_impls:SOURCE", "expected to load"),
        ("rival_impls:NOT_ONE", "to offer prepare"),
    ],
)
def test_a_plug_in_that_cannot_be_loaded_crashes_alone(install, monkeypatch, value, reason):
    install({"rival": value}, source="NOT_ONE = 1\n")
    found = measured(["rival", "block_sparse"], monkeypatch)
    assert found["rival"].status is Status.CRASHED
    assert reason in found["rival"].reason
    assert found["block_sparse"].status is Status.OK


def test_a_name_that_is_taken_is_refused(install):
    install({"dense": "rival_impls:impl_good"})
    with pytest.raises(ValueError, match="expected a new name for the implementation 'dense'"):
        impls.available()
