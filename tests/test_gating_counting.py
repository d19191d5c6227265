"""bench.gating.rehearsal: how virtual runs are counted, and what they are drawn from."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.gating import rehearsal
from bench.gating.rehearsal import BLOCK, Virtual, centred, rehearse
from tests.gating_samples import RULE, UNLIMITED, numbered, pool

FLAT = pool(0.0, trials=9)


@pytest.fixture
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave pools as they are, so that a role may be slow in all of its trials."""
    monkeypatch.setattr(rehearsal, "centred", lambda pool, drawn: pool)


def test_a_pool_without_noise_has_no_alarms_and_finds_what_is_planted() -> None:
    found = rehearse(FLAT, RULE, UNLIMITED, 0, pools=2, runs=3)
    assert found.runs == 6
    assert found.alarms == found.inconclusive == (0.0, 0.0, 0.0)
    assert np.isnan(found.found).all()
    assert found.visible == RULE.least_margin
    assert found.seconds == (12.0 * RULE.screen, 12.0 * RULE.screen)
    slow = rehearse(FLAT, RULE, UNLIMITED, 0, effect=0.10, pools=2, runs=3)
    assert slow.found == (1.0, 1.0, 1.0)
    assert slow.alarms == slow.inconclusive == (0.0, 0.0, 0.0)
    assert rehearse(FLAT, RULE, UNLIMITED, 0, effect=0.02, pools=2, runs=3).found[0] == 0.0


@pytest.mark.usefixtures("as_it_is")
def test_a_cell_of_equal_code_that_fails_is_a_false_alarm() -> None:
    d = np.array(FLAT.d)
    d[:, 0] = 0.3  # one role of every cell, so that each run has some
    slow = replace(FLAT, d=d)
    for effect in (0.0, 0.10):
        found = rehearse(slow, RULE, UNLIMITED, 0, effect=effect, pools=2, runs=3)
        assert found.alarms == (1.0, 1.0, 1.0)
        assert found.inconclusive[0] == 0.0
    assert found.found[0] == 1.0
    # too little to be found: only where the planted cell is slow by itself
    found = rehearse(slow, RULE, UNLIMITED, 0, effect=0.001, pools=2, runs=10)
    assert found.alarms[0] == 1.0
    assert 0.0 < found.found[0] < 1.0


@pytest.mark.usefixtures("as_it_is")
def test_a_run_that_found_something_is_not_inconclusive() -> None:
    d, a = np.array(FLAT.d), np.array(FLAT.a)
    a[:, 1] = 0.5  # base's two differ too much to see anything
    found = rehearse(replace(FLAT, a=a), RULE, UNLIMITED, 0, pools=2, runs=3)
    assert (found.alarms[0], found.inconclusive[0]) == (0.0, 1.0)
    assert found.visible > RULE.worst_margin
    d[:, 0] = 0.3
    found = rehearse(replace(FLAT, d=d, a=a), RULE, UNLIMITED, 0, pools=2, runs=3)
    assert (found.alarms[0], found.inconclusive[0]) == (1.0, 0.0)


def test_a_budget_without_a_screen_is_inconclusive() -> None:
    found = rehearse(FLAT, RULE, 12.0 * RULE.screen - 1, 0, effect=0.10, pools=2, runs=3)
    assert (found.alarms[0], found.inconclusive[0], found.found[0]) == (0.0, 1.0, 0.0)
    assert math.isnan(found.visible)
    assert found.seconds == (0.0, 0.0)


def test_intervals_are_those_over_redrawn_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 41 pools of two runs, number i has rates of i / 40; 2.5 % of them lie at each end."""
    calls = iter(i // 2 for i in range(82))

    def outcome(source: Virtual, rule: Any, planted: Any, visible: list[float]) -> Any:
        number = next(calls)
        visible.append(float(number))
        source.seconds = float(number)
        return np.array([number / 40, 1 - number / 40, 0.5])

    monkeypatch.setattr(rehearsal, "_outcome", outcome)
    found = rehearse(FLAT, RULE, UNLIMITED, 0, effect=0.05, pools=41, runs=2)
    assert found.runs == 82
    assert found.alarms == pytest.approx((0.5, 0.025, 0.975))
    assert found.inconclusive == pytest.approx((0.5, 0.025, 0.975))
    assert found.found == (0.5, 0.5, 0.5)
    assert found.visible == 20
    assert found.seconds == pytest.approx((20.0, 38.0))


def test_the_pool_is_drawn_anew_in_blocks_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[int]] = []

    class Seen(Virtual):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            drawn.append(self.trials.tolist())

    monkeypatch.setattr(rehearsal, "Virtual", Seen)
    told: list[tuple[int, int, str]] = []
    small = pool(0.0, cells=2, trials=10)
    rehearse(small, RULE, UNLIMITED, 0, pools=12, runs=2, tell=lambda *each: told.append(each))
    assert drawn[::2] == drawn[1::2]  # the runs of a pool share it
    assert len({tuple(each) for each in drawn}) > 6
    for each in drawn:
        assert len(each) == 10
        blocks = [each[i : i + BLOCK] for i in range(0, 10, BLOCK)]
        assert all(b == [(b[0] + i) % 10 for i in range(len(b))] for b in blocks)
    assert {each[0] for each in drawn} > {0, 9}
    assert [each[:2] for each in told] == [(i, 12) for i in range(12)]


def test_a_drawn_pool_has_no_mean_for_any_cell_and_role() -> None:
    source = numbered(3, 12)
    drawn = np.array([4, 5, 6, 4, 5, 6, 0, 1, 2, 7])
    calm = centred(source, drawn)
    assert np.abs(calm.d[:, :, drawn].mean(axis=2)).max() < 1e-12
    assert np.array_equal(calm.a, source.a)
    # trials keep their order and their places; only their scatter is a little larger
    apart = (
        np.diff(calm.d, axis=2)[:, :, [4, 5, 0, 1]] / np.diff(source.d, axis=2)[:, :, [4, 5, 0, 1]]
    )
    assert apart == pytest.approx(np.full((3, 3, 4), math.sqrt(10 / 9)))
    assert np.array_equal(source.d, numbered(3, 12).d)


def test_taking_the_mean_off_costs_no_scatter() -> None:
    """Of trials that are independent, each drawn once."""
    noisy = pool(0.02, cells=4000, trials=6)
    calm = centred(noisy, np.arange(6))
    assert (calm.d**2).mean() == pytest.approx(1.5 * 0.02**2, rel=0.025)


def test_virtual_runs_are_drawn_from_the_pool_without_its_mean() -> None:
    """A dozen trials that happen to lie 4 % up would be found, run after run."""
    d = np.array(FLAT.d) + 0.04
    found = rehearse(replace(FLAT, d=d), RULE, UNLIMITED, 0, effect=0.10, pools=2, runs=3)
    assert (found.alarms[0], found.inconclusive[0], found.found[0]) == (0.0, 0.0, 1.0)


def test_a_seed_repeats_itself() -> None:
    noisy = pool(0.04, trials=12)
    one, same, other = (
        rehearse(noisy, RULE, 400.0, seed, effect=0.1, pools=3, runs=2) for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other
