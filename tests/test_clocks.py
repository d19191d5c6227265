"""What a sample is in each mode: a scripted device notes what was enqueued, and when."""

from __future__ import annotations

import pytest
import torch

from bench import clocks
from bench.clocks import CpuClock, CudaClock, Rotation, mode_for


class ScriptedDevice:
    """A queue with a clock of its own: a call takes ``call_s`` on the device, ``host_s`` here."""

    cache_bytes = 1000

    def __init__(self, call_s=1e-3, host_s=10e-6):
        self.call_s, self.host_s = call_s, host_s
        self.log, self.host, self.busy_until = [], 0.0, 0.0

    def _enqueue(self, name, seconds):
        self.log.append(name)
        self.busy_until = max(self.busy_until, self.host) + seconds

    def run(self):
        self.host += self.host_s
        self._enqueue("run", self.call_s)
        return "out"

    def mark(self):
        self._enqueue("mark", 0.0)
        return self.busy_until

    def reached(self, mark):
        return self.host >= mark

    def seconds(self, first, last):
        self.host = max(self.host, last)
        return last - first

    def spin(self, seconds):
        self._enqueue("spin", seconds)

    def flush(self):
        self._enqueue("flush", 70e-6)

    def synchronize(self):
        self.host = max(self.host, self.busy_until)

    def capture(self, run, calls):
        def replay():
            self.host += self.host_s
            self._enqueue("graph", calls * self.call_s)

        return replay


def test_cold_flushes_before_the_span_and_never_inside():
    device = ScriptedDevice()
    clock = CudaClock("cold", device)
    assert clock.sample(device.run, 3) == pytest.approx(1e-3)
    assert device.log == ["flush", "spin", "mark", "run", "mark"] * 3


def test_cold_turns_through_copies_instead_of_flushing():
    device = ScriptedDevice()
    enough = Rotation([device.run] * 6, copy_bytes=1000)  # five others, five times the cache
    assert CudaClock("cold", device).sample(enough, 4) == pytest.approx(1e-3)
    assert device.log == ["spin", "mark", *["run"] * 4, "mark"]
    device = ScriptedDevice()
    few = Rotation([device.run] * 5, copy_bytes=1000)
    CudaClock("cold", device).sample(few, 1)
    assert device.log[0] == "flush"


def test_a_rotation_takes_its_copies_in_turn():
    seen = []
    rotation = Rotation([lambda i=i: seen.append(i) for i in range(3)], 1)
    for _ in range(5):
        rotation()
    assert seen == [0, 1, 2, 0, 1]


def test_hot_runs_back_to_back():
    device = ScriptedDevice()
    assert CudaClock("hot", device).sample(device.run, 4) == pytest.approx(1e-3)
    assert device.log == ["spin", "mark", *["run"] * 4, "mark"]


def test_launch_gaps_stay_out_of_the_span():
    """Kernels of 2 µs that take the host 10 µs to launch: the spin grows until all are queued."""
    device = ScriptedDevice(call_s=2e-6, host_s=10e-6)
    clock, run = CudaClock("hot", device), device.run
    assert clock.sample(run, 100) == pytest.approx(2e-6)
    assert clock.unqueued == 0
    device.log.clear()
    clock.sample(run, 100)
    assert device.log.count("spin") == 1  # what was learned is kept


def test_a_call_that_synchronizes_ends_and_is_counted():
    device = ScriptedDevice(call_s=2e-6)

    def run():
        device.run()
        device.synchronize()

    clock = CudaClock("hot", device)
    assert clock.sample(run, 10) > 2e-6
    assert clock.unqueued == 1


def test_no_more_calls_than_the_queue_holds():
    device = ScriptedDevice(call_s=1e-6, host_s=1e-7)
    CudaClock("hot", device).sample(device.run, 10_000)
    assert device.log.count("run") == clocks.MOST_QUEUED


def test_sustained_replays_a_graph():
    device = ScriptedDevice()
    clock = CudaClock("sustained", device)
    armed = clock.arm(device.run)
    assert armed.calls == clocks.GRAPH_CALLS
    assert clock.sample(armed.run, 2) / armed.calls == pytest.approx(1e-3)
    assert device.log == ["spin", "mark", "graph", "graph", "mark"]


def test_a_refused_capture_is_timed_without_and_told():
    device = ScriptedDevice()

    def refuse(run, calls):
        raise RuntimeError("operation not permitted when stream is capturing")

    device.capture = refuse
    armed = CudaClock("sustained", device).arm(device.run)
    assert (armed.run, armed.calls) == (device.run, 1)
    assert "not permitted" in armed.detail["graph"]


def test_host_mode_counts_the_host_alone(monkeypatch):
    device = ScriptedDevice(call_s=1e-3, host_s=10e-6)
    monkeypatch.setattr(clocks.time, "perf_counter_ns", lambda: round(device.host * 1e9))
    clock = CudaClock("host", device)
    assert clock.sample(device.run, 50) == pytest.approx(10e-6)
    assert clock.enqueue_s(device.run) is None
    assert CudaClock("hot", device).enqueue_s(device.run) == pytest.approx(10e-6)


@pytest.mark.parametrize("mode", ["hot", "cold"])
def test_the_cpu_clock(monkeypatch, mode):
    ticks = iter(range(0, 10**9, 1000))
    clock = CpuClock(mode)
    monkeypatch.setattr(clocks.time, "perf_counter_ns", lambda: next(ticks))
    flushed = clock._flush.clone()
    taken = clock.sample(lambda: None, 4)
    assert taken == pytest.approx({"hot": 0.25e-6, "cold": 1e-6}[mode])
    assert torch.equal(flushed, clock._flush) is (mode == "hot")
    assert clock.enqueue_s(lambda: None) is None


def test_a_hot_sample_on_a_cpu_follows_an_untimed_call(monkeypatch):
    now, calls = [0], []
    monkeypatch.setattr(clocks.time, "perf_counter_ns", lambda: now[0])

    def run():
        calls.append(now[0])
        now[0] += 1000 if len(calls) > 1 else 9000  # the first one finds cold caches

    assert CpuClock("hot").sample(run, 3) == pytest.approx(1e-6)
    assert len(calls) == 4


def test_modes():
    assert (mode_for("cpu"), mode_for("cuda")) == ("hot", "cold")
    assert mode_for("cuda", "sustained") == "sustained"
    with pytest.raises(ValueError, match="expected a mode of hot, cold on cpu; got 'sustained'"):
        mode_for("cpu", "sustained")
