"""Rounds and halving: who is put out when, who never is, in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from bench.clocks import ClockError
from bench.tune_rounds import STAGES, Lane, race
from tests.tuning_samples import RaceClock

ALL = sum(STAGES)


def run_race(times: dict[str, float], keep: str | None = None) -> tuple[dict[str, Lane], list[str]]:
    clock = RaceClock(lambda name: times[name])
    runs: dict[str, Callable[[], str]] = {name: lambda name=name: name for name in times}  # type: ignore[misc]
    return race(runs, clock, keep), clock.order


def test_the_slower_half_goes_after_each_stage_but_the_last() -> None:
    times = {f"t{n}": (10 + n) * 1e-5 for n in range(8)}
    lanes, _ = run_race(times)
    left = {name: len(lane.samples_s) for name, lane in lanes.items()}
    edges = [STAGES[0], sum(STAGES[:2]), sum(STAGES[:3]), ALL]
    assert list(left.values()) == [edges[3], edges[2], *[edges[1]] * 2, *[edges[0]] * 4]
    assert {n: lane.out_after for n, lane in lanes.items() if lane.out_after is None} == {
        "t0": None
    }


def test_none_that_is_close_to_the_fastest_goes() -> None:
    lanes, _ = run_race({"a": 100e-6, "b": 101e-6, "c": 101.5e-6, "d": 110e-6})
    assert [name for name, lane in lanes.items() if len(lane.samples_s) == ALL] == ["a", "b", "c"]


def test_none_goes_once_all_rounds_are_over() -> None:
    calls: Counter[str] = Counter()

    def late(name: str) -> float:
        calls[name] += 1
        return 150e-6 if name == "b" and calls[name] > 2 + ALL // 2 - 1 else 100e-6

    runs = {"a": lambda: "a", "b": lambda: "b"}
    lanes = race(runs, RaceClock(late))
    assert {name: (len(x.samples_s), x.out_after) for name, x in lanes.items()} == {
        "a": (ALL, None),
        "b": (ALL, None),
    }


def test_the_one_to_keep_stays_however_slow() -> None:
    lanes, _ = run_race({"slow": 900e-6, "a": 100e-6, "b": 200e-6, "c": 300e-6}, keep="slow")
    assert len(lanes["slow"].samples_s) == ALL
    assert lanes["c"].out_after == STAGES[0]


def test_all_are_in_every_round_and_the_order_turns() -> None:
    _, order = run_race(dict.fromkeys("abc", 300e-6))
    rounds = order[6:]  # each was called twice before
    assert order[:6] == list("aabbcc")
    assert ["".join(rounds[n : n + 3]) for n in (0, 3, 6, 9)] == ["abc", "bca", "cab", "abc"]
    assert Counter(rounds) == dict.fromkeys("abc", ALL)


def test_short_calls_are_repeated_until_a_sample_is_long_enough() -> None:
    lanes, _ = run_race({"short": 10e-6, "long": 1e-3}, keep="long")
    assert (lanes["short"].repeats, lanes["long"].repeats) == (20, 1)


def test_what_raises_is_out_alone() -> None:
    def breaks() -> str:
        raise RuntimeError("no")

    clock = RaceClock(lambda name: 1e-4)
    lanes = race(
        {"a": lambda: "a", "b": breaks}, clock, None, lambda name, error: f"{name} {error}"
    )
    assert (lanes["b"].reason, lanes["b"].samples_s) == ("b no", [])
    assert len(lanes["a"].samples_s) == ALL
    assert race({}, clock) == {}


def test_a_clock_that_stands_still_is_an_error() -> None:
    with pytest.raises(ClockError):
        race({"a": lambda: "a"}, RaceClock(lambda name: 0.0))
