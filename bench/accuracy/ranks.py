"""Several processes train one network: who decides, and what they tell each other.

::

    with joined("cuda") as team:                 # under torchrun; else ALONE, and nothing happens
        split = team.each(read, "the data")      # all go on, or none does
        network = team.decided(build)            # the first one's, for all
        model = team.wrap(network)               # DistributedDataParallel

Objects and small numbers go by gloo over the CPU, gradients on CUDA by NCCL.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from bench.accuracy.place import ONE, Place, place_of
from hrbp_core.dynamic.agreement import Ranks

# GraSP's scores of a large network on a CPU take minutes; who died is torchrun's to notice
PATIENCE = timedelta(hours=1)
CPU = Ranks(None, torch.device("cpu"))

# torch 2.13 deprecates the older name, which others alone have
SYNCED = "forward_sync_buffers"
if SYNCED not in inspect.signature(DistributedDataParallel).parameters:
    SYNCED = "broadcast_buffers"

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """The processes that train together, as one of them sees them."""

    place: Place = ONE

    @property
    def many(self) -> bool:
        """Whether there is more than one."""
        return self.place.ranks > 1

    def decided(self, decide: Callable[[], T]) -> T:
        """Return what ``decide`` returns on the first rank, on all of them.

        Raises:
            RuntimeError: it failed there; on the first rank, its own error.
        """
        return CPU.decided(decide) if self.many else decide()

    def each(self, work: Callable[[], T], what: str) -> T:
        """Return what ``work`` returns here, once it is done on every rank.

        Raises:
            RuntimeError: it failed elsewhere; where it failed, its own error.
        """
        if not self.many:
            return work()
        done: T | None = None
        failure: Exception | None = None
        try:
            done = work()
        except Exception as error:  # told to the others before it is raised
            failure = error
        told = CPU.gather("" if failure is None else f"{type(failure).__name__}: {failure}")
        if failure is not None:
            raise failure
        for rank, text in enumerate(told):
            if text:
                raise RuntimeError(f"expected {what} on every rank, got on {rank}: {text}")
        return done  # type: ignore[return-value]

    def alike(self, mine: T, what: str) -> T:
        """Return ``mine`` when it is everybody's.

        Raises:
            RuntimeError: it is not.
        """
        if self.many:
            for rank, other in enumerate(CPU.gather(mine)):
                if other != mine:
                    raise RuntimeError(
                        f"expected {what} alike on all ranks, got {mine!r} and {other!r} on {rank}"
                    )
        return mine

    def sums(self, *numbers: int) -> list[int]:
        """Return each number summed over the ranks."""
        if not self.many:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.int64)
        CPU.add(total)
        return total.tolist()

    def mean(self, number: float) -> float:
        """Return the mean over the ranks, the same on all of them."""
        if not self.many:
            return number
        total = torch.tensor(number, dtype=torch.float64)
        CPU.add(total)
        return total.item() / self.place.ranks

    def meet(self) -> None:
        """Wait until all have come here."""
        self.sums(1)

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return what trains ``network`` with the mean of all ranks' gradients.

        No buffer is sent a step: statistics are averaged by :meth:`average_statistics`, and
        patterns move alike everywhere.
        """
        if not self.many:
            return network
        no_buffers: dict[str, Any] = {SYNCED: False}
        return DistributedDataParallel(network, **no_buffers)

    @torch.no_grad()
    def average_statistics(self, network: nn.Module) -> None:
        """Give every BatchNorm the mean of the ranks' running statistics.

        Each rank has normalised by its own share of every batch, and has seen no other.
        """
        if not self.many:
            return
        for module in network.modules():
            if isinstance(module, _BatchNorm) and module.running_mean is not None:
                assert module.running_var is not None
                for statistic in (module.running_mean, module.running_var):
                    total = statistic.cpu()
                    CPU.add(total)
                    statistic.copy_(total / self.place.ranks)


ALONE = Team()


@contextmanager
def joined(device: str) -> Iterator[Team]:
    """Offer the team that torchrun's variables name: start its process group, and end it.

    On CUDA each rank takes the GPU of its local number. One process needs no group.

    Args:
        device: "cpu" or "cuda".

    Raises:
        ValueError: variables that do not fit; more ranks on this machine than GPUs.
    """
    place = place_of(os.environ)
    if place.ranks == 1:
        yield ALONE
        return
    if device == "cuda":
        found = torch.cuda.device_count()
        if place.local_ranks > found:
            raise ValueError(
                f"expected at most one rank a GPU, got {place.local_ranks} ranks on a machine "
                f"with {found}; give torchrun a smaller --nproc-per-node, or use --device cpu"
            )
        torch.cuda.set_device(place.local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    # not after an error: NCCL would wait for what the others never send; torchrun ends them
    yield Team(place)
    dist.destroy_process_group()


__all__ = ["ALONE", "Team", "joined"]
