"""Two ranks train a sweep: alike to the bit, stopped and resumed too, and nobody waits for ever.

::

    python -m tests.accuracy_ranks FOLDER    # where the two meet, and keep what they train
"""

from __future__ import annotations

import copy
import math
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from bench.accuracy import data, one_run, run, train
from bench.accuracy.data import Split
from bench.accuracy.ranks import Team, joined
from tests.accuracy_samples import TINY

RANKS = 2
PLAN = replace(TINY, arms=("unstructured:rigl", "hrbp2:rigl"), epochs=2, take=(90, 61), dst_every=1)
DENSE = replace(PLAN, arms=("dense",))
ONE = replace(PLAN, arms=("hrbp2:rigl",))
UNTIMED = ("step", "train_s")


class Killed(Exception):
    """In place of SIGKILL: nothing catches it."""


def told(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in UNTIMED} for line in lines]


def sweep(team: Team, folder: Path) -> Any:
    """Both have every line; the first alone writes and tells."""
    calls: list[Any] = []
    mine = folder / f"sweep-{team.place.rank}"
    lines = run(PLAN, mine, environment_id="here", team=team, progress=lambda *a: calls.append(a))
    assert mine.exists() == team.place.first
    assert len(calls) == len(lines) == 2
    assert all(line["recipe"]["ranks"] == RANKS for line in lines)
    assert all(line["status"] == "ok" for line in lines)
    assert [line["updates"] for line in lines] == [3, 3]  # of 6 steps, 3/4: after 1, 2 and 3
    assert all(len(line["step"]["sparse_s"]) == 15 for line in lines)
    return told(lines)


def resumed(team: Team, folder: Path) -> Any:
    """What was stopped after an epoch ends as what was not."""
    whole = train.Training._epoch
    mine = folder / f"cut-{team.place.rank}"

    def epoch(training: train.Training) -> None:
        if training.epoch == 1:
            raise Killed
        whole(training)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_run, "step_times", lambda *_: None)
        with patch.context() as killing:
            killing.setattr(train.Training, "_epoch", epoch)
            with pytest.raises(Killed):
                run(ONE, mine, environment_id="here", team=team, checkpoint_s=0)
        assert mine.exists() == team.place.first
        if team.place.first:
            assert not (mine / "accuracy.jsonl").exists()
            assert len(list((mine / "checkpoints").iterdir())) == 1
        lines = run(ONE, mine, environment_id="here", team=team, checkpoint_s=0)
    assert not (mine / "checkpoints").exists()
    return told(lines)


def gradients(team: Team, _: Path) -> Any:
    """A share's mean gradient, averaged, is the whole batch's, where no statistics are shared."""
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(team.place.rank)  # all take those of the first rank
    parallel = team.wrap(network)
    alone = copy.deepcopy(network)
    whole = data.load("digits")
    share = whole.shard(team.place.rank, RANKS)
    images, labels = next(share.train_batches(30, torch.Generator().manual_seed(3)))
    assert len(labels) == 15
    mine = train.loss_of(parallel, PLAN, images, labels)
    mine.backward()  # type: ignore[no-untyped-call]
    loss = train.loss_of(
        alone, PLAN, *next(whole.train_batches(30, torch.Generator().manual_seed(3)))
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert team.mean(mine.item()) == pytest.approx(loss.item(), rel=1e-6)
    for one, other in zip(network.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)
    return [parameter.grad.tolist() for parameter in network.parameters()]  # type: ignore[union-attr]


def tests_are_shared(team: Team, _: Path) -> Any:
    """Each names its own test images; both get the fraction of all."""
    whole = data.load("digits")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    share = whole.shard(team.place.rank, RANKS)
    seen = sum(len(labels) for _, labels in share.test_batches())
    assert seen == (299, 298)[team.place.rank]
    together = train.accuracy(network, share, PLAN, team)
    assert together == train.accuracy(network, whole, PLAN)
    return together


def statistics(team: Team, _: Path) -> Any:
    norm = nn.BatchNorm2d(2)
    norm(torch.full((2, 2, 3, 3), 10.0 * team.place.rank))
    team.average_statistics(norm)
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == [0.5, 0.5]  # of 0 and 1: a tenth of what was seen
    return norm.running_var.tolist()  # type: ignore[union-attr]


def one_diverges(team: Team, folder: Path) -> Any:
    """What one rank saw ends the run on both."""
    loss_of = train.loss_of

    def spoilt(*args: Any) -> Any:
        return loss_of(*args) * (math.nan if team.place.rank else 1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "loss_of", spoilt)
        (line,) = run(DENSE, folder / "nan", environment_id="here", team=team)
    assert line["reason"] == "the loss was nan in epoch 1 of 2"
    return line["status"]


def one_lacks_the_data(team: Team, folder: Path) -> None:
    load = data.load

    def missing(*args: Any, **options: Any) -> Split:
        if team.place.rank:
            raise data.DataError("expected data, got none")
        return load(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", missing)
        words = "data, got none" if team.place.rank else "the data on every rank, got on 1: DataErr"
        with pytest.raises(ValueError if team.place.rank else RuntimeError, match=words):
            run(DENSE, folder / "none", environment_id="here", team=team)


def others_have_other_data(team: Team, folder: Path) -> None:
    plan = replace(PLAN, take=(90 + team.place.rank, 61))
    with pytest.raises(RuntimeError, match=r"expected the data alike on all ranks, got .* on"):
        run(plan, folder / "none", environment_id="here", team=team)


def the_first_fails(team: Team, folder: Path) -> None:
    """A results file that the first cannot read is told to the others."""
    broken = folder / "broken"
    if team.place.first:
        broken.mkdir()
        (broken / "accuracy.jsonl").write_text('{"schema": 0}\n{}\n')
    words = "expected schema 1" if team.place.first else "a decision of rank 0, got StoreError"
    with pytest.raises(ValueError if team.place.first else RuntimeError, match=words):
        run(DENSE, broken, environment_id="here", team=team)
    team.meet()


SCENES = (
    sweep, resumed, gradients, tests_are_shared, statistics, one_diverges, one_lacks_the_data,
    others_have_other_data, the_first_fails,
)  # fmt: skip


def play(rank: int, folder: Path, port: int, queue: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS),
        "LOCAL_WORLD_SIZE": str(RANKS), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port),
    }  # fmt: skip
    with joined("cpu") as team:
        queue.put([(scene.__name__, scene(team, folder)) for scene in SCENES])
    assert not torch.distributed.is_initialized()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])


def main(folder: Path) -> None:
    """Both ranks end alike in every scene, and a sweep that was cut as one that was not."""
    context = mp.get_context("spawn")
    queue, port = context.SimpleQueue(), free_port()
    workers = [context.Process(target=play, args=(r, folder, port, queue)) for r in range(RANKS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    one, other = queue.get(), queue.get()
    assert one == other
    assert [name for name, _ in one] == [scene.__name__ for scene in SCENES]
    assert one[0][1][1:] == one[1][1]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    print("alike")
