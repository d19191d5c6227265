"""Processes that hang, crash or run out of memory take nothing but themselves along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.isolate import Isolated
from bench.records import Status, WorkerError
from tests.isolated_session import CASE, Session, settings

ROOT = Path(__file__).parents[1]


def measured(names, limit_s=1.5, **told):
    with Isolated(Session, settings(**told), limit_s) as isolated:
        found = isolated.measure(CASE, names)
        again = isolated.measure(CASE, ["fine"])  # whatever happened, the next case is measured
    assert again[0].status is Status.OK
    assert [m.cell.impl for m in found] == names
    return {m.cell.impl: m for m in found}, isolated


def test_all_is_well_in_one_process():
    found, isolated = measured(["fine", "also_fine"])
    assert len({m.detail["pid"] for m in found.values()}) == 1
    assert found["fine"].detail["pid"] != os.getpid()
    assert isolated.seconds == {"sample": 2.0}
    assert not isolated.deaths


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("hang", Status.TIMEOUT, "a step of hang took longer than 1.5 s, twice"),
        ("segfault", Status.CRASHED, "its process was killed by SIGSEGV, twice"),
        ("oom", Status.OOM, "killed by SIGKILL, as the system does when memory runs out, twice"),
        ("exit", Status.CRASHED, "its process ended with exit code 3, twice"),
    ],
)
def test_whoever_fails_twice_is_put_out_and_the_others_are_measured(name, status, reason):
    found, isolated = measured(["before", name, "after"])
    assert found[name].status is status
    assert reason in found[name].reason
    assert [found[n].status for n in ("before", "after")] == [Status.OK] * 2
    assert [d.name for d in isolated.deaths] == [name] * 2
    assert found["after"].detail["retried"] == 2


def test_two_in_one_case_are_each_tried_twice():
    found, isolated = measured(["segfault", "fine", "exit"])
    assert [d.name for d in isolated.deaths] == ["segfault"] * 2 + ["exit"] * 2
    assert found["fine"].detail["retried"] == 4
    assert all(found[n].reason.endswith(", twice") for n in ("segfault", "exit"))


def test_one_hiccup_is_tried_again(tmp_path):
    found, isolated = measured(["hiccup", "fine"], mark=str(tmp_path / "mark"))
    assert [m.status for m in found.values()] == [Status.OK] * 2
    assert found["hiccup"].detail["retried"] == 1
    assert len(isolated.deaths) == 1


def test_a_long_case_of_short_steps_is_no_hang():
    found, isolated = measured(["busy"])
    assert found["busy"].status is Status.OK
    assert not isolated.deaths


def test_a_process_that_does_not_start_is_an_error_of_its_own():
    with (
        Isolated(Session, settings(broken=True)) as isolated,
        pytest.raises(WorkerError, match="RuntimeError: no such device"),
    ):
        isolated.measure(CASE, ["fine"])


@pytest.mark.parametrize("name", ["hang", "hang_in_c"])
def test_the_process_dies_with_its_parent_even_by_kill_9(name):
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.isolated_session", name],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.3)  # it is in its hang by now
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 10
    while alive(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(child)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
