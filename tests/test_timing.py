"""The rules of timing, on a scripted clock: no second here is a real one."""

from __future__ import annotations

from itertools import count

import pytest

from bench.records import Flag
from bench.timing import LEAST_ROUNDS, WARMUP_LAUNCHES, StopRule, time_together


class Scripted:
    """A clock whose samples come from functions of the sample's number."""

    mode = "hot"

    def __init__(self, scripts):
        self.scripts, self.time, self.order = scripts, 0.0, []
        self.launches = dict.fromkeys(scripts, 0)

    def sample(self, run, repeats):
        name = run()
        taken = self.scripts[name](self.launches[name])
        self.launches[name] += 1
        self.order.append(name)
        self.time += taken * repeats
        return taken

    def now(self):
        return self.time


def steady(seconds):
    return lambda n: seconds * (1 + 0.001 * (n % 3))


def timed(scripts, reference=None, rule=StopRule()):  # noqa: B008 - frozen
    clock = Scripted(scripts)
    runs = {name: (lambda name=name: name) for name in scripts}
    return time_together(runs, clock, rule, reference), clock


def test_steady_kernels_stop_at_the_least_number_of_rounds():
    result, _ = timed({"a": steady(0.01), "b": steady(0.02)})
    assert [len(t.samples_s) for t in result.values()] == [LEAST_ROUNDS] * 2
    assert all(not t.flags for t in result.values())


def test_warm_up_has_launches_and_seconds():
    """A kernel of 1 ms needs 200 launches for 0.2 s; its slow first ones are in no sample."""
    slow_start = lambda n: 1.0 if n == 0 else 0.001  # noqa: E731
    result, clock = timed({"a": slow_start})
    assert max(result["a"].samples_s) == 0.001
    assert clock.launches["a"] >= LEAST_ROUNDS + WARMUP_LAUNCHES
    result, clock = timed({"a": steady(0.001)})
    assert clock.launches["a"] >= LEAST_ROUNDS + 199


def test_short_kernels_are_repeated_within_a_sample():
    result, _ = timed({"a": lambda n: 10e-6})
    assert result["a"].detail["repeats"] == 20


def test_orders_alternate():
    _, clock = timed({"a": steady(0.01), "b": steady(0.01)})
    rounds = clock.order[-2 * LEAST_ROUNDS :]
    firsts = set(rounds[::2])
    assert firsts == {"a", "b"}


def test_a_stalled_round_is_rejected_for_all_and_counted():
    """The reference three times slower in rounds 5 and 6 of sampling: the machine stalled."""
    stall = lambda n: 0.06 if n in (25, 26) else 0.02  # noqa: E731
    result, _ = timed({"dense": stall, "ours": steady(0.01)}, reference="dense")
    assert result["dense"].detail["rounds_rejected"] == 2
    assert len(result["dense"].samples_s) == len(result["ours"].samples_s) == LEAST_ROUNDS
    assert max(result["dense"].samples_s) == 0.02


def test_a_slow_sample_of_ours_is_kept():
    spike = lambda n: 0.1 if n == 25 else 0.01  # noqa: E731
    result, _ = timed({"dense": steady(0.02), "ours": spike}, reference="dense")
    assert max(result["ours"].samples_s) == 0.1


def test_noise_ends_at_the_cap_and_is_flagged():
    wild = lambda n: 0.01 if n % 2 else 0.02  # noqa: E731
    result, _ = timed({"a": wild}, rule=StopRule(precision=0.01, cap_s=2.0))
    assert result["a"].flags == [Flag.NOISY]
    assert 2.0 <= sum(result["a"].samples_s) < 2.1


def test_drift_is_seen_as_noise():
    result, _ = timed({"a": lambda n: 0.01 * 1.02**n}, rule=StopRule(cap_s=1.0))
    assert result["a"].flags == [Flag.NOISY]


@pytest.mark.parametrize("reference", [None, "absent"])
def test_without_a_reference_nothing_is_rejected(reference):
    result, _ = timed({"a": steady(0.01)}, reference=reference)
    assert result["a"].detail["rounds_rejected"] == 0


def test_a_clock_that_does_not_move_is_refused():
    """Samples of 0 s would divide by zero, or record an infinitely fast kernel."""
    ticks = count()
    clock = Scripted({"a": lambda n: 0.0})
    clock.now = lambda: next(ticks) * 1.0
    with pytest.raises(ValueError, match="clock"):
        time_together({"a": lambda: "a"}, clock, StopRule())
