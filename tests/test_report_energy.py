"""Joules in a report: which are there, which way they point, and what is said of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from bench.records import Measurement
from reports import data
from reports.energy import energy_blocks
from reports.parts import Block, Paragraph, Table
from reports.picture import Picture
from tests import step_samples
from tests import synthetic_results as synthetic

E = synthetic.ENVIRONMENT.environment_id


def blocks(folder: Path) -> list[Block]:
    return list(energy_blocks(data.load(folder)))


def with_joules(joules: dict[str, float]) -> list[Measurement]:
    """Return one case of all three passes whose calls took these joules by implementation."""
    stored = [synthetic.measure(cell, E) for cell in synthetic.cells()[:12]]
    return [
        replace(m, detail=m.detail | {"energy": {"counter_net_j": joules[m.cell.impl]}})
        if m.cell.impl in joules
        else m
        for m in stored
    ]


def test_a_call_is_held_against_denses(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path, with_joules({"dense": 3.0, "block_sparse": 1.5}))
    picture, table, note = blocks(folder)
    assert isinstance(picture, Picture)
    assert picture.caption.startswith("3 of 3 take fewer joules than dense; dense over ours: most ")
    assert "python -m bench run " in picture.caption
    assert " --energy. Drawn by" in picture.caption
    assert isinstance(table, Table)
    assert [row[1:] for row in table.rows] == [("3", "1.5", "2.00×")] * 3
    assert isinstance(note, Paragraph)


def test_more_joules_than_dense_are_told_as_such(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path, with_joules({"dense": 1.0, "block_sparse": 4.0}))
    picture = blocks(folder)[0]
    assert isinstance(picture, Picture)
    assert picture.caption.startswith("0 of 3 take fewer joules than dense; dense over ours: most")
    assert "0.25×" in picture.caption


def test_without_denses_joules_or_any_there_is_no_figure(tmp_path: Path) -> None:
    alone = synthetic.write(tmp_path / "alone", with_joules({"block_sparse": 1.0}))
    assert [type(block) for block in blocks(alone)] == [Paragraph]
    assert blocks(synthetic.write(tmp_path / "none", with_joules({}))) == []


def test_a_step_has_its_own(tmp_path: Path) -> None:
    sides = {"dense": {"counter_net_j": 6.0}, "sparse": {"power_net_j": 2.0}}
    lines = [step_samples.line(E, energy=sides), step_samples.line(E, "two", model="resnet50")]
    synthetic.write(tmp_path)
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    picture, table, _ = blocks(tmp_path)
    assert isinstance(picture, Picture)
    assert picture.caption.startswith("1 of 1 take fewer joules than dense; dense over ours: most")
    assert isinstance(table, Table)
    (row,) = table.rows
    assert row[1:] == ("6", "2", "3.00×")
