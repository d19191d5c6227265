"""bench.gating.decide: what has no times, heat, and budgets that end."""

from __future__ import annotations

import pytest

from bench.gating.decide import HOT, BudgetTooSmall, decide
from bench.gating.readings import NO_API, Outcome, Reading, judge_outcomes, lacks_api
from bench.verdict import VerdictKind
from tests.gating_samples import (
    BAD,
    RULE,
    Says,
    alone,
    decided,
    hot,
    listed,
    steady,
    suspected,
    then,
    timed,
)

Kind = VerdictKind
QUIET = steady(0.0)
SKIP, SKIP2 = ("skipped", "no kernel"), ("skipped", "no float16")
WRONG, IMPOSSIBLE = ("wrong", "off by 2"), ("impossible", "0.5 of the floor")
CRASH, NO_NAME = ("crashed", "RuntimeError: bad"), ("crashed", "AttributeError: no conv")
TIMEOUT = ("timeout", "longer than 60 s")


def ends(base: Outcome, head: Outcome) -> Says:
    """Return what a cell says that has no times."""
    return lambda _: Reading(base=base, head=head)


# --- statuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "head", "kind", "reason"),
    [
        (None, WRONG, Kind.WRONG, "wrong (off by 2) in head; ok in base"),
        (None, IMPOSSIBLE, Kind.WRONG, "impossible (0.5 of the floor) in head; ok in base"),
        (WRONG, WRONG, Kind.WRONG, "wrong (off by 2) in head; wrong in base"),
        (SKIP, WRONG, Kind.WRONG, "wrong (off by 2) in head; skipped in base"),
        (None, CRASH, Kind.MISSING, "crashed (RuntimeError: bad) in head; ok in base"),
        (CRASH, CRASH, Kind.MISSING, "crashed (RuntimeError: bad) in head; crashed in base"),
        (NO_NAME, NO_NAME, Kind.MISSING, "crashed (AttributeError: no conv) in head; crashed in"),
        (None, SKIP, Kind.MISSING, "skipped (no kernel) in head; ok in base"),
        (None, TIMEOUT, Kind.MISSING, "timeout (longer than 60 s) in head; ok in base"),
        (SKIP, SKIP, Kind.PASS, "skipped (no kernel) in both"),
        (SKIP, SKIP2, Kind.INCONCLUSIVE, "skipped (no float16) in head; skipped (no kernel) in"),
        (WRONG, SKIP, Kind.INCONCLUSIVE, "skipped (no kernel) in head; wrong (off by 2) in base"),
        (SKIP, None, Kind.PASS, "ok in head; skipped (no kernel) in base, no time to compare"),
        (CRASH, None, Kind.PASS, "ok in head; crashed (RuntimeError: bad) in base"),
        (NO_NAME, None, Kind.INCOMPARABLE, "base lacks what the suite calls: AttributeError: no"),
        (("wrong", "TypeError: no"), None, Kind.PASS, "ok in head; wrong (TypeError: no) in base"),
    ],
)
def test_what_has_no_times_is_judged_at_once(
    base: Outcome, head: Outcome, kind: VerdictKind, reason: str
) -> None:
    findings, source = decided({"a": ends(base, head), "b": QUIET})
    found = findings["a"]
    assert found.kind is kind
    assert found.reason.startswith(reason)
    assert (found.effect, found.margin, found.p, found.base_s, found.d) == (None,) * 4 + ((),)
    assert (found.trials, found.fresh) == (0, False)
    assert source.asked == [("a", "b")] + [("b",)] * (RULE.screen - 1)
    assert findings["b"].kind is Kind.PASS
    if kind is not Kind.INCOMPARABLE:
        assert judge_outcomes(base, head) == (kind, found.reason)


def test_code_that_does_not_fit_says_so_in_its_first_word() -> None:
    for word in NO_API:
        assert lacks_api(("crashed", f"{word}: x"), None)
        assert not lacks_api(("crashed", f"RuntimeError: {word}"), None)
        assert not lacks_api(("crashed", f"{word}: x"), ("crashed", f"{word}: x"))
    assert not lacks_api(None, None)


def test_a_suite_of_such_cells_ends_after_one_trial() -> None:
    findings, source = decided({"a": ends(SKIP, SKIP), "b": ends(None, WRONG)})
    assert [f.kind for f in findings.values()] == [Kind.PASS, Kind.WRONG]
    assert source.asked == [("a", "b")]


@pytest.mark.parametrize("count", [1, RULE.screen - 1, RULE.screen, RULE.screen + 1])
def test_a_cell_that_turns_wrong_later_is_wrong(count: int) -> None:
    findings, source = decided({
        "a": then(count, BAD, ends(None, WRONG)),
        "b": suspected(steady(0.10)),
    })  # fmt: skip
    assert [f.kind for f in findings.values()] == [Kind.WRONG, Kind.FAIL]
    assert source.seen["a"] == count + 1
    assert findings["a"].effect is None


def test_a_cell_that_turns_wrong_after_fresh_trials_stays_a_test() -> None:
    """And nobody asks for its numbers in vain."""
    late = suspected(then(2, hot, steady(0.10)))
    cells = {"a": suspected(then(1, QUIET, ends(None, WRONG))), "b": late}
    assert [f.kind for f in decided(cells)[0].values()] == [Kind.WRONG, Kind.FAIL]


# --- heat ---------------------------------------------------------------------------------


def test_trials_in_the_heat_are_left_out_and_counted() -> None:
    says = listed([timed(0.001, 0.001), hot(0), timed(-0.001, 0.001)])
    found = alone(says)
    assert (found.kind, found.trials, found.fresh) == (Kind.PASS, 4, False)
    assert max(found.d) < 0.01
    assert found.reason.endswith("; 2 trials left out: throttled")


def test_without_heat_nothing_is_said_of_it() -> None:
    assert "throttled" not in alone(QUIET).reason


def test_three_trials_are_a_screen_and_two_are_none() -> None:
    for good, fresh, trials in ((3, False, 3), (2, True, RULE.looks[0])):
        found = alone(then(good, QUIET, then(RULE.screen - good, hot, QUIET)))
        assert (found.kind, found.fresh, found.trials) == (Kind.PASS, fresh, trials)
        assert found.reason.endswith(f"; {RULE.screen - good} trials left out: throttled")


def test_heat_in_fresh_trials_puts_off_the_look() -> None:
    findings, source = decided({
        "a": suspected(listed([timed(0.1, 0.001), hot(0), timed(0.101, 0.001)])),
        "b": suspected(steady(0.028, 0.012)),
    })  # fmt: skip
    found = findings["a"]
    assert (found.kind, found.trials) == (Kind.FAIL, RULE.looks[0])
    assert source.seen["a"] > RULE.screen + RULE.looks[0]
    assert max(found.d) < 0.2


def test_nothing_but_heat_ends() -> None:
    found, source = decided({"a": hot, "b": hot})
    assert len(source.asked) == RULE.screen + HOT
    for each in found.values():
        assert each.kind is Kind.INCONCLUSIVE
        assert (each.effect, each.p, each.trials) == (None, None, 0)
        assert each.reason == f"throttled in {RULE.screen + HOT} trials; 0 trials are no evidence"


def test_nothing_but_heat_after_a_bad_screen_ends_and_shows_the_screen() -> None:
    found, source = decided({"a": suspected(hot)})
    assert len(source.asked) == RULE.screen + HOT
    each = found["a"]
    assert (each.kind, each.fresh, each.trials) == (Kind.INCONCLUSIVE, False, RULE.screen)
    assert each.effect == pytest.approx(0.10, abs=0.01)
    assert each.reason.startswith("suspected in the screen; throttled in 3 trials; 0 trials are")


def test_a_moment_of_heat_after_the_screen_does_not_end_it() -> None:
    slow = listed([timed(0.1, 0.001), timed(0.101, 0.001), timed(0.099, 0.001)])
    found = alone(suspected(then(HOT - 1, hot, slow)))
    assert (found.kind, found.fresh, found.trials) == (Kind.FAIL, True, RULE.looks[0])


# --- budgets ------------------------------------------------------------------------------


def test_a_budget_for_the_screen_alone_is_enough_for_quiet_cells() -> None:
    findings, source = decided({"a": QUIET, "b": QUIET}, affordable=2 * RULE.screen)
    assert {f.kind for f in findings.values()} == {Kind.PASS}
    assert source.paid == 2 * RULE.screen


def test_less_is_too_little_and_is_seen_before_the_first_trial() -> None:
    cells = {"a": QUIET, "b": QUIET}
    with pytest.raises(BudgetTooSmall, match=rf"{RULE.screen} trials of 2 cells.* after 0"):
        decided(cells, affordable=2 * RULE.screen - 1)


def test_or_when_trials_turn_out_to_take_longer() -> None:
    class Slower:
        paid = 0

        def take(self, names):
            self.paid += 1
            return {name: QUIET(0) for name in names}

        def affords(self, cells: int, trials: int = 1) -> bool:
            return self.paid < 2

    with pytest.raises(BudgetTooSmall, match="after 2"):
        decide(["a"], Slower(), RULE)


def test_cells_that_are_done_cost_nothing() -> None:
    cells = {"a": ends(SKIP, SKIP), "b": QUIET, "c": ends(None, WRONG)}
    with pytest.raises(BudgetTooSmall):
        decided(cells, affordable=2 + RULE.screen)  # what they will be is not known before
    source = decided(cells, affordable=3 * RULE.screen)[1]
    assert source.paid == 2 + RULE.screen
    later = [(1, RULE.screen - made) for made in range(1, RULE.screen)]
    assert source.priced == [(3, RULE.screen), *later]


def test_a_budget_that_ends_after_the_screen_leaves_suspects_open() -> None:
    cells = {"a": suspected(steady(0.10)), "b": QUIET}
    findings, _ = decided(cells, affordable=2 * RULE.screen)
    assert findings["b"].kind is Kind.PASS
    found = findings["a"]
    assert (found.kind, found.fresh, found.trials) == (Kind.INCONCLUSIVE, False, RULE.screen)
    assert found.reason == "suspected in the screen; no time was left; 0 trials are no evidence"


def test_one_fresh_trial_is_no_evidence() -> None:
    found = alone(suspected(QUIET), affordable=RULE.screen + 1)
    assert (found.kind, found.fresh, found.trials) == (Kind.INCONCLUSIVE, False, RULE.screen)
    assert found.reason == "suspected in the screen; no time was left; 1 trials are no evidence"


def test_a_screen_of_one_trial_has_no_numbers() -> None:
    found = alone(then(1, QUIET, hot))
    assert (found.kind, found.effect, found.trials) == (Kind.INCONCLUSIVE, None, 0)
    found = alone(then(2, QUIET, hot))
    assert (found.kind, found.fresh, found.trials) == (Kind.INCONCLUSIVE, False, 2)


def test_a_budget_that_ends_before_a_look_does_so_too() -> None:
    paid = RULE.screen + RULE.looks[0] - 1
    for later, effect, kind in ((steady(0.2), 0.2, Kind.FAIL), (QUIET, 0.0, Kind.PASS)):
        found = alone(suspected(later), affordable=paid)
        assert (found.kind, found.fresh) == (Kind.INCONCLUSIVE, True)
        assert found.trials == RULE.looks[0] - 1
        assert found.effect == pytest.approx(effect, abs=0.01)
        assert alone(suspected(later), affordable=paid + 1).kind is kind
