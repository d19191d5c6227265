"""bench.gating.decide: the screen, fresh trials, and what a cell is judged by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.gating.decide import decide
from bench.gating.evidence import weigh
from bench.verdict import VerdictKind
from tests.gating_samples import (
    BAD,
    LATE,
    RULE,
    Script,
    alone,
    decided,
    listed,
    steady,
    suspected,
    then,
    timed,
)

Kind = VerdictKind
QUIET = steady(0.0)
NAMES = ("effect", "low", "high", "margin", "p")


def weighed(says, numbers, rule=RULE) -> dict[str, float]:
    """Return what these trials of a cell say together."""
    found = weigh(
        np.array([[says(i).d for i in numbers]]), np.array([[says(i).a for i in numbers]]), rule
    )
    return {name: float(getattr(found, name)[0]) for name in NAMES}


# --- the screen ---------------------------------------------------------------------------


def test_equal_code_passes_after_the_screen_and_no_trial_more() -> None:
    cells = {name: steady(effect) for name, effect in (("b", 0.0), ("a", 0.001), ("c", -0.001))}
    findings, source = decided(cells)
    assert source.asked == [("b", "a", "c")] * RULE.screen
    assert list(findings) == ["b", "a", "c"]
    for found in findings.values():
        assert (found.kind, found.trials, found.fresh) == (Kind.PASS, RULE.screen, False)
        assert found.margin == RULE.least_margin


def test_a_finding_has_the_numbers_of_the_trials_that_it_is_judged_by() -> None:
    says = steady(0.01, 0.004, base_s=2e-3, head_s=3e-3)
    found = alone(says)
    numbers = range(RULE.screen)
    assert {name: getattr(found, name) for name in NAMES} == pytest.approx(weighed(says, numbers))
    assert found.d == tuple(says(i).d for i in numbers)
    assert (found.base_s, found.head_s) == (2e-3, 3e-3)
    assert found.high is not None
    high = 100 * found.high
    assert found.reason == f"at most {high:+.1f} % slower; a slow-down of +3.0 % would show"


def test_faster_code_passes() -> None:
    found = alone(steady(-0.30, 0.01))
    assert (found.kind, found.trials) == (Kind.PASS, RULE.screen)
    assert found.effect == pytest.approx(-0.30, abs=0.001)


def test_seconds_are_medians_of_the_trials() -> None:
    times = [(1.0, 2.0), (1.0, 2.0), (1.1, 2.2), (1.2, 2.4), (9.0, 0.1), (1.3, 2.6)]
    says = listed([timed(0.0, 0.001, base_s=b, head_s=h) for b, h in times])
    found = alone(says)
    assert (found.base_s, found.head_s) == pytest.approx((1.15, 2.1))


def test_none_of_no_cells() -> None:
    findings, source = decided({})
    assert findings == {}
    assert source.asked == []


def test_the_order_of_the_result_is_that_of_the_cells() -> None:
    cells = {"z": suspected(steady(0.1)), "a": QUIET, "m": suspected(QUIET), "b": QUIET}
    findings, _ = decided(cells)
    assert [(name, found.kind) for name, found in findings.items()] == [
        ("z", Kind.FAIL), ("a", Kind.PASS), ("m", Kind.PASS), ("b", Kind.PASS)
    ]  # fmt: skip


# --- fresh trials -------------------------------------------------------------------------


def test_a_slow_down_fails_and_is_judged_by_fresh_trials_alone() -> None:
    # spread out, so that it is not suspected early
    findings, source = decided({"a": suspected(steady(0.10)), "b": QUIET})
    found = findings["a"]
    assert (found.kind, found.fresh, found.trials) == (Kind.FAIL, True, RULE.looks[0])
    assert found.effect == pytest.approx(0.10, abs=0.003)
    assert found.d == tuple(steady(0.10)(i).d for i in range(RULE.looks[0]))
    assert source.asked[RULE.screen :] == [("a",)] * RULE.looks[0]
    assert findings["b"].kind is Kind.PASS


@pytest.mark.parametrize("early", [True, False])
def test_who_was_picked_out_for_a_bad_draw_is_not_judged_by_it(early: bool) -> None:
    rule = RULE if early else LATE
    bad, count = steady(0.25, 0.01), rule.early if early else rule.screen
    says = then(count, bad, QUIET)
    pooled = weighed(says, range(count + rule.looks[0]))
    share = rule.alpha * rule.spent[0]
    # together they would fail, by the median and by p
    assert early or pooled["effect"] >= rule.least_margin
    assert early or pooled["p"] < share
    found = alone(says, rule)
    assert (found.kind, found.fresh, found.trials) == (Kind.PASS, True, rule.looks[0])
    assert found.high < 0.01


def test_nor_by_a_good_one() -> None:
    """Slow from the screen's end on: what was quick before must not dilute it."""
    good = listed([timed(0.0), timed(0.10), timed(-0.05), timed(0.08), timed(0.0), timed(0.09)])
    found = alone(then(LATE.screen, good, steady(0.05)), LATE)
    assert (found.kind, found.trials) == (Kind.FAIL, LATE.looks[0])
    assert found.effect == pytest.approx(0.05, abs=0.003)


def test_the_reason_names_the_slow_down_its_interval_and_p() -> None:
    found = alone(suspected(steady(0.10)))
    assert found.effect is not None
    assert found.low is not None
    assert found.high is not None
    assert found.reason.startswith(
        f"slower by {100 * found.effect:+.1f} % ({100 * found.low:+.1f} % to "
        f"{100 * found.high:+.1f} %), p = "
    )
    assert found.reason.endswith(f" over {RULE.looks[0]} fresh trials")


def test_who_is_surely_above_the_tolerance_is_not_cleared_by_the_screen() -> None:
    """2.5 % is under what fails; but a change of so much may be more, and gets fresh trials."""
    for effect, fresh in ((0.025, True), (0.015, False)):
        found = alone(steady(effect, 0.001), LATE)
        assert (found.kind, found.fresh) == (Kind.PASS, fresh)


def test_nor_is_who_may_be_slower_than_the_margin() -> None:
    """4.6 % would show, and up to 5.3 % are possible; p is no small one."""
    for effect, fresh in ((0.03, True), (0.015, False)):
        says = then(LATE.screen, steady(effect, 0.03), QUIET)
        assert weighed(says, range(LATE.screen))["p"] > LATE.flag_p
        found = alone(says, LATE)
        assert (found.kind, found.fresh) == (Kind.PASS, fresh)


# --- suspected at once --------------------------------------------------------------------


def test_who_is_far_slower_is_suspected_early() -> None:
    findings, source = decided({"a": steady(1.0), "b": QUIET})
    assert (findings["a"].kind, findings["a"].trials) == (Kind.FAIL, RULE.looks[0])
    assert findings["a"].d == tuple(steady(1.0)(RULE.early + i).d for i in range(RULE.looks[0]))
    assert source.seen == {"a": RULE.early + RULE.looks[0], "b": RULE.screen}
    assert findings["b"].kind is Kind.PASS


def test_it_is_left_out_of_the_screens_rest_once_it_is_found() -> None:
    rule = replace(RULE, screen=RULE.early + RULE.looks[0] + 2)
    _, source = decided({"a": steady(1.0), "b": QUIET}, rule)
    together = RULE.early + RULE.looks[0]
    assert source.asked == [("a", "b")] * together + [("b",)] * 2


def test_a_p_that_is_not_so_small_waits_for_the_screens_end() -> None:
    says = BAD
    assert RULE.early_p < weighed(says, range(RULE.early))["p"]
    found, source = decided({"a": says})
    assert source.seen["a"] == RULE.screen + found["a"].trials
    assert found["a"].d == tuple(says(RULE.screen + i).d for i in range(found["a"].trials))


def test_the_rule_says_how_small_it_must_be() -> None:
    says = BAD
    p = weighed(says, range(RULE.early))["p"]
    for share, count in ((0.99, RULE.screen), (1.01, RULE.early)):
        found = alone(says, replace(RULE, early_p=share * p))
        assert found.d[0] == says(count).d
        assert len(found.d) == found.trials


def test_only_trials_without_heat_count_for_it() -> None:
    fast, slow = timed(0.0), timed(0.7, 0.001)
    # the first two are spoilt: its third good trial is the screen's fifth
    says = listed([replace(fast, throttled=True)] * 2 + [slow] * 20)
    found, source = decided({"a": says})
    assert (found["a"].kind, found["a"].trials) == (Kind.FAIL, RULE.looks[0])
    assert source.seen["a"] == 2 + RULE.early + RULE.looks[0]


def test_a_screen_that_gets_bad_after_the_early_look_is_suspected_at_its_end() -> None:
    says = then(RULE.early, QUIET, steady(0.5))
    found, source = decided({"a": says})
    assert found["a"].kind is Kind.FAIL
    assert source.seen["a"] == RULE.screen + found["a"].trials


# --- progress -----------------------------------------------------------------------------


def test_it_tells_where_it_is() -> None:
    told: list[tuple[int, int, str]] = []
    cells = {"a": suspected(steady(0.10)), "b": QUIET, "c": steady(0.0, 0.05)}
    decide(list(cells), Script(cells), RULE, lambda *each: told.append(each))
    screen, later = told[: RULE.screen], told[RULE.screen :]
    assert screen == [(i, RULE.screen, "screen: 3 cells") for i in range(RULE.screen)]
    assert later[0][1:] == (RULE.looks[-1], "confirm: 1 cells suspected, 1 to be seen better")
    assert later[-1][1:] == (RULE.looks[-1], "confirm: 0 cells suspected, 1 to be seen better")
    assert [each[0] for each in later] == list(range(RULE.screen, RULE.screen + len(later)))
