"""bench.records: ids, JSON there and back, and records that must be refused."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from bench.records import (
    SCHEMA,
    Case,
    Cell,
    Environment,
    Flag,
    Measurement,
    Recipe,
    RecordError,
    Status,
    digest,
)
from hrbp_core.shapes import ConvShape, Pass
from tests.store_samples import ENVIRONMENT

CASE = Case(
    suite="test",
    layer="conv2",
    shape=ConvShape(N=2, C=16, H=8, W=8, K=32, R=3, S=3, padding=(1, 1)),
    dtype="float32",
    device="cpu",
    conv_pass=Pass.FPROP,
    recipe=Recipe("random", 0.25, (4, 8)),
    entries=12,
)
CELL = Cell(CASE, "block_sparse", "cold")


def measurement(**changes: Any) -> Measurement:
    fields: dict[str, Any] = {
        "cell": CELL,
        "environment": ENVIRONMENT.environment_id,
        "status": Status.OK,
        "samples_s": (1e-3, 2e-3),
        "errors": {"max_abs": 1e-7},
        "flags": (Flag.NOISY,),
        "prep_s": 0.5,
        "detail": {"variant": "rows"},
    }
    return Measurement(**{**fields, **changes})


def stored(**changes: Any) -> dict[str, Any]:
    return {**measurement().to_dict(), **changes}


def test_digest_is_sha256_of_canonical_json() -> None:
    # sha256sum of the 26 bytes {"a":1.5,"b":[1,"x",null]}
    assert digest({"b": [1, "x", None], "a": 1.5}) == "05ad1ee0fbcce3e3"


def test_digest_refuses_what_json_cannot_hold() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest({"a": math.nan})


def test_ids_are_those_of_stored_results() -> None:
    # sha256sum of the canonical JSON written by hand; a change orphans every stored result
    assert CELL.cell_id == "839568c1188f0651"
    assert CELL.case_id == "03b55d240aeffe24"


def test_case_id_leaves_out_the_implementation_and_nothing_else() -> None:
    other = dataclasses.replace(CELL, impl="dense")
    assert other.case_id == CELL.case_id
    assert other.cell_id != CELL.cell_id
    assert dataclasses.replace(CELL, mode="hot").case_id != CELL.case_id


@pytest.mark.parametrize(
    "change",
    [
        {"suite": "other"},
        {"layer": "conv3"},
        {"shape": dataclasses.replace(CASE.shape, N=4)},
        {"dtype": "bfloat16"},
        {"device": "cuda"},
        {"conv_pass": Pass.WGRAD},
        {"recipe": dataclasses.replace(CASE.recipe, seed=1)},
        {"recipe": dataclasses.replace(CASE.recipe, block=(8, 4))},
        {"entries": 13},
        {"layout": "standalone"},
    ],
    ids=str,
)
def test_every_fact_of_a_case_counts_in_both_ids(change: dict[str, Any]) -> None:
    other = Cell(dataclasses.replace(CASE, **change), CELL.impl, CELL.mode)
    assert other.cell_id != CELL.cell_id
    assert other.case_id != CELL.case_id


def test_stored_weights_count_whole_blocks() -> None:
    assert CASE.stored_weights == 12 * 4 * 8


def test_cell_survives_json() -> None:
    assert Cell.from_dict(json.loads(json.dumps(CELL.to_dict()))) == CELL


def test_measurement_survives_json() -> None:
    data = json.loads(json.dumps(measurement().to_dict()))
    assert Measurement.from_dict(data) == measurement()
    assert data["schema"] == SCHEMA
    assert (data["cell_id"], data["case_id"]) == (CELL.cell_id, CELL.case_id)
    assert (data["impl"], data["status"], data["reason"]) == ("block_sparse", "ok", None)
    assert data["samples_s"] == [1e-3, 2e-3]
    assert data["flags"] == ["noisy"]


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.OK])
def test_failures_survive_json_with_their_reason(status: Status) -> None:
    failed = measurement(status=status, reason="because", samples_s=(), prep_s=None)
    assert Measurement.from_dict(json.loads(json.dumps(failed.to_dict()))) == failed


@pytest.mark.parametrize(
    "change",
    [
        {"samples_s": ()},
        {"reason": "but ok"},
        {"samples_s": (1e-3, 0.0)},
        {"samples_s": (1e-3, -1e-3)},
        {"samples_s": (math.inf,)},
        {"samples_s": (math.nan,)},
        {"status": Status.SKIPPED, "samples_s": ()},
        {"status": Status.SKIPPED, "samples_s": (), "reason": ""},
        *(
            {"status": s, "reason": "because"}
            for s in Status
            if s not in (Status.OK, Status.IMPOSSIBLE)
        ),
    ],
    ids=str,
)
def test_fields_that_contradict_the_status_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        measurement(**change)


def test_an_impossible_time_keeps_its_samples() -> None:
    kept = measurement(status=Status.IMPOSSIBLE, reason="under 0.95 of the floor")
    assert kept.samples_s == (1e-3, 2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "expected schema 1, got 2"),
        ({"schema": None}, "expected schema 1, got None"),
        ({"status": "fine"}, "'fine' is not a valid Status"),
        ({"flags": ["odd"]}, "'odd' is not a valid Flag"),
        ({"samples_s": ["fast"]}, "expected a measurement of schema 1"),
        ({"samples_s": []}, "expected samples"),
        ({"cell": {}}, "expected a cell of schema 1, got KeyError"),
        ({"cell_id": "0" * 16}, f"expected cell_id {CELL.cell_id}, got '0000000000000000'"),
    ],
    ids=str,
)
def test_broken_records_are_refused_in_words(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError, match="expected") as caught:
        Measurement.from_dict(stored(**change))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["status", "samples_s", "cell", "environment", "flags", "prep_s"])
def test_a_missing_field_is_refused(name: str) -> None:
    data = stored()
    del data[name]
    with pytest.raises(RecordError, match=name):
        Measurement.from_dict(data)


@pytest.mark.parametrize(
    "cell",
    [None, 3, [], "cell", {"case": 3}, {"case": {"recipe": 3}}],
    ids=str,
)
def test_a_cell_of_other_types_is_refused(cell: Any) -> None:
    with pytest.raises(RecordError, match="expected a cell of schema 1"):
        Measurement.from_dict(stored(cell=cell))


def test_a_shape_of_another_type_is_refused() -> None:
    cell = CELL.to_dict()
    cell["case"]["shape"] = [1, 2, 3]
    with pytest.raises(RecordError, match="expected a cell of schema 1"):
        Cell.from_dict(cell)


def test_an_unknown_field_of_a_cell_is_refused() -> None:
    cell = CELL.to_dict()
    cell["case"]["colour"] = "red"
    with pytest.raises(RecordError, match="colour"):
        Cell.from_dict(cell)


def test_environment_survives_json_and_keeps_its_id() -> None:
    facts = json.loads(json.dumps(dataclasses.asdict(ENVIRONMENT)))
    assert Environment.from_dict(facts) == ENVIRONMENT
    assert digest(facts) == ENVIRONMENT.environment_id
    assert "HARD" not in facts


def test_environment_refuses_unknown_and_missing_facts() -> None:
    facts = dataclasses.asdict(ENVIRONMENT)
    with pytest.raises(RecordError, match="host_name"):
        Environment.from_dict({**facts, "host_name": "x"})
    del facts["threads"]
    with pytest.raises(RecordError, match="threads"):
        Environment.from_dict(facts)


def test_hard_and_soft_facts() -> None:
    assert set(ENVIRONMENT.hard) == {
        "device", "device_name", "capability", "sm_count", "memory_gib",
        "mig", "ecc", "power_limit_w", "clock_mode", "schema",
    }  # fmt: skip
    assert set(ENVIRONMENT.soft) == {
        "driver", "cuda", "cudnn", "torch", "triton", "cpu", "threads",
    }  # fmt: skip
    assert ENVIRONMENT.soft["torch"] == "2.13.0"
    assert not set(ENVIRONMENT.hard) & set(ENVIRONMENT.soft)
