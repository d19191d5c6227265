"""Small digits and small networks for the tests of the accuracy runs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import nn

from bench.accuracy import AccuracyPlan, Run, arms, data, models, train

TINY = AccuracyPlan(densities=(0.25,), seeds=1, epochs=1, batch=30, device="cpu")
BLOCK_ARMS = ("aligned", "hrbp2")
HAND = {"train_images": 90, "test_images": 60}  # what is known of ``few``


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from more, and lose much where the others are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def few() -> data.Split:
    """The first 90 training and 60 test images."""
    split = data.load("digits")
    return data.Split(split.train_x[:90], split.train_y[:90], split.test_x[:60], split.test_y[:60])


def network_of(
    arm: str, split: data.Split, plan: AccuracyPlan = TINY, seed: int = 0, density: float = 0.25
) -> tuple[nn.Module, nn.Module]:
    """Return (the arm's network, the dense one it starts from)."""
    dense = models.make("digits-cnn", seed)
    scores = arms.scores_for(dense, split.train_x[:30], split.train_y[:30], plan.scores, seed)
    return arms.build(Run(arm, density, seed), plan, dense, scores), dense


def trainer(network: nn.Module, split: data.Split, plan: AccuracyPlan, run: Run) -> train.Training:
    """Return the training of a run."""
    mover = partial(arms.mover, run, plan)
    return train.Training(network, split, plan, run.seed, len(split.train_y), mover)
