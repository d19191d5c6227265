"""`pytest-benchmark compare` opens what we export."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

from bench import benchmark_json, export
from tests import synthetic_results as synthetic

ROOT = Path(__file__).parent.parent
WITHOUT_HYPOTHESIS = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "hypothesis":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
from pytest_benchmark.cli import main
sys.argv[1:1] = ["compare"]
main()
"""


def compare(cwd, *words):
    return subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", *map(str, words)],
        cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_exports_compare_in_the_checkout_without_the_extra_test(tmp_path):
    """Where run_all.sh's .venv is: pytest-benchmark loads tests/conftest.py there."""
    synthetic.write(tmp_path, synthetic.sweep())
    export.export(tmp_path, "pytest-benchmark")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_HYPOTHESIS, str(tmp_path / "benchmark.json")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "block_sparse" in done.stdout


def test_two_exports_compare_cell_by_cell(tmp_path):
    for name, factor in (("a", 1), ("b", 2)):
        made = [
            dataclasses.replace(m, samples_s=tuple(s * factor for s in m.samples_s))
            for m in synthetic.sweep()
        ]
        synthetic.write(tmp_path / name, made)
    paths = [export.export(tmp_path / name, "pytest-benchmark").path for name in "ab"]
    told = compare(tmp_path, *paths)
    assert told.returncode == 0, told.stderr
    assert "Failed to load" not in told.stderr
    assert told.stdout.count(": 8 tests") == 23  # one case has lost an implementation
    assert told.stdout.count(": 6 tests") == 1
    between = compare(tmp_path, *paths, "--between", "median", "-k", "conv3_1 and fprop")
    assert between.stdout.count("+100.0%") == 12
    assert "2 sources" in between.stdout


def test_the_names_of_a_sweep_are_unique_and_a_group_is_a_case(tmp_path):
    named = [(c, benchmark_json.labels(c)) for c in synthetic.cells()]
    again = dataclasses.replace(named[0][0].case, layout="standalone")
    twin = dataclasses.replace(named[0][0], case=again)
    named.append((twin, benchmark_json.labels(twin)))
    assert len({label["fullname"] for _, label in named}) == len(named) == 97
    assert len({label["group"] for _, label in named}) == len({c.case_id for c, _ in named}) == 25
