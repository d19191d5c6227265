"""A run that is killed goes on where it was: the checker can fail, and the run does not."""

from __future__ import annotations

import json
import random

import pytest

from bench.store import Store
from tests import killed
from tests.store_samples import ENVIRONMENT, NAME, measurement


def test_two_kills_lose_nothing(tmp_path) -> None:
    class Growth(random.Random):
        """The first kill right after the store grew, the second while it starts up."""

        drawn = [0.9, 0.1, 3.0]

        def random(self):
            return self.drawn.pop(0)

        def uniform(self, low, high):
            return self.drawn.pop(0)

    tally = killed.campaign(2, tmp_path, isolate=True, rng=Growth())
    assert (tally.kills, tally.folders) == (2, 1)
    assert tally.after_growth == 1
    assert tally.cells == len(killed.wanted()) == 12


@pytest.fixture
def stored(tmp_path):
    with Store(tmp_path) as store:
        store.add_environment(ENVIRONMENT)
        store.append_many([measurement(1), measurement(2)])
    return tmp_path


def test_the_checker_sees_a_cell_that_is_lost(stored) -> None:
    path = stored / "results.jsonl"
    before = killed.whole_lines(stored, b"")
    assert before.count(b"\n") == 2
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1])
    with pytest.raises(killed.Lost, match="bytes stored before, got others"):
        killed.whole_lines(stored, before)
    with pytest.raises(killed.Lost, match="12 missing and 1 others"):
        killed.check_whole(stored)


def test_the_checker_sees_a_cell_that_is_there_twice(stored) -> None:
    path = stored / "results.jsonl"
    first = path.read_bytes().split(b"\n", 1)[0]
    path.write_bytes(path.read_bytes() + first + b"\n")
    with pytest.raises(killed.Lost, match=r"each cell once, got \w+ 2 times"):
        killed.whole_lines(stored, b"")


def test_the_checker_sees_a_broken_line_but_waits_for_a_torn_one(stored) -> None:
    path = stored / "results.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"torn')
    assert killed.whole_lines(stored, whole) == whole
    path.write_bytes(b'{"torn\n' + whole)
    with pytest.raises(killed.Lost, match="whole lines"):
        killed.whole_lines(stored, b"")


def test_the_stored_lines_are_read_by_their_keys(stored) -> None:
    lines = [json.loads(line) for line in (stored / "results.jsonl").read_text().splitlines()]
    assert {line["environment"] for line in lines} == {NAME}
