"""``calibrate``: each layer of policy "auto" runs the way that is faster, here and as it is used.

::

    sparse, _ = convert(model, 0.25, policy="auto")
    sparse, _ = absorb(sparse)
    print(calibrate(sparse.to(device), batch))    # before torch.compile and CUDA graphs
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hrbp_core.calibration_report import CalibrationReport, LayerTimes
from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.observing import Call, observe
from hrbp_core.trials import Clock, layer_times

Times = dict[str, tuple[float, float]]  # name -> seconds (sparsely, densely)


class Mine(NamedTuple):
    """What a rank tells the others: its times, or why it has none."""

    times: Times
    error: str | None = None


def calibrate(
    model: nn.Module,
    x: Any,
    *,
    backward: bool = True,
    repeats: int = 11,
    margin: float = 0.03,
    group: dist.ProcessGroup | None = None,
    clock: Clock | None = None,
) -> CalibrationReport:
    """Choose for every layer of policy "auto" whether it runs sparsely or densely; tell why.

    One forward ``model(x)`` shows how each layer is called: shapes, dtypes, layouts, autocast,
    what requires gradients; the model's own mode counts (``train()`` for training). Both ways of
    the layer are then timed on random tensors like those, in turn. The dense way is chosen where
    ``sparse > (1 + margin) * dense``, by medians summed over the layer's calls. Nothing but the
    choices changes: no parameter, gradient, buffer, random state, mode or hook. The choices are
    saved with the model.

    Call it again for other shapes, dtypes or devices. Where a forward is recomputed (reentrant
    checkpointing) no gradients are seen, and forwards alone are timed.

    Args:
        x: the model's input: a tensor; a tuple or list of positional arguments; a dict of
            arguments by name.
        backward: time gradients too, where they are recorded and something requires them.
        repeats: samples of each way; a sample is one call, or as many as take 2 ms.
        margin: how much faster the dense way has to be, as a share of its time.
        group: the processes that choose alike, when ``torch.distributed`` is initialised (None:
            all). Each has to call this; times are averaged over those that have some.
        clock: None: host time on a CPU, events on a CUDA device.

    Raises:
        TypeError: not a module.
        ValueError: repeats below 1, or a negative margin; lazy parameters, or without memory;
            x on another device; a clock that does not run.
        RuntimeError: inside ``torch.compile`` or the capture of a CUDA graph; a model that is
            compiled already; an error on another rank.
    """
    _refuse_traces()
    if isinstance(model, DistributedDataParallel):
        model = model.module  # its forward waits for all ranks, and one may have failed
    layers: dict[str, BlockSparseConv2d] = {}
    try:
        layers = _layers(model, repeats, margin)
        calls = observe(model, layers, x) if layers else {}
        times = {
            name: layer_times(
                name, layer, calls[name], backward=backward, repeats=repeats, clock=clock
            )
            for name, layer in layers.items()
            if calls[name]
        }
    except Exception as error:
        _together(Mine({}, f"{type(error).__name__}: {error}"), layers, group)
        raise
    everyone = _together(Mine(times), layers, group)
    found = {}
    for name in layers:
        known = [each.times[name] for each in everyone if name in each.times]
        if known:
            found[name] = _decided(name, known, calls[name], margin)
    for name, decided in found.items():
        layers[name].choose(decided.choice)
    silent = tuple(name for name in layers if name not in found)
    return CalibrationReport(found, silent, margin, backward, len(everyone))


def _decided(
    name: str, known: Sequence[tuple[float, float]], calls: Mapping[Call, int], margin: float
) -> LayerTimes:
    """Return a layer's times and choice, of the times of all ranks that have some."""
    sparse_s, dense_s = (statistics.fmean(column) for column in zip(*known, strict=True))
    choice = "dense" if sparse_s > (1 + margin) * dense_s else "sparse"
    told: dict[str, int] = {}
    for call, count in calls.items():
        told[str(call)] = told.get(str(call), 0) + count
    return LayerTimes(name, sparse_s, dense_s, told, choice)


def _refuse_traces() -> None:
    capturing = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    if capturing or torch.compiler.is_compiling():
        what = "the capture of a CUDA graph" if capturing else "torch.compile"
        raise RuntimeError(f"expected calibrate before anything is recorded, got it inside {what}")


def _layers(model: nn.Module, repeats: int, margin: float) -> dict[str, BlockSparseConv2d]:
    """Return the layers to calibrate, by name."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected model as a torch.nn.Module, got {type(model).__name__}")
    if repeats < 1:
        raise ValueError(f"expected repeats >= 1, got {repeats}")
    if not (math.isfinite(margin) and margin >= 0):
        raise ValueError(f"expected margin as a number >= 0, got {margin}")
    for name, module in model.named_modules():
        if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
            got = f"{name}, which is compiled" if name else "one that is compiled"
            raise RuntimeError(f"expected a model before torch.compile, got {got}")
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, BlockSparseConv2d) and module.policy == "auto"
    }


def _together(
    mine: Mine, layers: dict[str, BlockSparseConv2d], group: dist.ProcessGroup | None
) -> list[Mine]:
    """Return what every rank has to tell, in one exchange whatever their shapes are.

    Raises:
        RuntimeError: others failed; not on a rank that failed itself.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_rank(group) < 0:
        return [mine]
    everyone: list[Any] = [None] * dist.get_world_size(group)
    device = next((layer.values.device for layer in layers.values()), torch.device("cpu"))
    cuda = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    with cuda:  # NCCL sends from the current device
        dist.all_gather_object(everyone, mine, group=group)
    if mine.error is None:
        for rank, other in enumerate(everyone):
            if other.error is not None:
                raise RuntimeError(f"expected times of every rank, got of {rank}: {other.error}")
    return everyone
