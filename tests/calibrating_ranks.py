"""Two ranks that calibrate together: opposite clocks, other shapes, a layer of one, an error.

::

    python -m tests.calibrating_ranks FILE    # where the two meet
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hrbp_core import calibrate
from tests.calibration_samples import DENSE, SPARSE, ScriptedClock, image, layer

RANKS = 2


class Branches(nn.Module):
    """``one`` is always called, ``two`` on large images alone, ``never`` by nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.never = layer(), layer(), layer()

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        return self.two(y) if x.shape[-1] > 6 else y


def clock(sparse_s: float, dense_s: float) -> ScriptedClock:
    return ScriptedClock(lambda trial: sparse_s if trial.way == SPARSE else dense_s)


def opposite(rank: int) -> Any:
    """Rank 0 finds sparse twice as fast, rank 1 dense three times: 4 s against 3 s."""
    model = Branches()
    report = calibrate(model, image(), clock=clock(*((1.0, 2.0), (3.0, 1.0))[rank]))
    assert model.one.choice == DENSE
    assert report.ranks == RANKS
    assert (report.layers["one"].sparse_s, report.layers["one"].dense_s) == (2.0, 1.5)
    return report.choices


def the_other_way(rank: int) -> Any:
    model = DistributedDataParallel(Branches(), find_unused_parameters=True)
    report = calibrate(model, image(), clock=clock(*((1.0, 2.0), (2.0, 1.5))[rank]))
    assert model.module.one.choice == SPARSE
    assert report.choices == {"one": SPARSE}  # no "module.": its forward, which waits, is not run
    return report.choices


def other_shapes(rank: int) -> Any:
    """Rank 1 alone calls ``two``, and more images."""
    model = Branches()
    report = calibrate(model, image(1 + rank, 6 + rank), clock=clock(1.0, 0.5))
    assert report.layers["one"].calls == {f"float32 [{1 + rank}, 8, {6 + rank}, {6 + rank}]": 1}
    assert report.layers["two"].calls == ({"float32 [2, 8, 7, 7]": 1} if rank else {})
    assert report.not_called == ("never",)
    assert (model.two.choice, model.never.choice) == (DENSE, "undecided")
    return report.choices


def real_clocks(rank: int) -> Any:
    return calibrate(Branches(), image(2, 7), repeats=3, margin=0.0).choices


def in_training(rank: int) -> Any:
    """Batch statistics, and DistributedDataParallel's own state, stay usable."""
    torch.manual_seed(0)
    parallel = DistributedDataParallel(nn.Sequential(layer(), nn.BatchNorm2d(8), layer()))
    for number in range(3):
        if number == 1:
            calibrate(parallel, image(), clock=clock(1.0, 0.5 + rank))
        parallel(image() * (1 + rank)).square().mean().backward()
    choices = {n: parallel.module[n].choice for n in (0, 2)}
    assert set(choices.values()) == {SPARSE}  # 1 s against the mean of 0.5 s and 1.5 s
    return choices, [float(p.grad.sum()) for p in parallel.parameters() if p.grad is not None]


def one_fails(rank: int) -> Any:
    """Nobody waits, nobody chooses."""
    model = Branches()
    x = image().to("meta") if rank else image()
    message = "expected x on the model's device cpu, got meta"
    if rank == 0:
        message = f"expected times of every rank, got of 1: ValueError: {message}"
    with pytest.raises(ValueError if rank else RuntimeError, match=message):
        calibrate(model, x, clock=clock(1.0, 0.5))
    return model.one.choice


def alone(rank: int) -> Any:
    """A group of one rank asks nobody else."""
    groups = [dist.new_group([each]) for each in range(RANKS)]
    found = calibrate(Branches(), image(), group=groups[rank], clock=clock(1.0, 0.5 + rank))
    assert found.ranks == 1
    assert found.choices["one"] == (DENSE, SPARSE)[rank]


SCENES: tuple[Callable[[int], Any], ...] = (
    opposite, the_other_way, other_shapes, real_clocks, in_training, one_fails, alone,
)  # fmt: skip


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
