"""``pytest bench``: the device, its facts and the machine's warm-up. torch waits in fixtures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from bench.records import Environment

if TYPE_CHECKING:
    from bench.device_timer import DeviceTimer

SPIN_S = 2.0
GAPS: pytest.StashKey[list[dict[str, Any]]] = pytest.StashKey()


@dataclass(frozen=True)
class Bench:
    """What the tests run on.

    Attributes:
        device: "cpu" or "cuda". mode: the timing mode that a benchmark's times belong to.
        cuda: what DeviceTimer asks; None on a CPU.
    """

    device: str
    mode: str
    environment: Environment
    cuda: Any

    def timer(self) -> DeviceTimer | None:
        """Return a timer of device time; None where the host's clock is the right one."""
        from bench.device_timer import DeviceTimer

        return None if self.cuda is None else DeviceTimer(self.cuda)

    def seconds(self, run: Callable[[], object]) -> float:
        """Return about how long a call takes, its enqueueing included."""
        start = time.perf_counter()
        run()
        if self.cuda is not None:
            self.cuda.synchronize()
        return time.perf_counter() - start


@pytest.fixture(scope="session")
def bench() -> Bench:
    """Return the device, cuda where there is one, on a machine that has left its idle clocks.

    Calls follow one another on the same buffers on a CPU ("hot"); on CUDA the caches are
    overwritten before each ("cold").
    """
    from bench.cuda_device import CudaDevice

    environment = _environment()
    _spin(SPIN_S)
    on_cuda = environment.device == "cuda"
    mode = "cold" if on_cuda else "hot"
    return Bench(environment.device, mode, environment, CudaDevice() if on_cuda else None)


@pytest.fixture(scope="session")
def gaps(pytestconfig: pytest.Config) -> list[dict[str, Any]]:
    """Return the list of cells without a time; what is added ends in the JSON."""
    return pytestconfig.stash.setdefault(GAPS, [])


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Add the facts that a stored run is compared by."""
    from bench.benchmark_json import machine_facts

    machine_info["hrbp"] = machine_facts(_environment())


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Add the cells without a time, and why."""
    from bench.benchmark_json import NOT_MEASURED

    output_json[NOT_MEASURED] = config.stash.get(GAPS, [])


def _environment() -> Environment:
    from bench.allocator import keep_freed_memory
    from bench.environment import environment, pick_device, use_all_cores

    use_all_cores()
    keep_freed_memory()
    return environment(pick_device("auto"))


def _spin(seconds: float) -> None:
    """Keep all threads busy: a process may run at an eighth of its speed in its first seconds."""
    import torch

    a = torch.ones(512, 512)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        torch.mm(a, a)
