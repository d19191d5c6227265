"""Runs beside each other: nothing runs in a turn, and nobody waits for one that is dead."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.accuracy.company import OVER, PAUSED, TURN
from bench.accuracy.desk import DONE, READY, TIMING, Desk
from tests.pool_samples import Span, Task, pool, spans

ROOT = Path(__file__).parents[1]


def desk(*numbers: int) -> Desk:
    """Return one whose processes are all at work."""
    made = Desk()
    for who in numbers:
        made.begins(who)
    return made


# --- who is to go on -------------------------------------------------------------------------


def test_a_turn_begins_when_all_others_rest():
    at = desk(0, 1, 2)
    at.heard(0, TURN)
    assert at.wanted
    assert at.released() == []
    at.heard(1, PAUSED)
    assert at.released() == []  # the third one may be setting up: it is waited for
    at.heard(2, DONE)
    assert at.released() == [0]
    assert at.states[0] == TIMING
    assert at.released() == []
    at.heard(0, OVER)
    assert not at.wanted
    assert at.released() == [1]


def test_turns_come_one_by_one_in_the_order_asked():
    at = desk(0, 1, 2)
    for who in (2, 0):
        at.heard(who, TURN)
    at.heard(1, PAUSED)
    assert at.released() == [2]
    at.heard(2, OVER)
    assert at.released() == []  # its run ends before the next one times
    at.heard(2, DONE)
    assert at.released() == [0]
    at.heard(0, OVER)
    assert at.released() == [1]


def test_a_new_process_is_waited_for():
    at = desk(0)
    at.heard(0, TURN)
    at.begins(1)
    assert at.released() == []
    at.heard(1, READY)
    assert at.released() == [0]


@pytest.mark.parametrize("when", ["waiting", "timing"])
def test_a_dead_process_has_no_turn(when):
    at = desk(0, 1)
    at.heard(0, TURN)
    if when == "timing":
        at.heard(1, PAUSED)
        assert at.released() == [0]
        at.gone(0)
    else:
        at.gone(0)
        assert not at.wanted
        at.heard(1, PAUSED)  # it had seen the flag just before
    assert at.released() == [1]


def test_a_dead_process_is_not_waited_for():
    at = desk(0, 1)
    at.heard(0, TURN)
    at.gone(1)
    assert at.released() == [0]


# --- processes -------------------------------------------------------------------------------


def apart(turn: Span, other: Span) -> bool:
    return turn.end <= other.start or other.end <= turn.start


def test_nothing_runs_in_anothers_turn(tmp_path):
    tasks = [Task(name) for name in ("a", "b", "c", "d")]
    got = dict(pool(tmp_path, tasks, 3).results())
    assert got == {task: task.name.upper() for task in tasks}
    seen = spans(tmp_path)
    turns = [each for each in seen if each.what == "turn"]
    assert sorted(turn.who for turn in turns) == ["a", "b", "c", "d"]
    for turn, other in itertools.product(turns, seen):
        assert other.who == turn.who or apart(turn, other)
    steps = [each for each in seen if each.what == "step"]
    assert any(not apart(x, y) for x, y in itertools.combinations(steps, 2) if x.who != y.who)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("dies at work", "a process that trained ended by SIGKILL in bad; the system kills so"),
        ("dies in its turn", "a process that trained ended by SIGKILL in bad; the system kills so"),
        ("fails", "bad: no such thing"),
    ],
)
def test_what_goes_wrong_is_told_after_the_others_ended(how, words, tmp_path, capsys):
    # the good one asks for a turn, which it gets once the bad one's end was heard
    crowd = pool(tmp_path, [Task("bad", how), Task("good", "outlasts"), Task("late")], 2)
    results = crowd.results()
    assert next(results) == (Task("good", "outlasts"), "GOOD")
    with pytest.raises(RuntimeError, match=words):
        next(results)
    assert not (tmp_path / "late.log").exists()  # nothing new began
    assert capsys.readouterr().err.count("error: ") == 1


def test_a_job_is_done_again_with_nothing_beside_it(tmp_path):
    tasks = [Task("a"), Task("b"), Task("c")]
    crowd = pool(tmp_path, tasks, 2)
    shared = []
    for task, _ in crowd.results():
        shared.append((task.name, crowd.shared))
        if task.name == "a" and crowd.shared:
            crowd.again(task)
    assert sorted(shared) == [("a", False), ("a", True), ("b", True), ("c", True)]
    assert shared[-1] == ("a", False)


def test_a_consumer_that_stops_leaves_no_process(tmp_path):
    crowd = pool(tmp_path, [Task("a", steps=1), Task("b", steps=10**6)], 2)
    results = crowd.results()
    next(results)
    results.close()
    assert not any(alive(pid) for pid in ids(tmp_path))


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    parent = subprocess.Popen([sys.executable, "-m", "tests.pool_samples", str(tmp_path)], cwd=ROOT)
    try:
        until(lambda: len(list(tmp_path.glob("*.log"))) == 2)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert len(ids(tmp_path)) == 2
    until(lambda: not any(alive(pid) for pid in ids(tmp_path)))


def ids(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("*.pid")]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return status != "Z"  # whoever adopted it has yet to take notice


def until(happened) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)
