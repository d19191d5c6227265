"""Times whole training steps of two networks, turn by turn."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.accuracy import train
from bench.accuracy.plan import AccuracyPlan
from bench.accuracy.ranks import ALONE, Team

STEP_WARM_UP = 3
STEP_LR = 1e-4  # timed steps follow the training: small ones keep the weights finite


def step_times(
    dense: nn.Module,
    sparse: nn.Module,
    batch: tuple[Tensor, Tensor],
    plan: AccuracyPlan,
    team: Team = ALONE,
) -> dict[str, list[float]]:
    """Return seconds of whole training steps of both networks, alternating, after a warm-up.

    The order turns every round, so that neither always follows the other. Both train on one
    and the same batch; ``dense`` is copied, ``sparse`` moves on by small steps.

    All ranks of a team step together, each on a batch of its own; a step then holds the
    exchange of gradients, and starts when all have come to it.

    Args:
        sparse: as the team wraps it.

    Returns:
        {"dense_s": [...], "sparse_s": [...]}: as many each as ``plan.step_rounds``, in order.
    """
    steps = {
        "dense_s": _stepper(team.wrap(copy.deepcopy(dense)), plan, *batch),
        "sparse_s": _stepper(sparse, plan, *batch),
    }
    samples: dict[str, list[float]] = {name: [] for name in steps}
    with train.deterministic(plan.deterministic):
        for number in range(-STEP_WARM_UP, plan.step_rounds):
            for name in sorted(steps, reverse=bool(number % 2)):
                team.meet()
                seconds = _timed(steps[name], batch[0].is_cuda)
                if number >= 0:
                    samples[name].append(seconds)
    return samples


def _stepper(
    network: nn.Module, plan: AccuracyPlan, images: Tensor, labels: Tensor
) -> Callable[[], object]:
    optimizer = train.make_optimizer(network.train(), plan, STEP_LR)
    return lambda: train.step(network, optimizer, plan, images, labels)


def _timed(run: Callable[[], object], on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start
