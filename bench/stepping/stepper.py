"""A whole training step of one network: forward, backward, optimizer; eager, compiled, captured."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LR, MOMENTUM, WEIGHT_DECAY = 1e-4, 0.9, 5e-4  # small: one batch is stepped on again and again
WARM_UP = {"cpu": (2, 0.3), "cuda": (10, 0.5)}  # steps and seconds, both at least
CAPTURE_WARM_UP = 3


class Stepper:
    """Steps a network on one batch; it is trained in place.

    Args:
        network: on the batch's device. batch: (images, labels).
        mode: "eager", "compile" or "graph". amp: bfloat16 autocast.
        plain: an optimizer without fused kernels: the reference's.

    Attributes:
        optimizer: SGD with momentum. kind: "fused", or "plain".
    """

    def __init__(
        self,
        network: nn.Module,
        batch: tuple[Tensor, Tensor],
        mode: str = "eager",
        amp: bool = False,
        plain: bool = False,
    ) -> None:
        self.network, self.batch, self.mode, self.amp = network.train(), batch, mode, amp
        self.device = batch[0].device
        self.forward: Callable[[Tensor], Tensor] = network
        if mode == "compile":
            self.forward = torch.compile(network)
        self.kind, self.optimizer = _optimizer(network, plain)
        self._replay: Callable[[], Tensor] | None = None

    def __call__(self) -> Tensor:
        """Do one step, without waiting for the device; return the loss, detached."""
        return self._replay() if self._replay else self._once()

    def _once(self) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = functional.cross_entropy(self.forward(self.batch[0]), self.batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def _autocast(self) -> AbstractContextManager[Any]:
        # a graph must not hold weights that an earlier cast left in the cache
        return torch.autocast(
            self.device.type, torch.bfloat16, self.amp, cache_enabled=self.mode != "graph"
        )

    def prepare(self) -> None:
        """Compile or capture, where the mode asks for it; the weights move on by some steps."""
        if self.mode == "compile":
            self._once()
        elif self.mode == "graph":
            self._capture()
        finish(self.device)

    def _capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(CAPTURE_WARM_UP):
                self._once()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()  # algorithms were searched in large workspaces
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self._once()

        def replay() -> Tensor:
            graph.replay()
            return loss

        self._replay = replay

    def warm_up(self) -> float:
        """Step until it is warm; return the seconds of the last step."""
        steps, seconds = WARM_UP[self.device.type]
        start, done, took = time.perf_counter(), 0, 0.0
        while done < steps or time.perf_counter() - start < seconds:
            (took,) = self.timed(1)
            done += 1
        return took

    def timed(self, steps: int) -> list[float]:
        """Return the seconds of each of some steps; on CUDA by events, the host running ahead."""
        if self.device.type != "cuda":
            return [_seconds(self) for _ in range(steps)]
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
        marks[0].record()
        for mark in marks[1:]:
            self()
            mark.record()
        finish(self.device)
        return [first.elapsed_time(last) * 1e-3 for first, last in pairwise(marks)]

    def updates(self) -> dict[str, Tensor]:
        """Return by parameter what the last first step multiplied by the rate and took off."""
        state = self.optimizer.state
        return {
            name: state[parameter]["momentum_buffer"]
            for name, parameter in self.network.named_parameters()
            if parameter in state
        }

    def forget(self) -> None:
        """Empty the momentum in place, as before the first step: graphs stay valid."""
        for state in self.optimizer.state.values():
            state["momentum_buffer"].zero_()


def _optimizer(network: nn.Module, plain: bool) -> tuple[str, torch.optim.SGD]:
    options: dict[str, Any] = {"lr": LR, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
    parameters = [p for p in network.parameters() if p.requires_grad]
    if not plain:
        try:
            return "fused", torch.optim.SGD(parameters, **options, fused=True)
        except (RuntimeError, ValueError, TypeError):  # an old torch, or a device without
            pass
    return "plain", torch.optim.SGD(parameters, **options)


def _seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def finish(device: torch.device | str) -> None:
    """Wait for the device."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
