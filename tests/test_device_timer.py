"""pytest-benchmark's timer on CUDA: what lies between two events, on a fake device."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bench import cuda_device
from bench.device_timer import LEAST_SPIN_S, MOST_SPIN_S, DeviceTimer


class FakeCuda:
    """torch.cuda with one queue: seconds of the host, and when the device is done."""

    def __init__(self, clock_rate=2e9, launch_s=0.0):
        self.host_s = self.free_s = 0.0
        self.rate, self.launch_s, self.flushes = clock_rate, launch_s, 0
        cuda = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at_s = max(cuda.host_s, cuda.free_s)

            def query(self):
                return self.at_s <= cuda.host_s

            def synchronize(self):
                cuda.host_s = max(cuda.host_s, self.at_s)

            def elapsed_time(self, other):
                assert other.query()
                return (other.at_s - self.at_s) * 1e3

        self.Event = Event

    def get_device_properties(self, number):
        return SimpleNamespace(L2_cache_size=50 * 2**20)

    def launch(self, seconds):
        self.host_s += self.launch_s
        self.free_s = max(self.host_s, self.free_s) + seconds

    def _sleep(self, cycles):
        self.launch(cycles / self.rate)

    def empty(self, size, dtype, device):
        assert (size, device) == (256 * 2**20, "cuda")
        return self

    def zero_(self):
        self.flushes += 1
        self.launch(1e-4)


def span_on(cuda, monkeypatch, kernel_s, rounds=1):
    """Return what pytest-benchmark reads of a call on a fake device, and the timer."""
    torch = SimpleNamespace(cuda=cuda, empty=cuda.empty, int8=None)
    monkeypatch.setattr(cuda_device, "torch", torch)
    timer = DeviceTimer(cuda_device.CudaDevice())
    spans = []
    for _ in range(rounds):
        timer.prepare()
        start = timer()
        cuda.launch(kernel_s)
        end = timer()
        spans.append(end - start)
    return spans, timer


def test_a_span_is_the_kernel_and_nothing_else(monkeypatch):
    cuda = FakeCuda()
    spans, timer = span_on(cuda, monkeypatch, 3e-6, rounds=4)
    assert spans == pytest.approx([3e-6] * 4)
    assert timer.late == [False] * 4
    assert cuda.flushes == 4


def test_a_slow_host_is_given_a_longer_spin(monkeypatch):
    launch_s = 8 * LEAST_SPIN_S
    spans, timer = span_on(FakeCuda(launch_s=launch_s), monkeypatch, 3e-6, rounds=12)
    late = [n for n, each in enumerate(timer.late) if each]
    assert late == list(range(len(late)))
    assert 0 < len(late) < 10  # the warm-up's rounds are enough
    assert spans[0] > 3e-6
    assert spans[len(late) :] == pytest.approx([3e-6] * (12 - len(late)))


def test_a_call_that_waits_for_the_device_is_told(monkeypatch):
    cuda = FakeCuda(launch_s=10 * MOST_SPIN_S)
    _, timer = span_on(cuda, monkeypatch, 3e-6, rounds=20)
    assert all(timer.late)
    before = cuda.free_s
    timer.prepare()
    assert cuda.free_s - before < 3 * cuda.launch_s  # no spin any more: only two launches


def test_spans_do_not_mix_after_one_that_broke(monkeypatch):
    cuda = FakeCuda()
    _, timer = span_on(cuda, monkeypatch, 3e-6)
    timer.prepare()
    timer()  # the call raised: no end
    timer.prepare()
    start = timer()
    cuda.launch(5e-6)
    assert timer() - start == pytest.approx(5e-6)
    assert len(timer.late) == 2
