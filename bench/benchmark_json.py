"""Measurements in pytest-benchmark's words: names, facts, the whole document. Floor 1: no torch.

``python -m bench export`` and ``pytest bench`` share them, so their files can be compared.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from bench.records import Cell, Environment, Measurement, Status
from bench.store import Results
from bench.table import block_text, pattern_text, shape_text

if TYPE_CHECKING:
    from pytest_benchmark.stats import Metadata

NOT_MEASURED = "hrbp_not_measured"
IN_NAME = ("pass", "density", "block", "dtype", "impl", "mode")
OVERFLOW = "its statistics are beyond the range of a float"


def labels(cell: Cell) -> dict[str, Any]:
    """Return pytest-benchmark's names of a cell: name, fullname, group, param, params.

    ``name`` is for people; ``fullname`` ends with the cell id, so that one cell has one in every
    file, and two have two. ``group`` is the case, so that its implementations stand together.
    """
    case, recipe = cell.case, cell.case.recipe
    params = {
        "layer": case.layer,
        "pass": str(case.conv_pass),
        "density": recipe.density,
        "block": block_text(recipe.block),
        "dtype": case.dtype,
        "impl": cell.impl,
        "mode": cell.mode,
        "batch": case.shape.N,
    }
    words = {k: _plain(f"{v:g}" if k == "density" else str(v)) for k, v in params.items()}
    param = "-".join(words[key] for key in IN_NAME)
    name = f"{words['layer']}[{param}]"
    group = " ".join(words[key] for key in ("layer", *IN_NAME) if key != "impl")
    return {
        "name": name,
        "fullname": f"{_plain(case.suite)}/{name}/{cell.cell_id}",
        "group": f"{group} {cell.case_id}",
        "param": param,
        "params": params,
    }


def cell_facts(measurement: Measurement) -> dict[str, Any]:
    """Return a cell's facts for ``extra_info``; absent ones are None."""
    cell, case = measurement.cell, measurement.cell.case
    return {
        "cell_id": cell.cell_id,
        "case_id": cell.case_id,
        "environment": measurement.environment,
        "suite": case.suite,
        "shape": shape_text(case.shape),
        "device": case.device,
        "layout": case.layout,
        "pattern": pattern_text(case.recipe),
        "recipe_seed": case.recipe.seed,
        "stored_weights": case.stored_weights,
        "real_density": case.stored_weights / math.prod(case.shape.filter_shape),
        "status": str(measurement.status),
        "flags": [str(f) for f in measurement.flags],
        "errors": measurement.errors or None,
        "prep_s": measurement.prep_s,
        "peak_bytes": measurement.detail.get("peak_bytes"),
        "detail": measurement.detail,
    }


def gap(cell: Cell, status: str, reason: str | None) -> dict[str, Any]:
    """Return the line of :data:`NOT_MEASURED` for a cell without a time."""
    named = labels(cell)
    ids = {"cell_id": cell.cell_id, "case_id": cell.case_id, "impl": cell.impl}
    names = {key: named[key] for key in ("name", "fullname", "group")}
    return {**ids, **names, "status": status, "reason": reason}


def machine_facts(environment: Environment) -> dict[str, Any]:
    """Return what stands under "hrbp" in ``machine_info``: all but commit and schema.

    pytest-benchmark warns where two machines differ, and another commit is no other machine.
    """
    facts = asdict(environment)
    return {name: facts[name] for name in facts if name not in ("commit", "dirty", "schema")}


def to_document(results: Results, environment: str) -> dict[str, Any]:
    """Return one environment's cells as the installed pytest-benchmark stores benchmarks.

    Cells that are not ok have no times there; :data:`NOT_MEASURED` lists them with the reason,
    under a key of its own that pytest-benchmark passes over.

    Raises:
        ImportError: pytest-benchmark is not installed.
    """
    try:
        from pytest_benchmark.plugin import pytest_benchmark_generate_json as document_of
    except ImportError as error:
        raise ImportError(f"expected pytest-benchmark to be installed, got: {error}") from error
    benchmarks, gaps = [], []
    for measurement in (m for m in results.measurements if m.environment == environment):
        status = measurement.status
        if status is not Status.OK:
            gaps.append(gap(measurement.cell, str(status), measurement.reason))
        elif (found := _benchmark(measurement)) is not None:
            benchmarks.append(found)
        else:
            gaps.append(gap(measurement.cell, str(status), OVERFLOW))
    facts = results.environments[environment]
    document: dict[str, Any] = document_of(
        config=None,
        benchmarks=benchmarks,
        include_data=True,
        machine_info=_machine_info(facts),
        commit_info=_commit_info(facts),
    )
    return document | {NOT_MEASURED: gaps}


def _plain(text: str) -> str:
    """Return text for one line of a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _benchmark(measurement: Measurement) -> Metadata | None:
    """Return the cell as pytest-benchmark knows it; None where a statistic overflows.

    Samples are seconds a call already; ``iterations`` says how many calls each is the mean of.
    """
    from pytest_benchmark.stats import Metadata

    fixture = SimpleNamespace(
        **labels(measurement.cell),
        extra_info=cell_facts(measurement),
        cprofile_stats=None,
        has_error=False,
    )
    repeats = measurement.detail.get("repeats")
    iterations = repeats if isinstance(repeats, int) and repeats >= 1 else 1
    found = Metadata(fixture, iterations=iterations, options={})
    for sample in measurement.samples_s:
        found.stats.update(sample)
    try:
        numbers = [v for v in found.stats.as_dict().values() if not isinstance(v, str)]
    except OverflowError:
        return None
    return found if all(math.isfinite(v) for v in numbers) else None


def _machine_info(facts: Environment) -> dict[str, Any]:
    """Return pytest-benchmark's own keys as far as the store knows them, and ours."""
    system, _, machine = facts.platform.partition(" ")
    return {
        "node": None,  # a host's name is never stored
        "system": system,
        "machine": machine or None,
        "processor": facts.cpu,
        "cpu": {"brand_raw": facts.cpu},
        "python_version": facts.python,
        "hrbp": machine_facts(facts),
    }


def _commit_info(facts: Environment) -> dict[str, Any]:
    return {
        "id": facts.commit or "unversioned",  # pytest-benchmark's word for none
        "time": None,
        "author_time": None,
        "dirty": facts.dirty,
        "project": "hrbp",
        "branch": "(unknown)",
    }
