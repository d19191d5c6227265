"""Attainment, ceilings, amortisation and break-even: hand-computed, and as the report says them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from bench import summary, table
from bench.breakeven import ANSWERS
from bench.records import Status
from bench.store import Results, StoreError
from reports import build_report, style
from tests import synthetic_results as synthetic

E = synthetic.ENVIRONMENT.environment_id
RATE = 200e9
ANSWER = {
    "schema": 1, "search_id": "a", "layer": "conv4_3x3", "block": 32, "pass": "all",
    "dtype": "float32", "device": "cpu", "impl": "block_sparse", "batch": 8, "mode": "hot",
    "environment": E, "device_name": "SYNTHETIC", "answer": "found", "sparsity": 0.412,
    "low": 0.375, "high": 0.4375, "monotone": True,
    "points": [{"blocks": 8, "sparsity": 0.875, "dense_s": 1.0, "impl_s": 0.3, "speedup": 3.33,
                "low": 3.2, "high": 3.4}],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _coarse_pictures(monkeypatch):
    monkeypatch.setattr(style, "PNG_DPI", 50)


def sweep(rate=RATE, mode="hot", prep_s=0.01):
    """The made-up sweep with ceilings stored, as a run does it."""
    found = []
    for m in synthetic.sweep():
        case = m.cell.case
        masked = m.cell.impl in ("gather_grouped", "block_sparse")
        flops = case.shape.flops(case.stored_weights) if masked else case.shape.flops()
        ceilings = {"flops_per_s": rate, "bytes_per_s": 2e10, "cache_bytes": 2**20}
        cell = replace(m.cell, mode=mode)
        detail = m.detail | {"flops": flops, "ceilings": ceilings}
        ok = m.status is Status.OK
        found.append(
            replace(m, cell=cell, detail=detail if ok else {}, prep_s=prep_s if ok else None)
        )
    return found


def rows(measurements):
    return table.rows(Results(measurements, {E: synthetic.ENVIRONMENT}, [], synthetic.__file__))


def test_attainment_by_hand() -> None:
    found = summary.attainments(rows(sweep()))
    ours = found[(found["impl"] == "block_sparse") & (found["pass"] == "fprop")].iloc[0]
    values = []
    for m in sweep():
        if (m.cell.impl, m.cell.case.conv_pass) == ("block_sparse", "fprop"):
            flops = m.cell.case.shape.flops(m.cell.case.stored_weights)
            values.append(flops / RATE / sorted(m.samples_s)[len(m.samples_s) // 2])
    assert ours["attainment"] == pytest.approx(math.prod(values) ** (1 / len(values)))
    assert (ours["least"], ours["most"]) == pytest.approx((min(values), max(values)))
    assert (ours["cells"], ours["without"]) == (8, 0)


def test_host_mode_has_no_floor() -> None:
    found = summary.attainments(rows(sweep(mode="host")))
    assert set(found["cells"]) == {0}
    assert found["without"].sum() == 95, "the one that crashed is no timed cell"
    assert found["attainment"].isna().all()


def test_ceilings_are_those_of_the_cells() -> None:
    measurements = sweep()
    first = measurements[0]
    risen = {"flops_per_s": 210e9, "bytes_per_s": 2e10, "cache_bytes": 2**20}
    measurements[0] = replace(first, detail=first.detail | {"ceilings": risen})
    (row,) = summary.ceilings(rows(measurements)).to_dict("records")
    assert (row["flops_per_s"], row["flops_least"], row["bytes_per_s"]) == (210e9, RATE, 2e10)
    assert row["cells"] == 95


def test_preparing_pays_by_hand() -> None:
    table_rows = rows(sweep(prep_s=0.02))
    found = summary.paying(table_rows).set_index("impl")
    assert "dense" not in found.index
    ours = table_rows[table_rows["impl"] == "block_sparse"]
    calls = sorted(
        0.02 / (d - t) for d, t in zip(ours["dense_s"], ours["median_s"], strict=True) if t < d
    )
    half = len(calls) // 2
    middle = calls[half] if len(calls) % 2 else (calls[half - 1] + calls[half]) / 2
    row = found.loc["block_sparse"]
    assert row["calls_to_pay"] == pytest.approx(middle)
    assert row["calls_most"] == pytest.approx(calls[-1])
    assert (row["cells"], row["never"]) == (24, 24 - len(calls))
    assert found.loc["masked_dense"]["never"] == 24
    assert found["calls_to_pay"].isna()["masked_dense"]


def report_of(folder, measurements=None, answers=None):
    synthetic.write(folder, measurements)
    if answers is not None:
        (folder / ANSWERS).write_text("".join(f"{json.dumps(a)}\n" for a in answers))
    return build_report(folder).markdown.read_text(encoding="utf-8")


def test_the_report_says_how_near_to_the_limit(tmp_path) -> None:
    text = report_of(tmp_path, sweep())
    assert "## How near to the limit" in text
    assert "matrix rate 200 GFLOP/s; copy, read and written bytes counted 20 GB/s" in text
    assert "| masked" in text.replace("\\", "")
    assert "0 of 24" in text
    assert "Break-even sparsity by search: none was made here" in text


def test_the_report_without_a_ceiling_or_a_time(tmp_path) -> None:
    text = report_of(tmp_path / "a", synthetic.sweep())
    assert "matrix rate not known" in text
    nothing = [
        replace(m, status=Status.OOM, reason="no memory", samples_s=(), flags=())
        for m in synthetic.sweep()
    ]
    text = report_of(tmp_path / "b", nothing)
    assert "No cell was timed, so there is nothing to hold against a limit." in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "41.2 % (37.5 % to 43.75 %)"),
        ({"monotone": False}, "(37.5 % to 43.75 %), points contradict each other"),
        ({"answer": "never", "sparsity": None}, "never: 3.33× at 87.5 % (3.20 to 3.40)"),
        ({"answer": "always", "sparsity": None}, "always: 3.33× at 87.5 %"),
    ],
)
def test_a_break_even_is_told(tmp_path, changes, told) -> None:
    text = report_of(tmp_path, None, [ANSWER | changes])
    assert "## Break-even" in text
    assert "conv4_3x3, block 32, N 8" in text.replace("\\", "")
    assert told in text.replace("\\", "")


def test_a_torn_answer_is_noted_and_a_newer_one_refused(tmp_path) -> None:
    report_of(tmp_path, None, [ANSWER])
    path = tmp_path / ANSWERS
    path.write_text(path.read_text() + '{"schema": 1, "la')
    text = build_report(tmp_path).markdown.read_text(encoding="utf-8")
    assert "breakeven.jsonl, a torn last line" in text
    assert "41.2 %" in text
    path.write_text(json.dumps(ANSWER | {"schema": 99}) + "\n")
    with pytest.raises(StoreError, match="expected schema 1, got 99"):
        build_report(tmp_path)
