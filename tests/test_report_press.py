"""The second process that sets the PDF."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import FigureBase

from reports import press, style
from reports.content import Section, sections
from reports.data import load
from reports.document import write_pdf
from reports.parts import Paragraph
from reports.picture import Picture
from reports.press import Press
from tests import synthetic_results as synthetic

E = synthetic.ENVIRONMENT.environment_id


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(press, "_cores", lambda: 2)


def fails(figure: FigureBase) -> None:
    raise ValueError("made to fail")


def takes_long(figure: FigureBase) -> None:
    time.sleep(15)


def failing(pictures: int, draw: Callable[[FigureBase], None] = fails) -> list[Section]:
    block = Picture("one", "One", "A caption.", 1.0, draw)
    return [Section("Findings", (Paragraph("text"), *[block] * pictures))]


def test_both_ways_give_the_same_bytes(two_cores: None, tmp_path: Path) -> None:
    parts = sections(load(synthetic.write(tmp_path, synthetic.sweep(), synthetic.training_runs(E))))
    here = io.BytesIO()
    with Press() as there, style.look():
        there.take(parts)
        assert there.child is not None
        write_pdf(here, parts)
        there.write(tmp_path / "there.pdf")
    assert (tmp_path / "there.pdf").read_bytes() == here.getvalue()


def test_few_pictures_are_set_here(two_cores: None, tmp_path: Path) -> None:
    with Press() as here, style.look():
        here.take([Section("Findings", (Paragraph("text"),))])
        assert here.child is None
        here.write(tmp_path / "here.pdf")
    assert (tmp_path / "here.pdf").read_bytes().startswith(b"%PDF")


def test_one_core_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(press, "_cores", lambda: 1)
    with Press() as here:
        here.start()
        here.take(failing(press.LEAST_PICTURES))
        assert here.child is None


def test_a_failure_there_is_told_here_and_writes_nothing(two_cores: None, tmp_path: Path) -> None:
    with Press() as there:
        there.take(failing(press.LEAST_PICTURES))
        with pytest.raises(RuntimeError, match=r"(?s)expected a PDF, got: .*made to fail"):
            there.write(tmp_path / "there.pdf")
    assert not (tmp_path / "there.pdf").exists()


def test_a_failure_here_ends_the_process_at_once(two_cores: None) -> None:
    there = Press()

    def stopped() -> None:
        with there:
            there.take(failing(press.LEAST_PICTURES, takes_long))
            time.sleep(8)  # it has loaded, and draws
            raise KeyError

    start = time.monotonic()

    with pytest.raises(KeyError):
        stopped()
    assert there.child is not None
    assert there.child.returncode is not None
    assert time.monotonic() - start < 40
