"""Wild trials: base differed from itself far more than in others."""

from __future__ import annotations

import numpy as np
import pytest

from bench.gating import decide as deciding
from bench.gating.course import Course
from bench.gating.decide import decide
from bench.gating.readings import Trial
from bench.gating.unrest import LEAST_CELLS, WILD, unrest, wild
from bench.verdict import VerdictKind
from tests.gating_samples import RULE, Script, hot, steady, suspected, then, timed

NAMES = [f"c{i}" for i in range(LEAST_CELLS)]


def trial(size: float, cells: int = LEAST_CELLS) -> Trial:
    return {f"c{i}": timed(0.0, size if i % 2 else -size) for i in range(cells)}


# --- which ones ---------------------------------------------------------------------------


def test_unrest_is_the_median_of_what_base_differs_from_itself() -> None:
    sizes = [-0.01, 0.02, 0.9, -0.03, 0.04, 0.05, -0.06, 0.08]
    found = {f"c{i}": timed(9.0, a) for i, a in enumerate(sizes)}
    assert unrest(found) == pytest.approx(0.045)
    found["hot"] = hot(0)
    assert unrest(found) == pytest.approx(0.045)


def test_few_cells_tell_no_unrest() -> None:
    assert unrest(trial(0.5, LEAST_CELLS - 1)) is None
    few = [trial(0.01, LEAST_CELLS - 1)] * 5
    assert wild([*few, trial(0.9, LEAST_CELLS - 1)]) == []


def test_one_of_four_that_is_three_times_as_restless_is_wild() -> None:
    others = [trial(0.01), trial(0.012), trial(0.011)]
    limit = WILD * (0.011 + 0.012) / 2  # the median of four has it among them
    assert wild([*others, trial(1.01 * limit)]) == [3]
    assert wild([*others, trial(0.99 * limit)]) == []
    assert wild([trial(0.9), *others[1:]]) == []  # three tell too little
    assert wild([trial(0.9), *others, trial(0.01), trial(0.8)]) == [0, 5]


def test_no_unrest_at_all_is_not_wild() -> None:
    assert wild([trial(0.0)] * 6) == []


def test_normal_noise_is_not_wild() -> None:
    rng = np.random.default_rng(0)
    runs = [
        [{n: timed(0.0, a) for n, a in zip(NAMES, row, strict=True)} for row in run]
        for run in 0.02 * rng.normal(size=(500, 6, LEAST_CELLS))
    ]
    assert sum(map(len, map(wild, runs))) <= 3  # of 3000


# --- what becomes of them -----------------------------------------------------------------


def rough(place: int, says=steady(0.0), size: float = 0.3):  # noqa: B008
    """Return what a cell says whose trial ``place`` is wild, and slow to anyone who believes it."""
    return lambda number: timed(0.4, size) if number == place else says(number)


@pytest.mark.parametrize("place", [0, 3, RULE.screen - 1])
def test_another_is_taken_in_its_place(place: int) -> None:
    source = Script(dict.fromkeys(NAMES, rough(place)))
    found = decide(NAMES, source, RULE)
    assert len(source.asked) == RULE.screen + 1
    for each in found.values():
        assert (each.kind, each.trials, each.fresh) == (VerdictKind.PASS, RULE.screen, False)
        assert max(each.d) < 0.01
        assert each.reason.endswith("; 1 trials left out: base differed from itself")


def test_heads_times_have_no_say_in_it() -> None:
    """Head is slow in one trial, base is at rest: that trial stays."""
    source = Script(dict.fromkeys(NAMES, rough(2, size=0.002)))
    found = decide(NAMES, source, RULE)
    assert all(0.4 in each.d or each.fresh for each in found.values())
    assert all("left out" not in each.reason for each in found.values())


def test_without_time_for_another_the_screen_is_one_shorter() -> None:
    paid = RULE.screen * len(NAMES)
    found = decide(NAMES, Script(dict.fromkeys(NAMES, rough(1)), paid), RULE)
    assert {each.trials for each in found.values()} == {RULE.screen - 1}
    assert {each.kind for each in found.values()} == {VerdictKind.PASS}


def test_a_fresh_trial_is_left_out_before_it_is_looked_at() -> None:
    slow = suspected(steady(0.10))
    source = Script(dict.fromkeys(NAMES, rough(RULE.screen + 1, slow)))
    found = decide(NAMES, source, RULE)
    for each in found.values():
        assert (each.kind, each.fresh, each.trials) == (VerdictKind.FAIL, True, RULE.looks[0])
        assert max(each.d) < 0.2
    assert len(source.asked) == RULE.screen + RULE.looks[0] + 1


def test_a_machine_that_rests_nowhere_keeps_its_trials() -> None:
    says = then(RULE.screen, steady(0.0, 0.05), steady(0.0, 0.05))
    found = decide(NAMES, Script(dict.fromkeys(NAMES, says)), RULE)
    assert all("left out" not in each.reason for each in found.values())


def test_without_the_rule_all_cells_would_be_suspected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "wild", lambda trials: [])
    source = Script(dict.fromkeys(NAMES, rough(2)))
    assert all(each.fresh for each in decide(NAMES, source, RULE).values())
    assert len(source.asked) >= RULE.screen + RULE.looks[0]


def test_what_was_weighed_with_a_dropped_trial_is_weighed_anew() -> None:
    """As many trials as before, and others: the old row must not stand."""
    course = Course()
    wrong, rest = timed(0.4, 0.3), [timed(0.001), timed(-0.001)]
    for reading in (wrong, *rest):
        course.add(reading)
    assert course.row(RULE)["high"] > 0.1
    course.drop({"a": wrong})
    course.add(timed(0.0))
    assert course.row(RULE)["high"] < 0.01
    assert (len(course.screen), course.restless) == (3, 1)
