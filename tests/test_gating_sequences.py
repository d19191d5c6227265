"""bench.gating.decide over whatever a machine may say: it ends, and keeps its promises."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.gating.readings import Reading
from bench.gating.rule import Rule
from bench.verdict import VerdictKind
from tests.gating_samples import decided, listed

RULE = Rule()
SHORT = replace(
    RULE, screen=4, looks=(2, 3, 5), spent=(0.1, 0.3, 0.6), most=6
)  # the same, in less time
outcomes = st.sampled_from([
    ("skipped", "no kernel"), ("wrong", "off"), ("crashed", "NameError: x"), ("timeout", "60 s")
])  # fmt: skip


def times(low: float, high: float) -> st.SearchStrategy[Reading]:
    """Return trials with a ``d`` between the two, quiet and not, hot and not."""
    spread = st.sampled_from([0.001, 0.01, 0.05, 0.3])
    seconds = st.floats(1e-7, 1e-2)

    def made(d: float, a: float, scale: float, base_s: float, hot: bool) -> Reading:
        return Reading(d, a * scale, base_s, base_s * math.exp(d), throttled=hot)

    rare = st.sampled_from([False] * 5 + [True])
    wide = st.floats(low, high)
    d = wide | wide.map(lambda d: max(low, min(high, d / 10)))  # most are near base
    return st.builds(made, d, st.floats(-1, 1), spread, seconds, rare)


failed = st.builds(Reading, base=outcomes, head=st.none() | outcomes) | st.builds(
    Reading, head=outcomes
)


def suites(each: st.SearchStrategy[Reading]) -> st.SearchStrategy[dict[str, list[Reading]]]:
    """Return cells with what they say, over and over."""
    return st.dictionaries(
        st.sampled_from("abcd"), st.lists(each, min_size=1, max_size=12), min_size=1
    )


rules = st.sampled_from([SHORT, SHORT, SHORT, RULE])


@settings(max_examples=60)
@given(suites(st.integers(0, 20).flatmap(lambda n: times(-1, 1) if n else failed)), rules)
def test_whatever_is_measured_it_ends_with_a_finding_for_each_cell(cells, rule) -> None:
    findings, source = decided({n: listed(r) for n, r in cells.items()}, rule)
    assert list(findings) == list(cells)
    # each trial brings a cell on, or is the last
    assert len(source.asked) <= rule.screen + len(cells) * (rule.most + rule.looks[-1]) + 1
    for found in findings.values():
        assert len(found.d) == found.trials
        assert (found.effect is None) == (found.trials == 0)
        if found.kind is VerdictKind.FAIL:
            assert found.fresh
            assert found.trials in rule.looks
            assert found.effect >= rule.least_margin
            assert found.p < rule.alpha * rule.spent[rule.looks.index(found.trials)]
            assert found.head_s - found.base_s >= rule.least_s
        if found.kind is VerdictKind.PASS and found.trials:
            assert found.high < found.margin <= rule.worst_margin


@settings(max_examples=30)
@given(suites(times(-1, 1).filter(lambda r: not r.throttled)), rules)
def test_without_heat_no_cell_has_more_trials_than_refining_and_all_looks(cells, rule) -> None:
    _, source = decided({n: listed(r) for n, r in cells.items()}, rule)
    assert max(source.seen.values()) <= rule.most + rule.looks[-1]


@settings(max_examples=60)
@given(suites(times(-1, math.log1p(RULE.tolerance))), rules)
def test_what_never_exceeds_the_tolerance_never_fails(cells, rule) -> None:
    findings, _ = decided({n: listed(r) for n, r in cells.items()}, rule)
    assert VerdictKind.FAIL not in {found.kind for found in findings.values()}


@settings(max_examples=30)
@given(suites(times(0.2, 0.3).map(lambda r: replace(r, throttled=False))))
def test_what_is_far_slower_never_passes(cells) -> None:
    findings, _ = decided({n: listed(r) for n, r in cells.items()})
    assert VerdictKind.PASS not in {found.kind for found in findings.values()}


@settings(max_examples=30)
@given(suites(times(-1, 1)), st.integers(0, 200))
def test_no_trial_is_made_that_is_not_paid_for(cells, extra) -> None:
    paid = len(cells) * SHORT.screen + extra
    findings, source = decided({n: listed(r) for n, r in cells.items()}, SHORT, paid)
    assert set(findings) == set(cells)
    assert source.paid <= paid
