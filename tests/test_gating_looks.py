"""bench.gating.decide: looks, their share of alpha, Holm, and slow-downs that nobody minds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.gating.readings import Reading
from bench.verdict import VerdictKind
from tests.gating_samples import (
    FOUR,
    LATE,
    RULE,
    alone,
    decided,
    hot,
    steady,
    suspected,
    then,
    timed,
    with_p,
)

Kind = VerdictKind
LOW, HIGH = FOUR.alpha / 2, FOUR.alpha  # p between them is enough for one test, not for two
BETWEEN = 0.7 * FOUR.alpha
UNSURE = suspected(steady(0.028, 0.012))  # significant in the end, and under 3 %


def kinds(cells, rule) -> dict[str, VerdictKind]:
    """Return what was found of cells that all had a bad screen."""
    slow = {name: suspected(says) for name, says in cells.items()}
    return {name: found.kind for name, found in decided(slow, rule)[0].items()}


# --- looks --------------------------------------------------------------------------------


def test_a_clear_slow_down_is_found_at_the_first_look() -> None:
    found, source = decided({"a": suspected(steady(0.06))})
    assert (found["a"].kind, found["a"].trials) == (Kind.FAIL, RULE.looks[0])
    assert len(source.asked) == RULE.screen + RULE.looks[0]


def test_equal_code_is_cleared_at_the_first_look() -> None:
    found, source = decided({"a": suspected(steady(0.0))})
    assert (found["a"].kind, found["a"].trials) == (Kind.PASS, RULE.looks[0])
    assert found["a"].fresh
    assert len(source.asked) == RULE.screen + RULE.looks[0]


@pytest.mark.parametrize("later", [steady(0.12, 0.001), steady(0.0, 0.001)])
def test_between_looks_nobody_is_judged(later) -> None:
    """Undecided at the first look, and as clear as day one trial after it."""
    wide = [timed(0.3, 0.1), timed(-0.2, -0.1)]
    count = RULE.looks[0]
    found = alone(suspected(then(count, lambda i: wide[i % 2], later)))
    assert found.kind in (Kind.PASS, Kind.FAIL)
    assert found.trials in RULE.looks[1:]
    assert len(found.d) == found.trials


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_each_look_has_its_share_of_alpha(share: float) -> None:
    first = replace(FOUR, looks=(4, 50, 60), spent=(share, 1.0, 1.0))
    second = replace(FOUR, looks=(2, 4, 60), spent=(0.0, share, 1.0))
    for rule in (first, second):
        for p, kind in ((0.9, Kind.FAIL), (1.1, Kind.INCONCLUSIVE)):
            # time is over after this look
            wanted = p * share * rule.alpha
            found = alone(suspected(with_p(wanted)), rule, rule.screen + 4)
            assert (found.kind, found.p) == (kind, pytest.approx(wanted))


def test_alpha_is_the_rules() -> None:
    for alpha, kind in ((0.02, Kind.INCONCLUSIVE), (0.04, Kind.FAIL)):
        assert alone(suspected(with_p(0.03)), replace(FOUR, alpha=alpha)).kind is kind


def test_it_ends_after_the_last_look() -> None:
    found, source = decided({"a": UNSURE})
    assert (found["a"].kind, found["a"].trials) == (Kind.INCONCLUSIVE, RULE.looks[-1])
    assert len(source.asked) == RULE.screen + RULE.looks[-1]
    assert found["a"].reason.startswith("neither slower nor as fast: ")
    assert found["a"].reason.endswith(f" after {RULE.looks[-1]} trials")


def test_who_has_used_all_looks_waits_for_the_others_in_peace() -> None:
    """There was an IndexError once: later looks asked it for its next one."""
    late = suspected(then(5, hot, steady(0.028, 0.012)))
    found, source = decided({"a": UNSURE, "b": late, "c": suspected(steady(0.0))})
    assert {n: f.kind for n, f in found.items() if f.kind is not Kind.PASS} == dict.fromkeys(
        "ab", Kind.INCONCLUSIVE
    )
    assert source.seen["a"] == RULE.screen + RULE.looks[-1]
    assert source.seen["b"] == RULE.screen + RULE.looks[-1] + 5
    assert found["a"].trials == found["b"].trials == RULE.looks[-1]


# --- Holm ---------------------------------------------------------------------------------


def test_one_suspect_is_one_test() -> None:
    assert kinds({"a": with_p(BETWEEN)}, FOUR) == {"a": Kind.FAIL}


def test_two_suspects_are_two_tests() -> None:
    cells = {"a": with_p(BETWEEN), "b": with_p(BETWEEN)}
    assert kinds(cells, FOUR) == dict.fromkeys("ab", Kind.INCONCLUSIVE)


def test_holm_over_several_suspects() -> None:
    """p of 0.01, 0.04, 0.03, 0.005 become 0.03, 0.06, 0.06, 0.02."""
    cells = {n: with_p(p) for n, p in zip("abcd", (0.01, 0.04, 0.03, 0.005), strict=True)}
    assert kinds(cells, FOUR) == {
        "a": Kind.FAIL, "b": Kind.INCONCLUSIVE, "c": Kind.INCONCLUSIVE, "d": Kind.FAIL
    }  # fmt: skip


def test_it_is_holm_and_not_bonferroni() -> None:
    cells = {"a": with_p(0.0001), "b": with_p(0.0002), "c": with_p(BETWEEN)}
    assert set(kinds(cells, FOUR).values()) == {Kind.FAIL}


def test_the_reason_has_the_adjusted_p_and_the_finding_its_own() -> None:
    found = decided({n: suspected(with_p(0.004)) for n in "abcde"}, FOUR)[0]["c"]
    assert found.p == pytest.approx(0.004)
    assert ", p = 0.02 over 4 fresh trials" in found.reason


def test_cells_that_the_screen_cleared_are_no_tests() -> None:
    cells = {"a": suspected(with_p(BETWEEN))} | {n: steady(0.0) for n in "bcdefg"}
    assert decided(cells, FOUR)[0]["a"].kind is Kind.FAIL


def test_a_suspect_that_has_not_come_to_its_look_is_a_test_too() -> None:
    hotter = then(1, hot, steady(0.0))
    assert kinds({"a": with_p(BETWEEN), "b": hotter}, FOUR)["a"] is Kind.INCONCLUSIVE
    assert kinds({"a": with_p(0.9 * LOW), "b": hotter}, FOUR)["a"] is Kind.FAIL


def test_so_is_one_whose_fresh_trials_look_bad_but_are_too_few() -> None:
    """Three awful trials of b must not take the first place in Holm's order from a."""
    hotter = then(1, hot, steady(0.5, 0.001))
    assert kinds({"a": with_p(BETWEEN), "b": hotter}, FOUR)["a"] is Kind.INCONCLUSIVE


def test_a_suspect_that_was_cleared_before_is_still_a_test() -> None:
    late = then(1, hot, with_p(BETWEEN))
    assert kinds({"a": steady(0.0), "b": late}, FOUR) == {"a": Kind.PASS, "b": Kind.INCONCLUSIVE}


def test_a_suspect_that_turns_wrong_is_a_test_if_it_had_fresh_trials() -> None:
    wrong = Reading(head=("wrong", "off"))
    at_once, later = (then(count, steady(0.0), lambda _: wrong) for count in (0, 1))
    late = then(1, hot, with_p(BETWEEN))
    assert kinds({"a": at_once, "b": late}, FOUR) == {"a": Kind.WRONG, "b": Kind.FAIL}
    assert kinds({"a": later, "b": late}, FOUR) == {"a": Kind.WRONG, "b": Kind.INCONCLUSIVE}


def test_one_that_failed_before_keeps_its_place_in_the_order() -> None:
    late = then(1, hot, with_p(BETWEEN))
    assert kinds({"a": steady(0.3), "b": late}, FOUR) == dict.fromkeys("ab", Kind.FAIL)


def early_look(cells) -> dict[str, VerdictKind]:
    """Return what was found of cells after three trials that made them suspects at once.

    The screen is long enough for them to come to their only look within it.
    """
    rule = replace(FOUR, screen=RULE.early + 5, early_p=RULE.early_p)
    assert rule.looks[0] < 5
    slow = {n: then(RULE.early, steady(1.0), s) if n in "ab" else s for n, s in cells.items()}
    return {n: f.kind for n, f in decided(slow, rule)[0].items()}


def test_within_the_screen_whoever_may_become_a_suspect_is_a_test_too() -> None:
    assert early_look({"a": with_p(BETWEEN)})["a"] is Kind.FAIL
    assert early_look({"a": with_p(BETWEEN), "c": steady(0.0)})["a"] is Kind.INCONCLUSIVE
    assert early_look({"a": with_p(0.9 * LOW), "c": steady(0.0)})["a"] is Kind.FAIL


def test_a_suspect_or_a_cell_without_times_is_not_counted_once_more() -> None:
    hotter = then(1, hot, steady(0.0))
    assert early_look({"a": with_p(0.9 * LOW), "b": hotter})["a"] is Kind.FAIL
    skipped = Reading(base=("skipped", "no"), head=("skipped", "no"))
    assert early_look({"a": with_p(BETWEEN), "c": lambda _: skipped})["a"] is Kind.FAIL


# --- what nobody minds --------------------------------------------------------------------


def test_less_than_three_per_cent_never_fails_however_sure() -> None:
    found = alone(steady(0.0299, 1e-6))
    assert found.p is not None
    assert found.p < 1e-9
    assert (found.kind, found.fresh) == (Kind.PASS, True)
    assert alone(steady(0.0301, 1e-6)).kind is Kind.FAIL


def test_who_is_surely_slower_fails_though_nobody_could_have_promised_to_see_so_little() -> None:
    found = alone(suspected(with_p(0.03, 0.04)), FOUR)
    assert found.kind is Kind.FAIL
    assert found.effect is not None
    assert found.margin is not None
    assert FOUR.least_margin < found.effect < found.margin


def test_it_is_the_median_that_must_reach_it() -> None:
    """A mean of 5 %, p of 0.04, but half of the trials are at 2.5 %."""
    logs = np.log1p([0.025, 0.075, 0.025, 0.033])
    found = alone(suspected(lambda i: timed(float(logs[i % 4]), 0.001)), replace(FOUR, alpha=0.4))
    assert found.p is not None
    assert found.p < 0.2
    assert found.effect == pytest.approx(0.029, abs=1e-4)
    assert found.kind is Kind.INCONCLUSIVE


def test_the_least_margin_itself_fails() -> None:
    effect = float(np.expm1(0.08))
    assert alone(lambda _: timed(0.08), replace(RULE, least_margin=effect)).kind is Kind.FAIL
    more = float(np.nextafter(effect, 1))
    assert alone(lambda _: timed(0.08), replace(RULE, least_margin=more)).kind is not Kind.FAIL


def test_less_than_a_microsecond_never_fails() -> None:
    for base_s, kind in ((9e-6, Kind.INCONCLUSIVE), (11e-6, Kind.FAIL)):
        says = steady(0.10, base_s=base_s, head_s=1.10 * base_s)
        found = alone(says)
        assert found.kind is kind
        assert found.p is not None
        assert found.p < 1e-3


def test_a_microsecond_itself_fails() -> None:
    least = 2.0**-20
    for more, kind in ((least, Kind.FAIL), (least - 2.0**-40, Kind.INCONCLUSIVE)):
        says = steady(0.10, base_s=0.5, head_s=0.5 + more)
        assert alone(says, replace(RULE, least_s=least)).kind is kind


def test_seconds_are_compared_by_their_medians_of_fresh_trials() -> None:
    """In the screen it lost a second; after it, nothing."""
    screen = steady(0.10, 0.02, base_s=1.0, head_s=2.0)
    later = steady(0.10, base_s=1.0, head_s=1.0)
    assert alone(then(LATE.screen, screen, later), LATE).kind is Kind.INCONCLUSIVE


def test_faster_code_never_fails_by_its_scatter() -> None:
    found = alone(suspected(steady(-0.2, 0.10)))
    assert found.kind is not Kind.FAIL
