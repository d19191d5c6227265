"""Trains one network; stops and goes on at the end of any epoch, with the same bits."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.accuracy.plan import AccuracyPlan
from bench.accuracy.ranks import ALONE, Team
from hrbp_core.dynamic import DynamicSparsity

Batch = tuple[Tensor, Tensor]
Mover = Callable[[nn.Module, torch.optim.Optimizer, int], DynamicSparsity | None]
Save = Callable[[dict[str, Any]], None]


class Data(Protocol):
    """What the loop needs of a data set: a ``Split`` or a ``Stream``."""

    @property
    def augments(self) -> bool:
        """Whether images are cropped and mirrored."""
        ...

    def train_batches(
        self, batch: int, generator: torch.Generator, augment: bool = False
    ) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        ...

    def test_batches(self) -> Iterator[Batch]:
        """Yield all test images."""
        ...


@dataclass
class Outcome:
    """How a training goes, and in the end, how it went.

    Attributes:
        curve: test accuracy (a fraction) after each epoch that ended with a finite loss.
        losses: mean training loss of each of them.
        reason: why it stopped early; None when it did not.
        train_s: seconds, tests after each epoch included; of all sittings.
        explored: share of all positions that a moving pattern ever kept; None where it stays.
        updates: how often the pattern moved.
    """

    curve: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    reason: str | None = None
    train_s: float = 0.0
    explored: float | None = None
    updates: int = 0


def make_optimizer(network: nn.Module, plan: AccuracyPlan, lr: float) -> torch.optim.SGD:
    """Return the plan's optimizer at ``lr``."""
    return torch.optim.SGD(
        network.parameters(),
        lr,
        momentum=plan.momentum,
        weight_decay=plan.weight_decay,
        nesterov=plan.momentum > 0,
    )


def loss_of(network: nn.Module, plan: AccuracyPlan, images: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy, by autocast where the plan says so."""
    half = plan.precision == "bfloat16"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        logits = network(images)
        return functional.cross_entropy(logits, labels, label_smoothing=plan.smoothing)


def step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    plan: AccuracyPlan,
    images: Tensor,
    labels: Tensor,
) -> Tensor:
    """Do one training step (forward, backward, optimizer); return the loss, detached."""
    optimizer.zero_grad(set_to_none=True)
    loss = loss_of(network, plan, images, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


class Training:
    """One network on its way through the plan's epochs.

    Every arm of a seed sees the same batches. A loss that is not finite ends the run after its
    epoch.

    Args:
        images: training images of an epoch.
        mover: makes what moves the pattern, of (network, optimizer, steps).
        team: the processes that train it; each has its share of ``data``, and all call alike.

    Attributes:
        model: what is called in a step: the network, or what wraps it for the team.
    """

    def __init__(
        self, network: nn.Module, data: Data, plan: AccuracyPlan, seed: int, images: int,
        mover: Mover = lambda *_: None, team: Team = ALONE,
    ) -> None:  # fmt: skip
        self.network, self.data, self.plan = network, data, plan
        self.team, self.seed, self.model = team, seed, team.wrap(network)
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = make_optimizer(network, plan, plan.lr)
        steps = plan.epochs * math.ceil(images / plan.batch)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, plan.lr, total_steps=steps, pct_start=0.25, cycle_momentum=False
        )
        self.dst = mover(network, self.optimizer, steps)
        self.outcome = Outcome()

    @property
    def epoch(self) -> int:
        """How many epochs are over."""
        return len(self.outcome.curve)

    def run(self, save: Save = lambda _: None) -> Outcome:
        """Train to the end; ``save`` is given the state after each epoch but the last."""
        with deterministic(self.plan.deterministic):
            while self.epoch < self.plan.epochs and self.outcome.reason is None:
                start = time.perf_counter()
                self._epoch()
                self.outcome.train_s += time.perf_counter() - start
                if self.epoch < self.plan.epochs and self.outcome.reason is None:
                    save(self.state_dict())
        if self.dst is not None:
            self.outcome.explored = self.dst.explored.whole
            self.outcome.updates = self.dst.updates
        return self.outcome

    def _epoch(self) -> None:
        plan, total, steps = self.plan, None, 0
        self.model.train()
        self._seed_dropout()
        for images, labels in self.data.train_batches(
            plan.batch, self.generator, augment=self.data.augments
        ):
            loss = step(self.model, self.optimizer, plan, images, labels)
            if self.dst is not None:
                self.dst.step()
            self.schedule.step()
            total = loss if total is None else total + loss
            steps += 1
        assert total is not None
        mean = self.team.mean(total.item() / steps)
        if not math.isfinite(mean):
            self.outcome.reason = (
                f"the loss was {mean:g} in epoch {self.epoch + 1} of {plan.epochs}"
            )
            return
        self.outcome.losses.append(mean)
        self.team.average_statistics(self.network)
        self.outcome.curve.append(accuracy(self.network, self.data, plan, self.team))

    def _seed_dropout(self) -> None:
        """Let each rank drop other units; a checkpoint holds the first rank's state alone."""
        if self.team.many:
            place = self.team.place
            torch.manual_seed(
                (self.seed * self.plan.epochs + self.epoch) * place.ranks + place.rank
            )

    def state_dict(self) -> dict[str, Any]:
        """Return all that the rest of the training depends on."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
            "dst": None if self.dst is None else self.dst.state_dict(),
            "curve": list(self.outcome.curve),
            "losses": list(self.outcome.losses),
            "train_s": self.outcome.train_s,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])
        if self.dst is not None:
            self.dst.load_state_dict(state["dst"])
        self.outcome = Outcome(state["curve"], state["losses"], train_s=state["train_s"])


@torch.no_grad()
def accuracy(network: nn.Module, data: Data, plan: AccuracyPlan, team: Team = ALONE) -> float:
    """Return the fraction of the test images that ``network`` names rightly, in eval mode.

    Of a team each tests its own share, and all get the whole fraction.
    """
    network.eval()
    right, seen = 0, 0
    half = plan.precision == "bfloat16"
    for images, labels in data.test_batches():
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            right += (network(images).argmax(1) == labels).sum()  # type: ignore[assignment]
        seen += len(labels)
    right, seen = team.sums(int(right), seen)
    return right / seen


def weights_digest(network: nn.Module) -> str:
    """Return 16 hex digits of a sha256 of all parameters and buffers that are saved."""
    found = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        found.update(name.encode())
        flat = tensor.detach().cpu().contiguous().view(-1)
        found.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return found.hexdigest()[:16]


@contextlib.contextmanager
def deterministic(wanted: bool = True) -> Iterator[None]:
    """Ask torch for the same result every time, where it can; else for its fastest.

    Filling fresh memory with NaN, which comes with it, would cost a pass over every tensor.
    """
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    tried = torch.backends.cudnn.benchmark
    switches = torch.utils.deterministic
    filled = switches.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    torch.backends.cudnn.benchmark = not wanted
    switches.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = tried
        switches.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
