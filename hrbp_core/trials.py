"""Times both ways of one layer, in turn, on random tensors like those that it really gets."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.observing import Call

WAYS = ("sparse", "dense")
WARM_UP = 3  # the first call compiles, tunes or plans; the last one tells how long it takes
LEAST_SAMPLE_S = 2e-3  # a shorter sample is one launch that came late
MOST_CALLS = 50


@dataclass(frozen=True, eq=False)
class Trial:
    """One way of one call of a layer.

    Attributes:
        name: of the layer. way: one of ``WAYS``. call: what it is called with.
        run: one forward, with its backward where that is wanted.
    """

    name: str
    way: str
    call: Call
    run: Callable[[], object]


class Clock(Protocol):
    """Times trials."""

    def seconds(self, trial: Trial, calls: int) -> float:
        """Return the seconds that ``calls`` runs take together."""
        ...


class HostClock:
    """Host time: a call on a CPU is done when it returns."""

    def seconds(self, trial: Trial, calls: int) -> float:
        """Return the seconds that ``calls`` runs take together."""
        start = time.perf_counter()
        for _ in range(calls):
            trial.run()
        return time.perf_counter() - start


class DeviceClock:
    """Events of a CUDA device, around calls back to back: where the host is slower, that shows."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def seconds(self, trial: Trial, calls: int) -> float:
        """Return the seconds that ``calls`` runs take together."""
        with torch.cuda.device(self.device):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(calls):
                trial.run()
            stop.record()
            stop.synchronize()
            return float(start.elapsed_time(stop)) * 1e-3


def layer_times(
    name: str,
    layer: BlockSparseConv2d,
    calls: Mapping[Call, int],
    *,
    backward: bool,
    repeats: int,
    clock: Clock | None,
) -> tuple[float, float]:
    """Return the seconds of all of a layer's calls, (sparsely, densely).

    Args:
        calls: what it is called with -> how often. backward, repeats, clock: as in ``calibrate``.

    Raises:
        ValueError: a clock that stands still, or gives no number.
    """
    device = layer.values.device
    if clock is None:
        clock = DeviceClock(device) if device.type == "cuda" else HostClock()
    twins = [_twin(layer, way) for way in WAYS]
    sums = [0.0, 0.0]
    for call, count in calls.items():
        x = call.random().requires_grad_(call.x_grad)
        with call.modes():
            trials = _trials(name, twins, call, x, backward)
            for place, median_s in enumerate(_medians(trials, repeats, clock)):
                sums[place] += count * median_s
    return sums[0], sums[1]


@torch.inference_mode(False)
@torch.no_grad()
def _twin(layer: BlockSparseConv2d, way: str) -> BlockSparseConv2d:
    """Return a layer of the same function in one way: no hook or gradient of ``layer`` sees it."""
    values, bias = layer.values, layer.bias
    twin = BlockSparseConv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        bias is not None,
        padding_mode=layer.padding_mode,
        pattern=layer.pattern,
        draw=False,
        policy=way,
        device=values.device,
        dtype=values.dtype,
    )
    twin.values.copy_(values).requires_grad_(values.requires_grad)
    if twin.bias is not None and bias is not None:
        twin.bias.copy_(bias).requires_grad_(bias.requires_grad)
    return twin


def _trials(
    name: str, twins: Sequence[BlockSparseConv2d], call: Call, x: Tensor, backward: bool
) -> list[Trial]:
    """Return both ways of one call, on the same tensors."""
    dy: Tensor | None = None
    trials = []
    for way, twin in zip(WAYS, twins, strict=True):
        forward = _forward(twin, call, x)
        leaves = [t for t in (x, *twin.parameters()) if t.requires_grad]
        if backward and call.grad and leaves:
            if dy is None:
                y = forward().detach()
                dy = torch.empty_like(y).copy_(call.random(tuple(y.shape), y.dtype))
            trials.append(Trial(name, way, call, _step(forward, leaves, dy)))
        else:
            trials.append(Trial(name, way, call, forward))
    return trials


def _forward(twin: BlockSparseConv2d, call: Call, x: Tensor) -> Callable[[], Tensor]:
    def forward() -> Tensor:
        with call.autocasting():
            return twin(x)  # type: ignore[no-any-return]

    return forward


def _step(
    forward: Callable[[], Tensor], leaves: Sequence[Tensor], dy: Tensor
) -> Callable[[], object]:
    def step() -> object:
        return torch.autograd.grad(forward(), leaves, dy)

    return step


def _medians(trials: Sequence[Trial], repeats: int, clock: Clock) -> list[float]:
    """Return the median seconds a call of each trial, of samples taken in turn.

    A stall hits both alike, or one of them in fewer than half of its samples: the medians stay.
    """
    calls = [_calls_of(trial, clock) for trial in trials]
    samples: list[list[float]] = [[] for _ in trials]
    for number in range(repeats):
        places = range(len(trials))
        for place in places if number % 2 == 0 else reversed(places):
            taken = _seconds(trials[place], calls[place], clock)
            samples[place].append(taken / calls[place])
    return [statistics.median(each) for each in samples]


def _calls_of(trial: Trial, clock: Clock) -> int:
    """Warm up; return the calls that make a sample long enough."""
    taken = min(_seconds(trial, 1, clock) for _ in range(WARM_UP))
    return max(1, min(MOST_CALLS, math.ceil(LEAST_SAMPLE_S / taken)))


def _seconds(trial: Trial, calls: int, clock: Clock) -> float:
    taken = clock.seconds(trial, calls)
    if not (math.isfinite(taken) and taken > 0):
        raise ValueError(f"expected a clock that gives seconds above 0, got {taken}")
    return taken
