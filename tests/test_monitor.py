"""Monitors with scripted devices: what is absent or fails is null with a reason, never 0."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from bench import monitor
from bench.clock_lock import locked_clocks
from bench.energy import NvmlReader, RaplReader, _integral, energy
from bench.monitor import CpuMonitor, open_nvml


class Nvml:
    """pynvml as a script: power in mW and energy in mJ rise; ``refused`` raise."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_SUCCESS = 1, 2, 0, 0
    NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 0, 1
    NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN = 271

    def __init__(self, refused=()):
        self.refused, self.reads, self.calls = set(refused), 0, []
        self.violations, self.brake, self.joules, self.watts = {0: 0, 1: 0}, 0, 5.0, 100.0
        self.answer = self.NVML_SUCCESS

    def _check(self, name):
        self.calls.append(name)
        if name in self.refused:
            raise RuntimeError("Insufficient Permissions")

    def nvmlInit(self):
        self._check("init")

    def nvmlShutdown(self):
        self._check("shutdown")

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return "handle"

    def nvmlDeviceGetClockInfo(self, handle, kind):
        self._check("clock")
        return {1: 1980, 2: 3201}[kind]

    def nvmlDeviceGetPowerUsage(self, handle):
        self._check("power")
        return self.watts * 1e3

    def nvmlDeviceGetTemperature(self, handle, sensor):
        self._check("temperature")
        return 41

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        self._check("energy")
        return self.joules * 1e3

    def nvmlDeviceGetViolationStatus(self, handle, policy):
        self._check("violations")
        return SimpleNamespace(violationTime=self.violations[policy])

    def nvmlDeviceGetFieldValues(self, handle, ids):
        self._check("fields")
        value = SimpleNamespace(ullVal=self.brake)
        return [SimpleNamespace(nvmlReturn=self.answer, value=value) for _ in ids]

    def nvmlDeviceGetSupportedMemoryClocks(self, handle):
        return [3201]

    def nvmlDeviceGetSupportedGraphicsClocks(self, handle, memory):
        return [1980, 1965, 1200]

    def nvmlDeviceSetGpuLockedClocks(self, handle, low, high):
        self._check("lock")

    def nvmlDeviceResetGpuLockedClocks(self, handle):
        self._check("reset")


def test_what_nvml_says_is_kept():
    nvml = Nvml()
    found = open_nvml(nvml, "GPU-1")
    found.start()
    nvml.joules, nvml.violations[0] = 7.5, 2_000_000
    told = found.stop()
    assert told["sm_clock_mhz"] == {"first": 1980, "min": 1980, "median": 1980, "max": 1980}
    assert (told["power_w"]["max"], told["energy_j"]) == (100.0, 2.5)
    assert told["violations_s"] == {"power": 0.002, "thermal": 0.0, "brake": 0.0}
    assert (told["absent"], told["reads"]) == ({}, 2)


def test_reads_are_rare():
    nvml, ticks = Nvml(), iter(x * 0.01 for x in range(1000))
    found = monitor.NvmlMonitor(nvml, "handle", lambda: next(ticks))
    nvml.calls.clear()
    for _ in range(50):
        found.tick()
    assert 5 <= nvml.calls.count("power") <= 25


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda n: n.violations.update({1: 5}), "thermal"),
        (lambda n: setattr(n, "brake", 5), "brake"),
        (lambda n: n.violations.update({0: 5}), "power"),
        (lambda n: n.violations.update({0: 5, 1: 5}), "thermal"),
        (lambda n: None, None),
    ],
)
def test_a_block_names_what_held_the_clocks_back(change, cause):
    nvml = Nvml()
    found = open_nvml(nvml, "GPU-1")
    found.block()
    change(nvml)
    assert found.block() == cause
    assert found.block() is None


def test_a_field_that_is_not_supported_is_no_cause():
    """The call succeeds as a whole; each field has an answer of its own."""
    nvml = Nvml()
    nvml.answer = 3  # NVML_ERROR_NOT_SUPPORTED
    found = open_nvml(nvml, "GPU-1")
    found.block()
    nvml.brake = 5
    assert found.block() is None
    assert found.stop()["violations_s"] == {"power": 0.0, "thermal": 0.0}


def test_what_is_refused_is_null_with_its_reason():
    told = open_nvml(Nvml({"power", "violations", "fields"}), "GPU-1").stop()
    assert (told["power_w"], told["violations_s"]) == (None, None)
    assert "Insufficient Permissions" in told["absent"]["power_w"]
    assert told["temperature_c"]["max"] == 41


def test_what_fails_midway_is_null_and_says_so():
    nvml = Nvml()
    found = open_nvml(nvml, "GPU-1")
    nvml.refused.add("power")
    told = found.stop()
    assert told["power_w"] is None
    assert told["absent"]["power_w"].startswith("failed after 1 reads")


def test_a_counter_that_runs_backwards_says_nothing():
    nvml = Nvml()
    found = open_nvml(nvml, "GPU-1")
    nvml.joules = 1.0
    told = found.stop()
    assert told["energy_j"] is None
    assert "backwards" in told["absent"]["energy_j"]


def test_without_nvml_every_field_is_null_for_one_reason():
    told = open_nvml(Nvml({"init"}), "GPU-1").stop()
    assert {told[name] for name in monitor.GPU_FIELDS} == {None}
    assert set(told["absent"]) == set(monitor.GPU_FIELDS)


def test_a_cpu_tells_load_and_stolen_time(tmp_path):
    (tmp_path / "stat").write_text("cpu 0 0 0 0 0 0 0 0 0 0\n")
    (tmp_path / "cpuinfo").write_text("cpu MHz : 3000.0\ncpu MHz : 3100.0\n")
    found = CpuMonitor(lambda: (1.5, 0, 0), tmp_path)
    (tmp_path / "stat").write_text("cpu 60 0 0 20 0 0 0 20 0 0\n")
    told = found.stop()
    assert told == {
        "load_average": 1.5, "steal_fraction": 0.2, "cpu_mhz": 3050.0, "absent": {},
    }  # fmt: skip
    told = CpuMonitor(lambda: (1.5, 0, 0), tmp_path / "none").stop()
    assert (told["steal_fraction"], told["cpu_mhz"]) == (None, None)
    assert set(told["absent"]) == {"steal_fraction", "cpu_mhz"}


class World:
    """A device that takes 300 W while calls run and 100 W else; a call takes 10 ms."""

    def __init__(self, nvml):
        self.time, self.nvml = 0.0, nvml

    def now(self):
        self.time += 1e-6
        return self.time

    def spend(self, seconds, watts):
        self.time += seconds
        self.nvml.joules += seconds * watts

    def run(self):
        self.nvml.watts = 300.0
        self.spend(0.01, 300.0)

    def wait(self, seconds):
        self.spend(seconds, 100.0)


def test_energy_a_call_with_idle_taken_off():
    nvml = Nvml()
    world = World(nvml)
    found = energy(world.run, lambda: None, NvmlReader(nvml, "h"), world.now, world.wait)
    assert found["window_s"] >= 5
    assert found["counter_j"] == pytest.approx(3.0, rel=0.01)
    assert found["counter_net_j"] == pytest.approx(2.0, rel=0.01)
    assert found["power_net_j"] == pytest.approx(2.0, rel=0.05)
    assert found["absent"] == {}


def test_power_over_time_is_its_trapezoids():
    """From 100 W to 300 W in the first second, then 300 W for one: 200 J and 300 J."""
    assert _integral([(0.0, 100.0), (1.0, 300.0), (2.0, 300.0)]) == pytest.approx(500.0)
    assert _integral([(0.0, 100.0), (1.0, None), (2.0, 300.0)]) is None


def test_energy_that_cannot_be_read_is_null_at_once():
    calls = []
    reader = NvmlReader(Nvml({"power", "energy"}), "h")
    found = energy(lambda: calls.append(1), lambda: None, reader)
    assert (found["counter_j"], found["power_net_j"], calls) == (None, None, [])
    assert set(found["absent"]) == {"counter", "power"}


def test_a_packages_counter_that_wraps_around(tmp_path):
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "max_energy_range_uj").write_text("1000000\n")
    reader = RaplReader(tmp_path)
    readings = []
    for value in (900_000, 950_000, 50_000):
        (package / "energy_uj").write_text(f"{value}\n")
        readings.append(reader.counter_j())
    assert readings == pytest.approx([0.0, 0.05, 0.15])
    assert RaplReader(tmp_path / "none").counter_j() is None


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_locked_clocks_are_always_reset(error):
    nvml = Nvml()
    with pytest.raises(error), locked_clocks(nvml, "h", 1965):
        raise error
    assert nvml.calls == ["lock", "reset"]
    with locked_clocks(nvml, "h", 1965):
        assert nvml.calls[2:] == ["lock"]
    assert nvml.calls[2:] == ["lock", "reset"]


def test_a_terminated_process_resets_its_clocks_too():
    """SIGTERM would end Python without its finally blocks."""
    nvml, before = Nvml(), signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, locked_clocks(nvml, "h", 1965):
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM
    assert nvml.calls == ["lock", "reset"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_clocks_that_cannot_be_locked_are_left_alone():
    nvml = Nvml()
    with (
        pytest.raises(ValueError, match="near 1200, 1965, 1980 MHz; got 1500"),
        locked_clocks(nvml, "h", 1500),
    ):
        pass
    assert nvml.calls == []
    nvml = Nvml({"lock"})
    with pytest.raises(ValueError, match="permission"), locked_clocks(nvml, "h", 1200):
        pass
    assert "reset" not in nvml.calls
