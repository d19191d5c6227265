"""A sparse network in other processes: sent to one, and trained by two that average gradients.

::

    python -m tests.two_processes FILE    # where the two meet
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hrbp_core import absorb
from tests.conversion_samples import converted, image, model

STEPS, RANKS = 3, 2


def network() -> Any:
    """Return the network of every process: one pattern that lies in place, one that does not."""
    return converted(model(), {"conv1": 0.25, "conv2": 0.5}, block=4)[0]


def optimizer_of(module: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)


def answer(sent: list[nn.Module], queue: Any) -> None:
    """Put what the networks that came make of the image."""
    queue.put([one(image()).detach().numpy() for one in sent])


def send() -> None:
    """Send networks to a fresh process by pickle, and compare the answers."""
    context = mp.get_context("spawn")
    networks = [network(), absorb(network())[0]]
    queue = context.SimpleQueue()
    worker = context.Process(target=answer, args=(networks, queue))
    worker.start()
    for one, got in zip(networks, queue.get(), strict=True):
        torch.testing.assert_close(torch.from_numpy(got), one(image()).detach())
    worker.join()
    assert worker.exitcode == 0


def train(rank: int, file: str, queue: Any) -> None:
    """Train as one of two ranks; put the parameters."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=RANKS)
    mine = network()
    with torch.no_grad():
        mine.conv1.values.add_(rank)  # all take those of rank 0
    parallel = DistributedDataParallel(mine)
    optimizer = optimizer_of(parallel)
    for number in range(STEPS):
        optimizer.zero_grad()
        parallel(image() * (1 + rank + number)).square().mean().backward()
        optimizer.step()
    queue.put({name: p.detach().numpy() for name, p in mine.named_parameters()})
    dist.destroy_process_group()


def ranks(file: str) -> None:
    """Two ranks end with the same bits, and with what one process would have reached."""
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    workers = [context.Process(target=train, args=(rank, file, queue)) for rank in range(RANKS)]
    for worker in workers:
        worker.start()
    one, other = queue.get(), queue.get()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    alone = network()
    optimizer = optimizer_of(alone)
    for number in range(STEPS):
        optimizer.zero_grad()
        for rank in range(RANKS):
            (alone(image() * (1 + rank + number)).square().mean() / RANKS).backward()
        optimizer.step()
    assert one.keys() == other.keys() == dict(alone.named_parameters()).keys()
    for name, parameter in alone.named_parameters():
        assert (one[name] == other[name]).all(), name
        torch.testing.assert_close(torch.from_numpy(one[name]), parameter.detach())


if __name__ == "__main__":
    send()
    ranks(sys.argv[1])
    print("same")
