"""Phases sum seconds by name, innermost first, and open ranges around them."""

from __future__ import annotations

import pytest

from bench.phases import Phases, overhead


class Ranges(list):
    def range_push(self, name):
        self.append(f"+{name}")

    def range_pop(self):
        self.append("-")


def scripted(*times):
    ticks = iter(times)
    return lambda: next(ticks)


def test_time_belongs_to_the_innermost_phase():
    phases = Phases("cpu", scripted(0, 1, 4, 6, 10, 13))
    with phases("check"), phases("oracle"):
        pass  # from 1 to 4 of 0 to 6
    with phases("check"):
        pass  # from 10 to 13
    assert phases.seconds == {"oracle": 3, "check": 3 + 3}


def test_an_exception_closes_phase_and_range():
    ranges = Ranges()
    phases = Phases("cuda", scripted(0, 1, 2, 3), ranges)
    with pytest.raises(RuntimeError), phases("prepare"), phases("compile"):
        raise RuntimeError
    assert phases.seconds == {"prepare": 2, "compile": 1}
    assert ranges == ["+prepare", "+compile", "-", "-"]


def test_overhead_is_what_neither_warms_up_nor_samples():
    assert overhead({"warm_up": 2.0, "sample": 4.0, "oracle": 3.0}, 10.0) == pytest.approx(0.4)
    assert overhead({}, 1.0) == 1.0
