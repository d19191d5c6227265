"""Floors and attainment against hand-computed values, and the status of impossible times."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest

from bench import floors, measure
from bench.extras import Extras
from bench.floors import Ceilings, floor_s, least_bytes
from bench.records import Flag, Measurement, Status
from bench.run_ceilings import RunCeilings
from bench.timing import StopRule
from hrbp_core.shapes import Pass
from tests.scripted_clock import ScriptedClock
from tests.test_measure import make_case

CEILINGS = Ceilings(flops_per_s=1e9, bytes_per_s=1e6, cache_bytes=1000)


def test_least_bytes_by_hand():
    """N2 C32 6x5 K48 3x3: x 1920, y 2880, stored weights 27 * 256 = 6912 elements of 4 bytes."""
    case = make_case(Pass.FPROP)
    assert least_bytes(case, 1000, dense_weights=False) == 4 * (1920 + 6912) + 4 * 2880 - 1000
    assert least_bytes(case, 10**6, dense_weights=False) == 4 * (1920 + 6912)
    assert least_bytes(case, 0, dense_weights=True) == 4 * (1920 + 2880 + 48 * 32 * 9)
    wgrad = replace(case, conv_pass=Pass.WGRAD, dtype="bfloat16")
    assert least_bytes(wgrad, 1000, dense_weights=False) == 2 * (1920 + 2880) + 2 * 6912 - 1000


def test_bytes_of_every_dtype():
    """tf32 is float32 in memory."""
    found = {
        dtype: least_bytes(replace(make_case(), dtype=dtype), 0, dense_weights=False)
        for dtype in floors.ITEM_BYTES
    }
    one = found["float16"]
    assert found == {
        "float64": 4 * one, "float32": 2 * one, "tf32": 2 * one, "float16": one, "bfloat16": one,
    }  # fmt: skip


def test_floors_by_mode():
    case = make_case(Pass.FPROP)
    flops = case.shape.flops(case.stored_weights)
    assert flops == 2 * 6912 * 2 * 30
    assert floor_s(case, "hot", flops, CEILINGS) == pytest.approx(flops / 1e9)
    assert floor_s(case, "sustained", flops, CEILINGS) == pytest.approx(flops / 1e9)
    assert floor_s(case, "cold", flops, CEILINGS) == pytest.approx((4 * 11712 - 1000) / 1e6)
    assert floor_s(case, "host", flops, CEILINGS) is None
    assert floor_s(case, "hot", flops, replace(CEILINGS, flops_per_s=None)) is None
    smaller = floor_s(case, "cold", flops / 2, CEILINGS)  # another function: its bytes are unknown
    assert smaller == pytest.approx(flops / 2e9)


class Source:
    def __init__(self, first, again):
        self.rates, self.asked, self.seen = [first, again], 0, []

    def now(self):
        return replace(CEILINGS, flops_per_s=self.rates[min(self.asked, 1)])

    def witness(self, flops_per_s):
        self.seen.append(flops_per_s)

    def again(self):
        self.asked += 1
        return self.now()


class OneClock(ScriptedClock):
    """Every call takes 1 ms, whatever it is."""

    def __init__(self):
        super().__init__({})

    def sample(self, run, repeats):
        run()
        self.time += 1e-3 * repeats
        return 1e-3

    def enqueue_s(self, run):
        return None


def measured(name, source, case=None):
    rule = StopRule(precision=1.0, cap_s=0.05, least_rounds=6, steady=1.0)
    found = measure.measure_case(
        case or make_case(), [name], OneClock(), rule, "env", Extras(ceilings=source)
    )
    return found[0]


def test_a_time_under_its_floor_is_impossible():
    """829440 operations in 1 ms are 0.83 GFLOP/s; twice a ceiling of 0.4."""
    found = measured("block_sparse", Source(4e8, 4e8))
    assert found.status is Status.IMPOSSIBLE
    assert "of its floor" in found.reason
    assert len(found.samples_s) >= 6
    assert Measurement.from_dict(found.to_dict()) == found


def test_a_ceiling_that_was_too_low_is_measured_again():
    source = Source(4e8, 1e9)
    found = measured("block_sparse", source)
    assert (found.status, source.asked) == (Status.OK, 1)
    columns = floors.columns(found, 1e-3)
    assert columns["attainment"] == pytest.approx(0.82944)
    assert measured("block_sparse", Source(1e9, 2e9)).detail["ceilings"]["flops_per_s"] == 1e9


def test_dense_three_by_three_may_be_winograd():
    found = measured("dense", Source(1e8, 1e8))
    assert found.status is Status.OK
    assert Flag.WINOGRAD in found.flags
    strided = make_case(Pass.FPROP, stride=(2, 1))
    assert measured("dense", Source(1e8, 1e8), strided).status is Status.IMPOSSIBLE


def test_the_dense_layer_of_the_same_rounds_is_a_witness():
    source = Source(1e9, 1e9)
    case = make_case()
    measured("dense", source, case)
    assert source.seen == [pytest.approx(case.shape.flops() / 1e-3)]
    assert not measured("block_sparse", source).flags
    assert len(source.seen) == 1


@pytest.mark.parametrize(
    ("dtype", "device", "heard"),
    [("float16", "cpu", True), ("bfloat16", "cuda", True), ("tf32", "cuda", True),
     ("float16", "cuda", False), ("float32", "cuda", False)],
)  # fmt: skip
def test_a_vendor_that_may_use_winograd_is_no_witness(dtype, device, heard):
    source = Source(1e9, 1e9)
    case = replace(make_case(), dtype=dtype, device=device)
    attempt = SimpleNamespace(name="dense", samples_s=[3e-3, 1e-3, 2e-3], prepared=True)
    problem = SimpleNamespace(case=case)
    measuring = measure.Measuring(problem, [attempt], None, None, Extras(ceilings=source))
    measuring._witness()
    taken = 1e-3 if device == "cpu" else 2e-3  # a lone fast sample must not lift a GPU's ceiling
    assert source.seen == ([pytest.approx(case.shape.flops() / taken)] if heard else [])


def test_a_witness_raises_the_ceiling():
    ticks = count()
    clock = SimpleNamespace(sample=lambda run, repeats: 1.0, now=lambda: float(next(ticks)))
    ceilings = RunCeilings("cpu", "float32", clock)
    before = ceilings.now().flops_per_s
    ceilings.witness(before / 2)
    assert ceilings.now().flops_per_s == before
    ceilings.witness(2 * before)
    assert ceilings.now().flops_per_s == 2 * before


def test_ceilings_are_measured_again_five_times_a_run_at_most():
    ticks, samples = count(), []

    def sample(run, repeats):
        samples.append(1)
        return 1.0

    clock = SimpleNamespace(sample=sample, now=lambda: float(next(ticks)))
    ceilings = RunCeilings("cpu", "float32", clock)
    taken = []
    for _ in range(7):
        before = len(samples)
        ceilings.again()
        taken.append(len(samples) > before)
    assert taken == [True] * 5 + [False] * 2


def test_calls_until_preparing_has_paid():
    assert floors.calls_to_pay(1.0, 3e-3, 1e-3) == pytest.approx(500)
    assert floors.calls_to_pay(1.0, 1e-3, 1e-3) == float("inf")


def test_a_trace_that_fails_costs_no_samples():
    def trace(cell_id, run):
        raise OSError("no room")

    rule = StopRule(precision=1.0, cap_s=0.05, least_rounds=6, steady=1.0)
    extras = Extras(trace=trace, energy=lambda run: {"calls": 3})
    found = measure.measure_case(make_case(), ["dense"], OneClock(), rule, "env", extras)[0]
    assert found.status is Status.OK
    assert "no room" in found.detail["not_looked"]
