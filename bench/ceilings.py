"""What this machine can do at most, measured in the run that is held against it.

Copy bandwidth, the matrix unit's rate a dtype, and what a launch costs. A ceiling is the best of
several sizes, each the median of repeated timings; what cannot be measured is null with a reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from bench.clocks import CpuClock
from bench.stats import median

SAMPLES = 20
LEAST_SAMPLES, CAP_S = 5, 1.0  # a size so slow gets fewer samples
SAMPLE_S = 2e-3  # shorter calls repeat: a sample then stands above the events' resolution
WARMUP_S = 0.2
WARMUP_CALLS = 3
LAUNCHES = 200
MOST_REPEATS = 100_000
MIB = 2**20
Run = Callable[[], object]
Sizes = tuple[int, int, int]


class Clock(Protocol):
    """Times ``repeats`` calls of ``run``, back to back."""

    def sample(self, run: Run, repeats: int) -> float:
        """Return seconds a call."""
        ...

    def now(self) -> float:
        """Return host seconds."""
        ...


class EventClock(CpuClock):
    """Device events around calls enqueued back to back; nothing is flushed between them."""

    mode = "sustained"

    def __init__(self) -> None:
        self._start, self._stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def sample(self, run: Run, repeats: int) -> float:
        """Return seconds a call."""
        self._start.record()
        for _ in range(repeats):
            run()
        self._stop.record()
        self._stop.synchronize()
        return self._start.elapsed_time(self._stop) / repeats * 1e-3


def clock_for(device: str) -> Clock:
    """Return the device's clock."""
    return EventClock() if device == "cuda" else CpuClock()


@dataclass(frozen=True)
class Ceiling:
    """One measured size.

    Attributes:
        name: "copy", a dtype ("tf32" is float32 by that arithmetic), or "launch".
        size: bytes of one buffer; (m, n, k) of a product; launches.
        rate: bytes a second (read and written both count) or floating-point operations a
            second; seconds a launch. None with a reason.
        samples_s: seconds a call, in order.
    """

    name: str
    size: tuple[int, ...]
    rate: float | None
    samples_s: tuple[float, ...] = ()
    reason: str | None = None


def copy_sizes(device: str, quick: bool) -> tuple[int, ...]:
    """Return bytes of a buffer: all far above the caches."""
    if device == "cuda":
        return (1024 * MIB,) if quick else (512 * MIB, 1024 * MIB, 4096 * MIB)
    return (64 * MIB,) if quick else (64 * MIB, 256 * MIB)


def matrix_sizes(device: str, quick: bool) -> tuple[Sizes, ...]:
    """Return (m, n, k) of products: square ones, and long ones like a convolution's."""
    if device == "cuda":
        few: tuple[Sizes, ...] = ((8192, 8192, 8192), (65536, 512, 4608))
        more: tuple[Sizes, ...] = ((4096, 4096, 4096), (16384, 8192, 4096), (131072, 256, 2304))
    else:
        few = ((512, 512, 512), (4096, 256, 1152))
        more = ((1024, 1024, 1024), (2048, 2048, 2048))
    return few if quick else few + more


def conv_sizes(device: str, quick: bool) -> tuple[tuple[int, ...], ...]:
    """Return (N, C, H = W, K, R = S) of dense convolutions that stand in for products on a CPU.

    oneDNN's direct convolution does more operations a second than MKL's product there: 241
    against 205 GFLOP/s in float32 on a 2-core Zen 4. cuDNN's may be Winograd's: none on CUDA.
    """
    if device == "cuda":
        return ()
    few = ((8, 256, 14, 256, 3),)
    return few if quick else (*few, (8, 512, 14, 512, 3), (8, 128, 28, 128, 3))


def measure_ceilings(device: str, clock: Clock, *, quick: bool = False) -> list[Ceiling]:
    """Return every ceiling of the device.

    Args:
        device: "cpu" or "cuda".
        clock: times the calls.
        quick: fewer sizes.
    """
    found = [copy_rate(device, size, clock) for size in copy_sizes(device, quick)]
    for name in ("bfloat16", "float16", "tf32", "float32"):
        found += matrix_rates(device, name, clock, quick)
    return [*found, launch_cost(device, clock), graph_cost(device, clock)]


def matrix_rates(device: str, name: str, clock: Clock, quick: bool) -> list[Ceiling]:
    """Measure every size of one dtype."""
    found = [matrix_rate(device, name, size, clock) for size in matrix_sizes(device, quick)]
    if found[0].reason is None:
        found += [conv_rate(device, name, size, clock) for size in conv_sizes(device, quick)]
    return found


def copy_rate(device: str, size: int, clock: Clock) -> Ceiling:
    """Measure a copy of ``size`` bytes; read and written bytes both count."""

    def make() -> Run:
        source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        return lambda: target.copy_(source)

    return _ceiling("copy", (size,), make, clock, lambda seconds: 2 * size / seconds)


def matrix_rate(device: str, name: str, size: Sizes, clock: Clock) -> Ceiling:
    """Measure a product of uniform random matrices in [-1, 1]: zeros draw less power."""
    m, n, k = size
    if name == "tf32" and device != "cuda":
        return Ceiling(name, size, None, reason="no tf32 on a CPU")

    def make() -> Run:
        dtype = torch.float32 if name == "tf32" else getattr(torch, name)
        a, b = (torch.empty(s, device=device).uniform_(-1, 1).to(dtype) for s in ((m, k), (k, n)))
        out = torch.empty(m, n, dtype=dtype, device=device)
        return lambda: torch.mm(a, b, out=out)

    with _tf32(name == "tf32"):
        return _ceiling(name, size, make, clock, lambda seconds: 2 * m * n * k / seconds)


def conv_rate(device: str, name: str, size: tuple[int, ...], clock: Clock) -> Ceiling:
    """Measure a dense convolution as the product that it is."""
    n, c, h, k, r = size

    def make() -> Run:
        dtype = getattr(torch, name)
        x, weight = (
            torch.empty(extents, device=device).uniform_(-1, 1).to(dtype)
            .contiguous(memory_format=torch.channels_last)
            for extents in ((n, c, h, h), (k, c, r, r))
        )  # fmt: skip
        return lambda: torch.nn.functional.conv2d(x, weight, padding=r // 2)

    flops = 2 * n * h * h * c * k * r * r
    return _ceiling(name, size, make, clock, lambda seconds: flops / seconds)


def launch_cost(device: str, clock: Clock) -> Ceiling:
    """Measure one of many launches of a kernel that does next to nothing, as Python issues them."""

    def make() -> Run:
        tiny = torch.zeros(1, device=device)
        return tiny.zero_

    return _ceiling("launch", (LAUNCHES,), make, clock, lambda seconds: seconds, LAUNCHES)


def graph_cost(device: str, clock: Clock) -> Ceiling:
    """Measure one of many such launches replayed from a CUDA graph."""
    if device != "cuda":
        return Ceiling("graph_launch", (LAUNCHES,), None, reason="no CUDA graphs on a CPU")

    def make() -> Run:
        tiny = torch.zeros(1, device=device)
        tiny.zero_()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(LAUNCHES):
                tiny.zero_()

        def replay() -> torch.Tensor:
            graph.replay()
            return tiny  # the graph writes to it, so it must live as long

        return replay

    return _ceiling("graph_launch", (LAUNCHES,), make, clock, lambda seconds: seconds / LAUNCHES)


def _ceiling(
    name: str, size: tuple[int, ...], make: Callable[[], Run], clock: Clock,
    rate: Callable[[float], float], repeats: int | None = None,
) -> Ceiling:  # fmt: skip
    try:
        samples = sample(make(), clock, repeats)
    except Exception as error:  # one size that fails must not take the others along
        text = " ".join(str(error).split())[:300]
        return Ceiling(name, size, None, reason=f"{type(error).__name__}: {text}")
    return Ceiling(name, size, rate(median(samples)), tuple(samples))


def sample(run: Run, clock: Clock, repeats: int | None = None) -> list[float]:
    """Return seconds a call, up to ``SAMPLES`` times, after a warm-up.

    Args:
        repeats: calls a sample; as many as last ``SAMPLE_S`` when left out.

    Raises:
        ValueError: a clock that does not move, or moves back.
    """
    start, calls, latest = clock.now(), 0, 0.0
    while calls < WARMUP_CALLS or clock.now() - start < WARMUP_S:
        latest = clock.sample(run, 1)
        calls += 1
    if repeats is None:
        repeats = min(MOST_REPEATS, max(1, math.ceil(SAMPLE_S / latest))) if latest > 0 else 1
    samples: list[float] = []
    start = clock.now()
    while len(samples) < LEAST_SAMPLES or clock.now() - start < CAP_S:
        samples.append(clock.sample(run, repeats))
        if len(samples) == SAMPLES:
            break
    if min(samples) <= 0:
        raise ValueError(f"expected a clock that moves, got a sample of {min(samples)} s")
    return samples


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def best(found: list[Ceiling]) -> dict[str, Ceiling]:
    """Return the ceiling of each name: the highest rate, the least cost of a launch."""
    chosen: dict[str, Ceiling] = {}
    for each in found:
        sign = -1 if each.name.endswith("launch") else 1
        kept = chosen.get(each.name)
        known = kept is not None and kept.rate is not None
        if not known or (each.rate is not None and sign * each.rate > sign * kept.rate):  # type: ignore
            chosen[each.name] = each
    return chosen
