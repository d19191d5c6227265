"""bench.gating.rehearsal: how virtual runs are counted, and what they are drawn from."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.gating import rehearsal
from bench.gating.rehearsal import BLOCK, Virtual, rehearse
from tests.gating_samples import RULE, UNLIMITED, pool

FLAT = pool(0.0, trials=9)


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


def test_a_cell_of_equal_code_that_fails_is_a_false_alarm() -> None:
    d = np.array(FLAT.d)
    d[1] = 0.3  # whoever stands for head
    slow = replace(FLAT, d=d)
    for effect in (0.0, 0.10):
        found = rehearse(slow, RULE, UNLIMITED, 0, effect=effect, pools=2, runs=3)
        assert found.alarms == (1.0, 1.0, 1.0)
        assert found.inconclusive[0] == 0.0
    assert found.found[0] == 1.0
    # too little to be found: only where the planted cell is slow by itself, and then no alarm
    found = rehearse(slow, RULE, UNLIMITED, 0, effect=0.001, pools=2, runs=30)
    assert 0.0 < found.found[0] < 0.3
    assert found.alarms[0] == pytest.approx(1.0 - found.found[0])


def test_a_run_that_found_something_is_not_inconclusive() -> None:
    d, a = np.array(FLAT.d), np.array(FLAT.a)
    a[2] = 0.5  # base's two differ too much to see anything
    found = rehearse(replace(FLAT, a=a), RULE, UNLIMITED, 0, pools=2, runs=3)
    assert (found.alarms[0], found.inconclusive[0]) == (0.0, 1.0)
    assert found.visible > RULE.worst_margin
    d[1] = 0.3
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
    rehearse(small, RULE, UNLIMITED, 0, pools=60, runs=2, tell=lambda *each: told.append(each))
    assert drawn[::2] == drawn[1::2]  # the runs of a pool share it
    assert len({tuple(each) for each in drawn}) > 6
    for each in drawn:
        assert len(each) == 10
        blocks = [each[i : i + BLOCK] for i in range(0, 10, BLOCK)]
        assert all(b == [(b[0] + i) % 10 for i in range(len(b))] for b in blocks)
    assert {each[0] for each in drawn} == set(range(10))
    assert [each[:2] for each in told] == [(i, 60) for i in range(60)]


def test_a_harness_that_favours_a_place_is_noise_to_virtual_runs() -> None:
    """Head's place 4 % up: dice say who is head, and so its mean is nothing (see ``favoured``)."""
    d = np.array(FLAT.d)
    d[:, 0], d[:, 1:] = 0.04, -0.02
    found = rehearse(replace(FLAT, d=d), RULE, UNLIMITED, 0, pools=4, runs=10)
    assert found.alarms[0] == 0.0


def test_a_seed_repeats_itself() -> None:
    noisy = pool(0.04, trials=12)
    one, same, other = (
        rehearse(noisy, RULE, 400.0, seed, effect=0.1, pools=3, runs=2) for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other
