"""Runs trained at once are those trained alone; what cannot be done beside others is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from bench.accuracy import beside, command, data, one_run, run, runs
from bench.accuracy.beside import Memory, places, room, threads_of
from bench.accuracy.place import Place
from bench.accuracy.ranks import ALONE, Team
from tests.accuracy_samples import TINY, few, one_thread

__all__ = ["few", "one_thread"]  # fixtures: pytest finds them by name

PLAN = replace(TINY, arms=("dense", "unstructured:rigl"), epochs=2, dst_every=1)
UNTIMED = ("step", "train_s")


@pytest.fixture
def quick(few, monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_, **__: few)


def untimed(lines):
    return [{k: v for k, v in line.items() if k not in UNTIMED} for line in lines]


def test_runs_beside_each_other_end_as_those_alone(tmp_path, quick):
    calls = []
    alone = run(PLAN, tmp_path / "alone", environment_id="here")
    both = run(
        PLAN, tmp_path / "both", environment_id="here", beside=2,
        progress=lambda *a: calls.append(a),
    )  # fmt: skip
    assert untimed(both) == untimed(alone)
    assert all(line["recipe"]["threads"] == 1 for line in both)
    assert len(both[1]["step"]["sparse_s"]) == 15
    stored = (tmp_path / "both" / "accuracy.jsonl").read_text().splitlines()
    assert sorted(stored) == sorted(json.dumps(line) for line in both)
    assert [(done, total) for done, total, _ in calls] == [(1, 2), (2, 2)]
    assert not (tmp_path / "both" / "checkpoints").exists()
    # stored: no process is started
    assert run(PLAN, tmp_path / "both", environment_id="here", beside=None) == both


class Crowd:
    """A pool without processes: its results are given."""

    def __init__(self, results, shared):
        self.places, self._results, self.shared = 1, list(results), shared

    def again(self, job):
        self.shared = False
        self._results.append((job, ({"status": "oom", "try": 2}, None)))

    def results(self):
        while self._results:
            yield self._results.pop(0)


@pytest.mark.parametrize("shared", [True, False])
def test_memory_that_was_short_beside_others_is_tried_alone(shared, few, tmp_path, monkeypatch):
    job = beside.Job(PLAN.runs()[0], "x")
    crowd = Crowd([(job, ({"status": "oom", "try": 1}, None))], shared)
    monkeypatch.setattr(beside, "Pool", lambda *_: crowd)
    sitting = one_run.Sitting(PLAN, few, "cpu", "here", tmp_path, 0)
    assert list(beside.trained(sitting, [], 2, 2)) == [
        ("x", {"status": "oom", "try": 2 if shared else 1})
    ]


def test_as_many_as_the_gpu_has_room_for(few, tmp_path, monkeypatch):
    monkeypatch.setattr(beside, "cores", lambda: 16)
    gib = 2**30
    # 1 GiB of context and data, 7 GiB more at most: ten in 80 % of 100 GiB, and 8 have cores
    assert room(100 * gib, 99 * gib, Memory(8 * gib, gib)) == 8
    assert room(60 * gib, 59 * gib, Memory(8 * gib, gib)) == 6
    assert room(9 * gib, 8 * gib, Memory(8 * gib, gib)) == 1
    job = beside.Job(PLAN.runs()[0], "x")
    crowd = Crowd([(job, ({"status": "ok"}, Memory(8 * gib, gib)))], False)
    free = iter([60 * gib, 59 * gib])
    monkeypatch.setattr(beside, "free_memory", lambda: next(free))
    monkeypatch.setattr(beside, "Pool", lambda *_: crowd)
    sitting = one_run.Sitting(PLAN, few, "cuda", "here", tmp_path, 0)
    assert len(list(beside.trained(sitting, [], None, 16))) == 1
    assert crowd.places == 6


def test_cores_are_shared_on_a_cpu(monkeypatch):
    monkeypatch.setattr(beside, "cores", lambda: 9)
    assert places(None, "cpu") == 4
    assert places(None, "cuda") == 1  # until the first run shows its memory
    assert places(3, "cuda") == 3
    assert [threads_of("cpu", n, 9) for n in (1, 2, 4, 20)] == [9, 4, 2, 1]
    assert threads_of("cuda", 4, 9) == 9


def test_a_turn_has_all_cores():
    with beside.at_full(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1


def test_what_the_option_may_say():
    assert [command.beside_of(text) for text in ("1", "4", "auto")] == [1, 4, None]
    for text in ("0", "-1", "two", ""):
        with pytest.raises(ValueError, match=f"--beside as an int >= 1 or auto, got '{text}'"):
            command.beside_of(text)


def test_what_cannot_be_beside_is_refused():
    two = Team(Place(0, 2, 0, 2))
    photographs = replace(TINY, data="imagenet", arms=("dense",), root="x")
    for count, told in ((2, "2"), (None, "auto")):
        with pytest.raises(ValueError, match=f"one run at a time of 2 ranks, got beside {told}"):
            runs.check_beside(count, TINY, two)
    assert runs.check_beside(1, TINY, two) == 1
    assert runs.check_beside(None, photographs, ALONE) == 1
    with pytest.raises(ValueError, match=r"imagenet, whose images take all cores .* got beside 2"):
        runs.check_beside(2, photographs, ALONE)
    with pytest.raises(ValueError, match="beside as an int >= 1 or auto, got 0"):
        runs.check_beside(0, TINY, ALONE)
