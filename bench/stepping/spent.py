"""Where the time of a step goes: torch's profiler around some steps, summed by kind of work."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn, profiler

from bench.step_table import CONVOLUTION
from bench.stepping.kinds import kernel_kind, kind_of
from bench.stepping.stepper import finish

STEPS = 3
# From torch 2.13 on the profiler prints a line on standard error at each start and stop.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")
Key = tuple[tuple[int, ...], tuple[int, ...]]  # of x, of the weight


def spent(
    step: Callable[[], object], device: str, layers: dict[Key, float], steps: int = STEPS
) -> dict[str, Any]:
    """Return seconds a step by kind of work.

    Args:
        step: one training step, warmed up.
        layers: as :func:`sparse_keys` returns; {} where nothing is asked of single layers.

    Returns:
        ``kinds_s`` by kind; ``span_s``, of a profiled step; ``on_device``, whether GPU kernels
        were summed, or operators without those they call; ``sparse_layers_s``, of it in the
        convolutions of ``layers``; None without any.
    """
    kinds = [profiler.ProfilerActivity.CPU]
    if device == "cuda":
        kinds.append(profiler.ProfilerActivity.CUDA)
    step()
    finish(device)
    with profiler.profile(activities=kinds, record_shapes=True) as events:
        start = perf_counter()
        for _ in range(steps):
            step()
        finish(device)
        span_s = (perf_counter() - start) / steps
    seconds: dict[str, float] = defaultdict(float)
    inside = 0.0
    for event, kind, own_s in _parts(events.events(), device):
        seconds[kind] += own_s / steps
        if layers and kind in CONVOLUTION:
            key = _key(event)
            inside += own_s / steps * (layers.get(key, 0.0) if key else 0.0)
    return {
        "kinds_s": dict(seconds),
        "span_s": span_s,
        "on_device": device == "cuda",
        "sparse_layers_s": inside if layers else None,
        "steps": steps,
    }


def _parts(events: Any, device: str) -> Iterator[tuple[Any, str, float]]:
    """Yield (operator, kind, its own seconds); on CUDA once a kernel that it launched."""
    for event in events:
        if event.device_type != torch.autograd.DeviceType.CPU or event.name.startswith("Profiler"):
            continue
        path = list(_path(event))
        if device != "cuda":
            yield event, kind_of(path), event.self_cpu_time_total * 1e-6
            continue
        for kernel in event.kernels:
            yield event, kernel_kind(path, kernel.name), kernel.duration * 1e-6


def _path(event: Any) -> list[str]:
    names = []
    while event is not None:
        names.append(event.name)
        event = event.cpu_parent
    return names[::-1]


def _key(event: Any) -> Key | None:
    """Return the extents of x and weight of the convolution that an operator stands in."""
    while event is not None:
        shapes = event.input_shapes or []
        if event.name == "aten::convolution_backward" and len(shapes) > 2:
            return tuple(shapes[1]), tuple(shapes[2])
        if event.name in ("aten::convolution", "aten::conv2d") and len(shapes) > 1:
            return tuple(shapes[0]), tuple(shapes[1])
        event = event.cpu_parent
    return None


@torch.no_grad()
def sparse_keys(network: nn.Module, images: Tensor, names: Collection[str]) -> dict[Key, float]:
    """Return by extents of x and weight what share of such convolutions are of ``names``.

    The profiler tells extents and no names. Layers of equal extents take equally long.

    Args:
        network: the dense one; it stays as it is. names: of the layers that became sparse.
    """
    every: Counter[Key] = Counter()
    ours: Counter[Key] = Counter()

    def hook(name: str) -> Callable[..., None]:
        def note(module: Any, inputs: tuple[Tensor, ...], _: Tensor) -> None:
            key = tuple(inputs[0].shape), tuple(module.weight.shape)
            every[key] += 1
            ours[key] += name in names

        return note

    convolutions = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    hooks = [module.register_forward_hook(hook(name)) for name, module in convolutions]
    training = network.training
    try:
        network.eval()(images)
    finally:
        network.train(training)
        for each in hooks:
            each.remove()
    return {key: ours[key] / count for key, count in every.items() if ours[key]}
