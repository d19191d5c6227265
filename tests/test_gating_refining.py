"""bench.gating.decide: noise that hides a slow-down, and trials that go on to see better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.gating.evidence import weigh
from bench.verdict import VerdictKind
from tests.gating_samples import (
    LATE,
    RULE,
    Says,
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


# --- noise --------------------------------------------------------------------------------


def test_too_noisy_is_said() -> None:
    found, source = decided({"a": steady(0.0, 0.5)})
    each = found["a"]
    assert each.kind is Kind.INCONCLUSIVE
    assert each.margin is not None
    assert each.margin > RULE.worst_margin
    count = RULE.looks[-1]
    assert each.reason.startswith(
        f"too noisy: {count} trials cannot see less than {100 * each.margin:+.1f} % ("
    )
    assert len(source.asked) == RULE.screen + count


def test_the_worst_margin_itself_is_good_enough() -> None:
    least = replace(RULE, worst_margin=RULE.least_margin, see=RULE.least_margin)
    assert (alone(QUIET, least).kind, alone(QUIET, least).fresh) == (Kind.PASS, False)
    assert alone(suspected(QUIET), least).kind is Kind.PASS
    less = replace(least, worst_margin=RULE.least_margin - 1e-9)
    assert alone(QUIET, less).kind is Kind.INCONCLUSIVE
    assert alone(suspected(QUIET), less).kind is Kind.INCONCLUSIVE


def test_two_clusters_are_said() -> None:
    """Trials around -11 and 14 %: a mean of almost nothing, which no trial was at."""
    two = listed([timed(-0.120, 0.002), timed(0.130, 0.002), timed(-0.118), timed(0.132)])
    for count, said in ((9, False), (10, True)):
        found = alone(suspected(two), affordable=RULE.screen + count)
        assert found.trials == count
        assert found.reason.endswith("; trials in two clusters") == said
    even = alone(listed([timed(0.05 * (i * 3 % 7)) for i in range(7)]))
    assert found.trials >= 10
    assert "clusters" not in even.reason


def test_two_clusters_of_laps_are_said_where_most_trials_have_them() -> None:
    flagged, plain = (timed(0.0, 0.001, flags=f) for f in (("noisy", "bimodal"), ("noisy",)))
    half = RULE.screen // 2
    for count in (0, half, half + 1, RULE.screen):
        found = alone(then(count, lambda _: flagged, lambda _: plain))
        assert found.reason.endswith("; bimodal within most trials") == (count > half)
        assert found.reason.count("bimodal") == (count > half)
        assert "noisy" not in found.reason


# --- cells to be seen better --------------------------------------------------------------


def margin(says: Says, count: int) -> float:
    """Return the margin after so many trials."""
    d, a = (np.array([[getattr(says(i), name) for i in range(count)]]) for name in "da")
    return float(weigh(d, a, RULE).margin[0])


def test_trials_go_on_until_the_run_sees_as_little_as_was_asked_for() -> None:
    says = steady(0.0, 0.05)
    found, source = decided({"a": says, "b": QUIET})
    each = found["a"]
    assert (each.kind, each.fresh) == (Kind.PASS, False)
    assert RULE.screen < each.trials == source.seen["a"]
    assert margin(says, each.trials) <= RULE.see < margin(says, each.trials - 1)
    assert found["b"].trials == RULE.screen


def test_or_until_there_were_as_many_as_the_rule_has_for_it() -> None:
    says = steady(0.0, 0.06)
    rule = replace(RULE, see=RULE.least_margin)
    assert rule.see < margin(says, RULE.most) < RULE.worst_margin
    found, source = decided({"a": says}, rule)
    each = found["a"]
    assert (each.kind, each.fresh, each.trials) == (Kind.PASS, False, RULE.most)
    assert len(source.asked) == RULE.most
    assert alone(says, replace(rule, most=rule.screen)).trials == rule.screen


def test_or_until_time_is_over() -> None:
    each = alone(steady(0.0, 0.05), affordable=RULE.screen + 2)
    assert (each.kind, each.trials) == (Kind.PASS, RULE.screen + 2)
    assert each.margin is not None
    assert RULE.see < each.margin <= RULE.worst_margin


def test_one_that_gets_worse_becomes_a_suspect_and_is_judged_by_what_follows() -> None:
    says = then(RULE.screen, steady(0.0, 0.05), steady(0.15, 0.01))
    found, source = decided({"a": says})
    each = found["a"]
    assert (each.kind, each.fresh, each.trials) == (Kind.FAIL, True, RULE.looks[0])
    assert source.seen["a"] > RULE.screen + RULE.looks[0]
    assert each.effect == pytest.approx(0.15, abs=0.02)
    assert len({round(d, 6) for d in each.d}) == 2  # of the later trials alone


def test_one_that_gets_better_again_is_cleared_by_what_follows() -> None:
    worse = [timed(0.2, 0.01), timed(0.21, 0.01), timed(0.2, 0.01)]
    says = then(LATE.screen, steady(0.0, 0.05), lambda i: worse[i] if i < 3 else QUIET(i))
    each = alone(says, LATE)
    assert (each.kind, each.fresh) == (Kind.PASS, True)
