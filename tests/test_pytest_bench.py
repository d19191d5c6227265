"""``pytest bench``: what it collects, what it times with, and what becomes of bad answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import test_quick
from bench.records import Cell
from bench.suites import Sweep, cases

ROOT = Path(__file__).parents[1]
CASE = "conv5_3x3 and fprop and 0.125"
RIVALS = """
from types import SimpleNamespace
import torch
from bench.problem import Prepared, Unsupported

def good(problem):
    from bench.impls import block_sparse
    return block_sparse.prepare(problem)

def unsupported(problem):
    raise Unsupported("no kernel for it")

def wrong(problem):
    real = good(problem)
    return Prepared(lambda: real.run() * 1.01, masked=True)

def remembers(problem):
    out = good(problem).run()
    return Prepared(lambda: out, masked=True)

def late_vandal(problem):
    real, calls = good(problem), []
    def run():
        calls.append(1)
        if len(calls) == 9:
            problem.x.mul_(1.01)
        return real.run()
    return Prepared(run, masked=True)

def breaks(problem):
    raise RuntimeError("no licence")

NAMES = ("unsupported", "wrong", "remembers", "late_vandal", "breaks")
for _name in NAMES:
    globals()["rival_" + _name] = SimpleNamespace(prepare=globals()[_name])
"""
NAMES = ("unsupported", "wrong", "remembers", "late_vandal", "breaks")
# stands in for CUDA's events in a run on a CPU: each mark lies 1 ms after the one before
FAKE = """
import bench.conftest
from bench.device_timer import DeviceTimer

class Ticking:
    now, flushes = 0.0, 0
    def mark(self):
        Ticking.now += 1e-3
        return Ticking.now
    def reached(self, mark): return False
    def seconds(self, first, last): return last - first
    def spin(self, seconds): Ticking.now += 0.5
    def flush(self): Ticking.flushes += 1

bench.conftest.Bench.timer = lambda self: DeviceTimer(Ticking())
bench.conftest.SPIN_S = 0.0

def pytest_sessionfinish():
    print("flushes:", Ticking.flushes)
"""


def run_pytest(folder, *words, paths=(), **env):
    settings = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT])),
        "CUDA_VISIBLE_DEVICES": "",
        "PYTEST_ADDOPTS": f"--benchmark-storage=file://{folder / 'storage'} -p no:cacheprovider",
        **env,
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", *map(str, words)],
        cwd=ROOT, env=settings, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """One case by ours, by dense and by five that misbehave."""
    folder = tmp_path_factory.mktemp("session")
    info = folder / "rivals-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rivals\nVersion: 1.0\n")
    points = "\n".join(f"{n} = rivals:rival_{n}" for n in NAMES)
    (info / "entry_points.txt").write_text(f"[hrbp.impls]\n{points}\n")
    (folder / "rivals.py").write_text(RIVALS)
    out = folder / "out.json"
    told = run_pytest(
        folder, "bench", "--benchmark-only", "-k", CASE, "-rA", f"--benchmark-json={out}",
        paths=[folder], HRBP_BENCH_IMPLS=",".join(("dense", *NAMES, "block_sparse")),
    )  # fmt: skip
    return SimpleNamespace(told=told, json=json.loads(out.read_text()))


def cell_of(impl):
    (case,) = (
        c for c in cases(Sweep("quick", "cpu"))[0]
        if test_quick.key_of(c) == "conv5_3x3-fprop-0.125-32x32"
    )  # fmt: skip
    return Cell(case, impl, "hot")


def test_right_answers_are_timed_and_named_as_in_an_export(session):
    found = {b["params"]["impl"]: b for b in session.json["benchmarks"]}
    assert set(found) == {"dense", "block_sparse"}, session.told.stdout
    for impl, benchmark in found.items():
        facts, stats = benchmark["extra_info"], benchmark["stats"]
        assert facts["cell_id"] == cell_of(impl).cell_id
        assert benchmark["fullname"].endswith(facts["cell_id"])
        assert benchmark["name"] == f"conv5_3x3[fprop-0.125-32x32-float32-{impl}-hot]"
        assert benchmark["group"].endswith(cell_of(impl).case_id)
        assert facts["errors"]["worst_over_bound"] <= 1
        assert facts["detail"]["warm_up_rounds"] >= 10
        assert stats["rounds"] == len(stats["data"]) >= 30
        assert stats["min"] > 0
        assert benchmark["options"]["disable_gc"] is True
        assert benchmark["options"]["timer"] == "perf_counter"
    assert session.json["machine_info"]["hrbp"]["device"] == "cpu"


def test_wrong_answers_fail_and_leave_no_time(session):
    gaps = {g["impl"]: g for g in session.json["hrbp_not_measured"]}
    assert set(gaps) == set(NAMES)
    reasons = {
        "unsupported": ("skipped", "no kernel for it"),
        "wrong": ("wrong", "before timing: error"),
        "remembers": ("wrong", "a timed output: error"),
        "late_vandal": ("wrong", "changed its input x"),
        "breaks": ("crashed", "RuntimeError: no licence"),
    }
    for name, (status, reason) in reasons.items():
        assert gaps[name]["status"] == status
        assert gaps[name]["reason"].startswith(reason)
        assert gaps[name]["cell_id"] == cell_of(name).cell_id
    told = session.told
    assert told.returncode == 1
    assert "4 failed, 2 passed, 1 skipped" in told.stdout
    assert "SKIPPED [1]" in told.stdout
    assert "no kernel for it" in told.stdout
    assert ": 2 tests -" in told.stdout  # the table has no line for a time that was withdrawn


def test_the_device_timer_is_the_one_that_is_read(tmp_path):
    (tmp_path / "ticking.py").write_text(FAKE)
    out = tmp_path / "out.json"
    told = run_pytest(
        tmp_path, "bench", "-p", "ticking", "-s", "-k", "conv2_3x3 and fprop",
        f"--benchmark-json={out}",
        paths=[tmp_path], HRBP_BENCH_IMPLS="block_sparse",
    )  # fmt: skip
    assert told.returncode == 0, told.stdout
    (benchmark,) = json.loads(out.read_text())["benchmarks"]
    assert benchmark["stats"]["data"] == pytest.approx([1e-3] * benchmark["stats"]["rounds"])
    assert benchmark["options"]["timer"] == "device events"
    detail = benchmark["extra_info"]["detail"]
    assert detail["late_rounds"] == 0
    assert f"flushes: {benchmark['stats']['rounds'] + detail['warm_up_rounds']}\n" in told.stdout


def test_each_test_is_a_case_and_an_implementation(tmp_path):
    code = (
        "import pytest, sys\n"
        "code = pytest.main(['bench', '--collect-only', '-q'])\n"
        "assert 'torch' not in sys.modules\n"
        "sys.exit(code)"
    )
    told = run_code(code)
    ids = [line.partition("::")[2] for line in told.stdout.splitlines() if "::" in line]
    assert told.returncode == 0, told.stdout
    assert len(ids) == len(set(ids)) == 96
    assert ids[:2] == [
        f"test_quick[conv2_3x3-fprop-0.5-16x16-{impl}]" for impl in ("dense", "masked_dense")
    ]
    assert run_code("import pytest, sys; pytest.main(['bench', '--help'])\n"
                    "assert 'torch' not in sys.modules").returncode == 0  # fmt: skip


def run_code(code):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("names", ["dense,none", " , "])
def test_unknown_implementations_are_refused(monkeypatch, names):
    monkeypatch.setenv("HRBP_BENCH_IMPLS", names)
    with pytest.raises(pytest.UsageError, match="HRBP_BENCH_IMPLS: expected"):
        test_quick.impl_names()


def test_names_are_asked_once_each(monkeypatch):
    monkeypatch.setenv("HRBP_BENCH_IMPLS", "csr, dense,csr,")
    assert test_quick.impl_names() == ["csr", "dense"]


def test_the_suite_is_only_run_by_name(pytestconfig):
    assert pytestconfig.getini("testpaths") == ["tests"]
    assert not list((ROOT / "tests").rglob("test_quick.py"))
