"""Two ranks with other seeds and data: after ten updates they keep the same, and what one would.

::

    python -m tests.dynamic_ranks FILE    # where the two meet
"""

from __future__ import annotations

import sys
from hashlib import sha256
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from hrbp_core import SET, RigL
from hrbp_core.dynamic import Site
from tests.dynamic_samples import layers, learn, loss_of, optimizer_of, sparse

RANKS, STEPS = 2, 10


def facts(network: Any) -> list[Any]:
    return [
        (
            name,
            layer.pattern.content_hash,
            sha256(layer.values.detach().numpy().tobytes()).hexdigest(),
        )
        for name, layer in layers(network).items()
    ]


def by_chance(rank: int) -> Any:
    network = sparse()
    optimizer = optimizer_of(network)
    parallel = DistributedDataParallel(network)
    dst = SET(parallel, optimizer, every=1, until=99, seed=rank)
    for number in range(STEPS):
        learn(parallel, optimizer, number * RANKS + rank)
        dst.step()
    assert dst.updates == STEPS
    assert dst.explored.whole > 0.6
    return facts(network), dst.explored


def by_gradients(rank: int) -> Any:
    """Each rank sees its own batches; the sum decides, as in one process that sees all."""
    network, alone = sparse(), sparse()
    optimizer, other = optimizer_of(network), optimizer_of(alone)
    parallel = DistributedDataParallel(network)
    dst = RigL(parallel, optimizer, every=1, until=99, seed=rank)
    groups = [dist.new_group([each]) for each in range(RANKS)]
    one = RigL(alone, other, every=1, until=99, group=groups[rank])
    for number in range(STEPS):
        learn(parallel, optimizer, number * RANKS + rank)
        dst.step()
        other.zero_grad()
        for each in range(RANKS):
            (loss_of(alone, number * RANKS + each) / RANKS).backward()
        other.step()
        one.step()
    for name, layer in layers(alone).items():
        assert layers(network)[name].pattern == layer.pattern, name
        torch.testing.assert_close(layers(network)[name].values, layer.values)
    return facts(network), dst.explored


def one_overflows(rank: int) -> Any:
    """Nobody updates before all can."""
    network = sparse()
    optimizer = optimizer_of(network)
    dst = RigL(network, optimizer, every=1, until=99)
    learn(network, optimizer, 0)
    if rank:
        dst._stepped = False
    update = dst.step()
    assert update is not None
    assert update.postponed == "the optimizer did not step"
    return facts(network)


def one_fails(rank: int) -> None:
    """The first rank's error is everybody's, and nobody waits."""

    class Broken(SET):
        def growth_scores(self, site: Site, gradient: Tensor | None) -> Tensor:
            raise ValueError("no scores today")

    network = sparse()
    optimizer = optimizer_of(network)
    dst = Broken(network, optimizer, every=1, until=99)
    learn(network, optimizer, 0)
    told = "got ValueError: no scores today" if rank else "no scores today"
    with pytest.raises(RuntimeError if rank else ValueError, match=told):
        dst.step()


def other_patterns(rank: int) -> None:
    network = sparse(seed=rank)
    optimizer = optimizer_of(network)
    dst = SET(network, optimizer, every=1, until=99)
    learn(network, optimizer, 0)
    with pytest.raises(RuntimeError, match=r"expected patterns .* on every rank, got .* on 1"):
        dst.step()


SCENES = (by_chance, by_gradients, one_overflows, one_fails, other_patterns)


def play(rank: int, file: str, queue: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=RANKS)
    queue.put([(scene.__name__, scene(rank)) for scene in SCENES])
    dist.destroy_process_group()


def main(file: str) -> None:
    """Both ranks end alike in every scene."""
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    workers = [context.Process(target=play, args=(rank, file, queue)) for rank in range(RANKS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    one, other = queue.get(), queue.get()
    assert one == other
    assert [name for name, _ in one] == [scene.__name__ for scene in SCENES]


if __name__ == "__main__":
    main(sys.argv[1])
    print("alike")
