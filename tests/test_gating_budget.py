"""bench.gating.live: how many trials there is time for, and what is said where there is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.gating.live import Budgeted, gate_revisions
from tests.gating_scene import Clock, Scene, question, staged, timed


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return staged(tmp_path, monkeypatch)


@pytest.mark.parametrize("takes_s", [0.5, 7.0, 24.0, 25.0, 60.0, 100.0, 125.0, 600.0])
def test_a_budget_that_is_too_small_names_one_that_is_not(scene, tmp_path, takes_s) -> None:
    scene.takes_s = lambda trial: takes_s
    small = 2 * takes_s
    with pytest.raises(ValueError, match="expected time for the screen's 6 trials") as found:
        gate_revisions(question(tmp_path, budget_s=small))
    assert len(scene.names) == 1
    said = str(found.value)
    assert f"a trial took {takes_s:.0f} s" in said
    assert f"it was {small / 60:g})" in said
    assert "--layers or --passes" in said
    (minutes,) = re.findall(r"give --budget (\d+) ", said)
    scene.clock.now = 0.0
    assert gate_revisions(question(tmp_path, budget_s=60 * float(minutes))).exit_code == 0


def test_a_trial_that_becomes_slow_is_seen_before_the_budget_is_over(scene, tmp_path) -> None:
    scene.takes_s = lambda trial: 10.0 if trial < 3 else 60.0
    with pytest.raises(ValueError, match=r"seen after 3: a trial took 60 s, so give --budget 7 "):
        gate_revisions(question(tmp_path, budget_s=100))


def budgeted(budget_s: float, *seconds: float, cells: int = 10) -> tuple[Budgeted, Clock]:
    """Return a source after trials of so many seconds."""
    clock, left = Clock(), list(seconds)

    def take(names):
        clock.now += left.pop(0)
        return dict.fromkeys(names, timed(0.0))

    source = Budgeted(take, budget_s, clock)
    for _ in seconds:
        source.take([str(i) for i in range(cells)])
    return source, clock


def test_the_first_trial_is_always_afforded() -> None:
    assert budgeted(0.001)[0].affords(10**6, 10**6)


@pytest.mark.parametrize(
    ("seconds", "cells", "trials", "expected_s"),
    [
        ((100.0,), 10, 1, 100 + 70),  # patterns and answers are made once
        ((100.0,), 10, 5, 100 + 5 * 70),
        ((100.0, 50.0), 10, 1, 150 + 50),
        ((100.0, 50.0), 10, 4, 150 + 4 * 50),
        ((100.0, 80.0, 40.0), 10, 1, 220 + 40),  # the last one counts
        ((100.0, 50.0), 5, 1, 150 + 35),  # 0.4 of a trial does not shrink with its cells
        ((100.0, 50.0), 1, 2, 150 + 2 * 23),
        ((100.0, 50.0), 20, 1, 150 + 80),
    ],
)
def test_what_is_afforded(seconds, cells, trials, expected_s) -> None:
    for budget_s, enough in ((expected_s - 0.01, False), (expected_s + 0.01, True)):
        source, _ = budgeted(budget_s, *seconds)
        assert source.affords(cells, trials) is enough


def test_time_between_trials_is_spent_too() -> None:
    source, clock = budgeted(210.0, 100.0, 50.0)
    assert source.affords(10)
    clock.now += 20
    assert not source.affords(10)
    assert source.took == [(10, 100.0), (10, 50.0)]
