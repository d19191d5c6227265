"""bench.gating.child: a measuring process is asked, blamed and ended, whatever it does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bench.gating.child import Child, Died
from bench.gating.worker import NO_API
from bench.injection import VARIABLE
from tests.gating_checkout import obedient_side
from tests.killed import wait_until_gone


@pytest.fixture
def start(tmp_path: Path):
    """Start obedient children; all are ended afterwards."""
    started: list[Child] = []

    def one(name: str = "head", **request) -> Child:
        side = obedient_side(tmp_path / name, name, name[0] * 40)
        started.append(Child(side, tmp_path, request, len(started)))
        return started[-1]

    yield one
    for child in started:
        child.end()


def dead(child: Child, code: str, limit_s: float = 20.0) -> Died:
    """Return how a child died that was sent this code."""
    child.send(code=code)
    with pytest.raises(Died) as found:
        child.answer(limit_s)
    assert str(found.value) == found.value.reason
    return found.value


# --- answers ------------------------------------------------------------------------------


def test_the_request_names_parent_and_root(start, tmp_path: Path) -> None:
    told = start(device="cpu", cells=[1, 2]).answer()
    root = str(tmp_path / "head")
    assert told == {"device": "cpu", "cells": [1, 2], "parent": os.getpid(), "root": root}


def test_an_answer_comes_after_notes_of_whose_code_runs(start) -> None:
    child = start()
    child.answer()
    assert child.cell is None
    assert child.ask(code="tell(at='one'); tell(at='two'); tell(answer={'x': 1.5})") == {"x": 1.5}
    assert child.cell == "two"
    assert child.ask(code="tell(answer=None)") is None
    assert child.cell == "two"


def test_answers_come_whole_however_they_are_written(start) -> None:
    child = start()
    child.answer()
    torn = "print('{\"ans', end='', flush=True); time.sleep(0.5); print('wer\": [1]}', flush=True)"
    assert child.ask(code=torn) == [1]
    assert len(child.ask(code="tell(answer='x' * 3_000_000)")) == 3_000_000
    child.send(code="tell(answer=1); tell(at='c'); tell(answer=2)")
    assert [child.answer(), child.cell, child.answer(), child.cell] == [1, None, 2, "c"]


def test_an_answer_just_before_the_end_is_an_answer(start) -> None:
    child = start()
    child.answer()
    assert child.ask(code="tell(at='c'); tell(answer=7); os._exit(1)") == 7
    assert dead(child, "").reason == "its process ended: exit code 1"


def test_an_answer_between_the_last_look_and_the_end_is_an_answer(start, monkeypatch) -> None:
    child = start()
    child.answer()
    child.send(code="time.sleep(1); tell(answer=7); os._exit(1)")
    monkeypatch.setattr(child.process, "poll", child.process.wait)  # it ends after the look
    assert child.answer() == 7


# --- deaths -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "its process ended: killed by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "its process ended: killed by SIGKILL"),
        ("os._exit(3)", "its process ended: exit code 3"),
        (
            "print('a\\n  b \\nc\\nd\\n', file=sys.stderr); sys.exit(4)",
            "its process ended: exit code 4: b / c / d",
        ),
        ("sys.exit(0)", "its process ended: exit code 0"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_death_has_its_reason_and_the_cell_to_blame(start, code: str, reason: str) -> None:
    child = start()
    child.answer()
    died = dead(child, f"tell(at='cell 1'); tell(at='cell 2'); {code}")
    assert (died.side, died.cell, died.no_api) == ("head", "cell 2", False)
    assert died.reason.endswith(reason)


def test_a_death_before_any_cell_blames_none(start) -> None:
    child = start("base")
    child.answer()
    died = dead(child, "os._exit(1)")
    assert (died.side, died.cell, died.no_api) == ("base", None, False)


def test_a_side_that_cannot_be_loaded_says_so_in_its_last_line(start) -> None:
    child = start("base")
    child.answer()
    words = "a warning\\nImportError: cannot import name x"
    died = dead(child, f"print('{words}', file=sys.stderr); os._exit({NO_API})")
    assert (died.side, died.no_api) == ("base", True)
    assert died.reason == "ImportError: cannot import name x"


def test_an_order_to_a_dead_process_is_no_error_of_its_own(start) -> None:
    child = start()
    child.answer()
    child.send(code="os._exit(5)")
    child.process.wait()
    for _ in range(3):
        child.send(code="x" * 100_000)
    with pytest.raises(Died, match="exit code 5"):
        child.answer()


def test_silence_longer_than_the_limit_is_a_death(start) -> None:
    child = start()
    child.answer()
    begun = time.monotonic()
    died = dead(child, "tell(at='slow'); time.sleep(60)", limit_s=1)
    assert time.monotonic() - begun < 10
    assert (died.cell, died.reason) == ("slow", "a step took longer than 1 s")
    assert not died.no_api


def test_many_short_steps_are_no_silence(start) -> None:
    child = start()
    child.answer()
    child.send(code="for i in range(6): tell(at=f'c{i}'); time.sleep(0.4)\ntell(answer='done')")
    assert child.answer(limit_s=1.6) == "done"


# --- where and how it runs ----------------------------------------------------------------


@pytest.mark.parametrize("planted", ["", "60%@fprop"])
def test_the_delay_is_planted_in_head_alone(start, monkeypatch, planted: str) -> None:
    monkeypatch.setenv(VARIABLE, planted)
    found = {}
    for name in ("base", "head"):
        child = start(name)
        child.answer()
        found[name] = child.ask(code="tell(answer=dict(os.environ))")
    assert VARIABLE not in found["base"]
    assert found["head"].get(VARIABLE, "") == planted


def test_the_sides_differ_in_nothing_but_their_names(start, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    monkeypatch.setenv("HRBP_COMMIT", "nobody's")
    found = {}
    for name in ("base", "head"):
        child = start(name)
        child.answer()
        found[name] = child.ask(code="tell(answer=dict(os.environ) | {'PWD': os.getcwd()})")
        assert child.ask(code="tell(answer=sys.executable)") == os.sys.executable  # type: ignore[attr-defined]
        assert found[name].pop("HRBP_COMMIT") == name[0] * 40
        assert found[name].pop("PYTHONPATH") == str(tmp_path / name)
        assert found[name].pop("PWD") == str((tmp_path / name).resolve())
    assert found["base"] == found["head"]


def test_its_errors_stay_out_of_sight(start, capfd) -> None:
    child = start()
    child.answer()
    child.ask(code="print('noise', file=sys.stderr, flush=True); tell(answer=1)")
    assert capfd.readouterr() == ("", "")


def test_an_interrupt_of_the_terminal_is_the_parents_to_handle(start) -> None:
    child = start()
    child.answer()
    group, session = child.ask(code="tell(answer=[os.getpgid(0), os.getsid(0)])")
    assert group == session == child.process.pid
    assert session != os.getsid(0)


def test_the_end_takes_along_what_it_started_and_leaves_nothing_open(start) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    child = start()
    child.answer()
    code = "tell(answer=subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL).pid)"
    helper = child.ask(code=code)
    child.send(code="time.sleep(600)")
    child.end()
    assert child.process.returncode is not None
    wait_until_gone([helper])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_end_of_what_is_dead_is_quiet(start) -> None:
    child = start()
    child.answer()
    dead(child, "os._exit(1)")
    child.end()
