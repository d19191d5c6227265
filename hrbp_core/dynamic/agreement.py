"""One decision for all processes, whatever their seeds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The processes that train one network.

    Attributes:
        group: None: all, when ``torch.distributed`` is initialised, and else this one alone.
        device: where the network is: NCCL sends from the current device.
    """

    group: dist.ProcessGroup | None
    device: torch.device

    @property
    def many(self) -> bool:
        """Whether there is somebody to agree with."""
        ready = dist.is_available() and dist.is_initialized()
        return ready and dist.get_rank(self.group) >= 0 and dist.get_world_size(self.group) > 1

    @property
    def first(self) -> bool:
        """Whether this process decides."""
        return not self.many or dist.get_rank(self.group) == 0

    def gather(self, mine: T) -> list[T]:
        """Return what every rank has to tell."""
        if not self.many:
            return [mine]
        everyone: list[Any] = [None] * dist.get_world_size(self.group)
        with self._current():
            dist.all_gather_object(everyone, mine, group=self.group)
        return everyone

    def add(self, tensor: Tensor) -> None:
        """Sum a tensor over the ranks, in place."""
        if self.many:
            with self._current():
                dist.all_reduce(tensor, group=self.group)

    def decided(self, decide: Callable[[], T]) -> T:
        """Return what the first rank decides; nobody waits for one that failed.

        Raises:
            RuntimeError: the first rank failed; on that one, its own error.
        """
        if not self.many:
            return decide()
        answer: list[Any] = [None, ""]
        failure: Exception | None = None
        if self.first:
            try:
                answer[0] = decide()
            except Exception as error:  # told to the others before it is raised
                failure, answer[1] = error, f"{type(error).__name__}: {error}"
        source = 0 if self.group is None else dist.get_global_rank(self.group, 0)
        with self._current():
            dist.broadcast_object_list(answer, src=source, group=self.group)
        if failure is not None:
            raise failure
        if answer[1]:
            raise RuntimeError(f"expected a decision of rank {source}, got {answer[1]}")
        decision: T = answer[0]
        return decision

    def _current(self) -> contextlib.AbstractContextManager[object]:
        if self.device.type == "cuda":
            return torch.cuda.device(self.device)
        return contextlib.nullcontext()
