"""Trains one network, and times whole training steps of two."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.accuracy.data import Split
from bench.accuracy.plan import AccuracyPlan

STEP_WARM_UP = 3
STEP_LR = 1e-4  # timed steps follow the training: small ones keep the weights finite


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        curve: test accuracy (a fraction) after each epoch that ended with a finite loss.
        reason: why it stopped early; None when it did not.
        train_s: seconds, tests after each epoch included.
    """

    curve: list[float]
    reason: str | None
    train_s: float


def make_optimizer(network: nn.Module, plan: AccuracyPlan, lr: float) -> torch.optim.SGD:
    """Return the plan's optimizer at ``lr``."""
    return torch.optim.SGD(
        network.parameters(),
        lr,
        momentum=plan.momentum,
        weight_decay=plan.weight_decay,
        nesterov=plan.momentum > 0,
    )


def step(
    network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> Tensor:
    """Do one training step (forward, backward, optimizer); return the loss, detached."""
    optimizer.zero_grad(set_to_none=True)
    loss = functional.cross_entropy(network(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def batches(images: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the row numbers of each batch of one epoch; the last batch may be smaller."""
    yield from torch.randperm(images, generator=generator).split(batch)


def train(network: nn.Module, split: Split, plan: AccuracyPlan, seed: int) -> Outcome:
    """Train ``network`` in place; every arm of a seed sees the same batches.

    A loss that is not finite ends the run after its epoch.
    """
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    optimizer = make_optimizer(network, plan, plan.lr)
    images = len(split.train_y)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        plan.lr,
        total_steps=plan.epochs * math.ceil(images / plan.batch),
        pct_start=0.25,
        cycle_momentum=False,
    )
    curve: list[float] = []
    with deterministic():
        for epoch in range(1, plan.epochs + 1):
            network.train()
            total = torch.zeros((), device=split.train_x.device)
            for rows in batches(images, plan.batch, generator):
                total += step(network, optimizer, split.train_x[rows], split.train_y[rows])
                schedule.step()
            if not math.isfinite(total.item()):
                reason = f"the loss was {total.item():g} in epoch {epoch} of {plan.epochs}"
                return Outcome(curve, reason, time.perf_counter() - start)
            curve.append(accuracy(network, split.test_x, split.test_y))
    return Outcome(curve, None, time.perf_counter() - start)


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the fraction of ``images`` that ``network`` names rightly, in eval mode."""
    network.eval()
    return int((network(images).argmax(1) == labels).sum()) / len(labels)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Ask torch for the same result every time, where it can.

    Filling fresh memory with NaN, which comes with it, would cost a pass over every tensor.
    """
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    switches = torch.utils.deterministic
    filled = switches.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    switches.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        switches.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def step_times(
    dense: nn.Module, sparse: nn.Module, split: Split, plan: AccuracyPlan
) -> dict[str, list[float]]:
    """Return seconds of whole training steps of both networks, alternating, after a warm-up.

    The order turns every round, so that neither always follows the other. Both train on one
    and the same batch; ``dense`` is copied, ``sparse`` moves on by small steps.

    Returns:
        {"dense_s": [...], "sparse_s": [...]}: as many each as ``plan.step_rounds``, in order.
    """
    images, labels = split.train_x[: plan.batch], split.train_y[: plan.batch]
    steps = {
        "dense_s": _stepper(copy.deepcopy(dense), plan, images, labels),
        "sparse_s": _stepper(sparse, plan, images, labels),
    }
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(-STEP_WARM_UP, plan.step_rounds):
        for name in sorted(steps, reverse=bool(number % 2)):
            seconds = _timed(steps[name], images.is_cuda)
            if number >= 0:
                samples[name].append(seconds)
    return samples


def _stepper(
    network: nn.Module, plan: AccuracyPlan, images: Tensor, labels: Tensor
) -> Callable[[], object]:
    optimizer = make_optimizer(network.train(), plan, STEP_LR)
    return lambda: step(network, optimizer, images, labels)


def _timed(run: Callable[[], object], on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start
