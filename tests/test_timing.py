"""The rules of timing, on a scripted clock: no second here is a real one."""

from __future__ import annotations

import math
from contextlib import contextmanager

import pytest

from bench.clocks import Armed, ClockError
from bench.records import Flag
from bench.stats import median
from bench.timing import BLOCK_ROUNDS, LEAST_ROUNDS, RETRIES, SLOW, StopRule, time_together
from bench.warmup import WARMUP_LAUNCHES
from tests.scripted_clock import ScriptedClock, ScriptedWatch, steady


def timed(scripts, reference=None, rule=StopRule(), watch=None, **options):  # noqa: B008 - frozen
    clock = ScriptedClock(scripts, **options)
    runs = {name: (lambda name=name: name) for name in scripts}
    return time_together(runs, clock, rule, reference, watch), clock


def test_steady_kernels_stop_at_the_least_number_of_rounds():
    result, _ = timed({"a": steady(0.01), "b": steady(0.02)})
    assert [len(t.samples_s) for t in result.values()] == [LEAST_ROUNDS] * 2
    assert all(not t.flags for t in result.values())
    assert len({t.detail["rounds"] for t in result.values()}) == 1


def test_warm_up_has_launches_and_seconds():
    """A kernel of 1 ms needs 200 launches for 0.2 s; its slow first ones are in no sample."""
    slow_start = lambda n: 1.0 if n == 0 else 0.001  # noqa: E731
    result, clock = timed({"a": slow_start})
    assert max(result["a"].samples_s) == 0.001
    assert clock.launches["a"] >= LEAST_ROUNDS + WARMUP_LAUNCHES
    result, clock = timed({"a": steady(0.001)})
    assert clock.launches["a"] >= LEAST_ROUNDS + 199


def test_a_slow_start_is_over_before_the_first_sample():
    """Clocks that ramp up for half a second: windows that still differ prolong the warm-up."""
    ramp = lambda n: 0.005 * (1 + 0.5 * math.exp(-n / 40))  # noqa: E731
    result, clock = timed({"a": ramp})
    assert clock.launches["a"] > LEAST_ROUNDS + 41  # 0.2 s alone would be over after 40
    assert max(result["a"].samples_s) < 0.00504
    assert not result["a"].flags


def test_a_warm_up_that_never_settles_is_flagged():
    result, clock = timed({"a": lambda n: 0.01 * 1.005**n})
    assert Flag.WARMUP_UNSTABLE in result["a"].flags
    assert sum(0.01 * 1.005**n for n in range(clock.launches["a"] - LEAST_ROUNDS)) < 20


def test_a_call_of_seconds_does_not_warm_up_for_ever():
    result, clock = timed({"a": steady(2.0)}, rule=StopRule(cap_s=6))
    assert clock.launches["a"] <= 2 + 4
    assert Flag.WARMUP_UNSTABLE in result["a"].flags
    assert Flag.NOISY in result["a"].flags


def test_short_kernels_are_repeated_within_a_sample():
    result, _ = timed({"a": lambda n: 10e-6})
    assert result["a"].detail["repeats"] == 20


def test_a_graph_of_ten_calls_is_warmed_up_and_repeated_as_one():
    """Replays of 50 us: 0.2 s of them, four a sample, seconds told by the call."""
    clock = ScriptedClock({"a": lambda n: 50e-6})
    clock.arm = lambda run: Armed(run, 10)
    result = time_together({"a": lambda: "a"}, clock, StopRule())["a"]
    assert 4000 <= clock.launches["a"] - LEAST_ROUNDS <= 4001
    assert result.detail["repeats"] == 4
    assert result.samples_s == pytest.approx([5e-6] * LEAST_ROUNDS)


def test_orders_alternate():
    _, clock = timed({"a": steady(0.01), "b": steady(0.01)})
    rounds = clock.order[-2 * LEAST_ROUNDS :]
    assert rounds[::2].count("a") == rounds[::2].count("b") == LEAST_ROUNDS // 2


def test_a_stalled_round_is_rejected_for_all_and_counted():
    """The reference three times slower in two rounds of sampling: the machine stalled."""
    stall = lambda n: 0.06 if n in (42, 43) else 0.02  # noqa: E731
    result, _ = timed({"dense": stall, "ours": steady(0.01)}, reference="dense")
    assert result["dense"].detail["rounds_rejected"] == 2
    assert len(result["dense"].samples_s) == len(result["ours"].samples_s)
    assert len(result["dense"].samples_s) >= LEAST_ROUNDS
    assert max(result["dense"].samples_s) == 0.02


def test_a_stall_is_more_than_fifteen_percent():
    slower = {42: 1.2, 43: 1.14, 44: 1.16}
    result, _ = timed(
        {"dense": lambda n: 0.02 * slower.get(n, 1.0), "ours": steady(0.01)}, reference="dense"
    )
    assert result["dense"].detail["rounds_rejected"] == 2
    assert max(result["dense"].samples_s) == 0.02 * 1.14


def test_a_spike_of_ours_is_kept():
    spike = lambda n: 0.1 if n == 45 else 0.01  # noqa: E731
    result, _ = timed({"dense": steady(0.02), "ours": spike}, reference="dense")
    assert max(result["ours"].samples_s) == 0.1
    assert median(result["ours"].samples_s) == 0.01
    assert not result["ours"].flags  # one of thirty does not widen the median's interval


def test_noise_ends_at_the_cap_and_is_flagged():
    wild = lambda n: 0.01 * (1 + (n * 7 % 11) / 11)  # noqa: E731
    result, _ = timed({"a": wild}, rule=StopRule(precision=0.01, cap_s=2.0))
    assert Flag.NOISY in result["a"].flags
    assert Flag.BIMODAL not in result["a"].flags
    assert 2.0 <= sum(result["a"].samples_s) < 2.1


def test_two_speeds_are_flagged_bimodal():
    two = lambda n: 0.01 if n % 3 else 0.012  # noqa: E731
    result, _ = timed({"a": two}, rule=StopRule(precision=0.01, cap_s=2.0))
    assert Flag.BIMODAL in result["a"].flags


def test_drift_is_seen_as_noise():
    result, _ = timed({"a": lambda n: 0.01 * 1.02**n}, rule=StopRule(cap_s=1.0))
    assert Flag.NOISY in result["a"].flags


@pytest.mark.parametrize("reference", [None, "absent"])
def test_without_a_reference_nothing_is_rejected(reference):
    result, _ = timed({"a": steady(0.01)}, reference=reference)
    assert result["a"].detail["rounds_rejected"] == 0


def test_what_is_much_slower_has_rounds_of_its_own():
    scripts = {"dense": steady(0.01), "slow": steady(0.01 * SLOW * 2), "ours": steady(0.005)}
    result, clock = timed(scripts, reference="dense", rule=StopRule(cap_s=1))
    token = {name: t.detail["rounds"] for name, t in result.items()}
    assert token["dense"] == token["ours"] != token["slow"]
    assert len(result["ours"].samples_s) == LEAST_ROUNDS
    assert list(result) == list(scripts)
    assert Flag.NOISY in result["slow"].flags  # the cap leaves it fewer than thirty
    assert set(clock.order[-4:]) == {"dense", "slow"}


@pytest.mark.parametrize("cause", ["thermal", "brake"])
def test_a_throttled_block_is_discarded_and_taken_again_after_a_rest(cause):
    """Blocks: one good, one throttled and slow, then good ones."""
    first = 40 + BLOCK_ROUNDS  # launches of warm-up and the first block
    slowed = lambda n: 0.02 if first <= n < first + BLOCK_ROUNDS else 0.005  # noqa: E731
    watch = ScriptedWatch(None, None, cause)
    result, clock = timed({"a": slowed}, watch=watch)
    assert set(result["a"].samples_s) == {0.005}
    assert result["a"].detail["rounds_discarded"] == BLOCK_ROUNDS
    assert len(clock.waits) == 1
    assert Flag.THROTTLED not in result["a"].flags
    assert watch.ticks == LEAST_ROUNDS + BLOCK_ROUNDS


def test_what_stays_throttled_is_flagged_and_ends():
    watch = ScriptedWatch(*["thermal"] * 100)
    result, clock = timed({"a": steady(0.01)}, watch=watch)
    assert Flag.THROTTLED in result["a"].flags
    assert len(clock.waits) == RETRIES
    assert len(result["a"].samples_s) == LEAST_ROUNDS


def test_a_power_cap_is_a_label_and_discards_nothing():
    result, clock = timed({"a": steady(0.01)}, watch=ScriptedWatch(None, "power"))
    assert result["a"].flags == [Flag.POWER_LIMITED]
    assert not clock.waits
    assert result["a"].detail["rounds_discarded"] == 0


def test_what_takes_longer_to_enqueue_than_to_run_is_launch_bound():
    result, _ = timed({"a": steady(0.01), "b": steady(0.01)}, enqueue={"a": 0.011, "b": 0.009})
    assert result["a"].flags == [Flag.LAUNCH_BOUND]
    assert not result["b"].flags
    assert result["b"].detail["enqueue_s"] == 0.009


@pytest.mark.parametrize("bad", [0.0, -0.01, math.nan, math.inf])
@pytest.mark.parametrize("when", [0, 50])
def test_a_clock_without_a_positive_number_is_refused(bad, when):
    """Samples of 0 s would divide by zero, or record an infinitely fast kernel."""
    with pytest.raises(ClockError, match="clock"):
        timed({"a": lambda n: bad if n == when else 0.01})


@pytest.mark.parametrize("script", [lambda t: 5.0, lambda t: 5.0 - t])
def test_host_time_that_stands_still_or_runs_back_is_refused(script):
    """The cap would never be reached."""
    clock = ScriptedClock({"a": lambda n: 0.01 + 0.01 * (n % 2)})
    real = clock.now
    clock.now = lambda: script(real())
    with pytest.raises(ClockError, match="clock"):
        time_together({"a": lambda: "a"}, clock, StopRule())


def test_phases_are_named():
    seen = []

    @contextmanager
    def phase(name):
        seen.append(name)
        yield

    clock = ScriptedClock({"a": steady(0.01)})
    time_together({"a": lambda: "a"}, clock, StopRule(), phase=phase)
    assert seen == ["warm_up", "sample"]
