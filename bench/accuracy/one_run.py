"""One training run of a plan, from its seed to the line that is stored of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.accuracy import arms, models, train
from bench.accuracy.checkpoint import Checkpoint
from bench.accuracy.company import NOBODY, Company, Interrupted
from bench.accuracy.names import DENSE, SCORELESS
from bench.accuracy.plan import AccuracyPlan, Run
from bench.accuracy.ranks import ALONE, Team
from bench.accuracy.step_times import step_times
from bench.records import SCHEMA

Line = dict[str, Any]


@dataclass(frozen=True)
class Sitting:
    """What all runs of one call share."""

    plan: AccuracyPlan
    split: Any  # a Split on the device, or a Stream: all images
    device: str
    environment_id: str
    out: Path
    every_s: float
    team: Team = ALONE
    company: Company = NOBODY

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(self.split.facts.classes) if self.split.facts else 10

    @property
    def share(self) -> Any:
        """What this process trains on: its rank's part, with pauses for those beside it."""
        place = self.team.place
        split = self.split.shard(place.rank, place.ranks) if self.team.many else self.split
        return split if self.company is NOBODY else Interrupted(split, self.company.pause)

    def data(self) -> dict[str, Any]:
        """Return what a line says of the images."""
        return data_facts(self.split)

    def run_id(self, run: Run) -> str:
        """Return the name of a run of this sitting."""
        return self.plan.run_id(run, self.device, self.data(), self.team.place.ranks)


def data_facts(split: Any) -> dict[str, Any]:
    """Return what a recipe says of the images."""
    facts = split.facts
    if facts is None:  # made by hand
        return {"train_images": len(split.train_y), "test_images": len(split.test_y)}
    told = {k: facts.to_dict()[k] for k in ("label", "digest", "train_images", "test_images")}
    return told | {"augmentation": split.augmentation}


def line_of(run: Run, sitting: Sitting, run_id: str, checkpoint: Checkpoint) -> Line:
    """Train one run; return what is stored of it.

    Raises:
        RuntimeError: out of memory on a rank of several: the others wait for it, and the
            caller is to end. One process stores that, and goes on with the next run.
    """
    plan = sitting.plan
    ranks = sitting.team.place.ranks
    line = {
        "schema": SCHEMA,
        "run_id": run_id,
        "arm": run.arm,
        "dst": run.dst,
        "density": run.density,
        "seed": run.seed,
        "data": plan.data,
        "model": plan.network,
        "recipe": plan.recipe(run, sitting.device, sitting.data(), ranks)
        | {"threads": torch.get_num_threads()},
        "environment": sitting.environment_id,
    }
    try:
        return line | _trained(run, sitting, checkpoint)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        reason = f"{error}".splitlines()[0] if str(error) else "out of memory"
        told = f"a batch of {plan.batch} images does not fit: give a smaller --batch ({reason})"
        if sitting.team.many:
            raise RuntimeError(f"{run}, one of {ranks} ranks: {told}") from error
        return line | _nothing("oom", told)


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or (
        "out of memory" in str(error) or "can't allocate memory" in str(error)
    )


def _nothing(status: str, reason: str) -> Line:
    return {
        "accuracy": None, "status": status, "reason": reason, "curve": [], "losses": [],
        "real_density": None, "flops_ratio": None, "dead_filters": None, "left_dense": {},
        "lifted": [], "standalone": None, "explored": None, "updates": 0, "weights": None,
        "step": None, "train_s": None,
    }  # fmt: skip


def _trained(run: Run, sitting: Sitting, checkpoint: Checkpoint) -> Line:
    plan, device, team = sitting.plan, sitting.device, sitting.team
    dense = models.make(plan.network, run.seed, classes=sitting.classes)
    # the first rank's, for all: on another processor a score may round another way
    network = team.decided(lambda: _start(run, sitting, dense))
    allocation = arms.densities_for(dense, plan, run.density) if run.arm != DENSE else None
    network, dense = network.to(device), dense.to(device)
    training = train.Training(
        network, sitting.share, plan, run.seed, sitting.data()["train_images"],
        partial(arms.mover, run, plan), team,
    )  # fmt: skip
    state = checkpoint.load(device, team)
    if state is not None:
        training.load_state_dict(state)
    outcome = training.run(checkpoint.save if team.place.first else lambda _: None)
    first = _first_batch(sitting.share, run, plan)
    facts = arms.arm_facts(network, dense, first[0], allocation)
    ok = outcome.reason is None
    weights = team.alike(train.weights_digest(network), "weights")
    step = None
    if ok and run.arm != DENSE:
        with sitting.company.turn():
            step = step_times(dense, training.model, first, plan, team)
    return {
        "accuracy": outcome.curve[-1] if ok else None,
        "status": "ok" if ok else "diverged",
        "reason": outcome.reason,
        "curve": outcome.curve,
        "losses": outcome.losses,
        "real_density": facts.real_density,
        "flops_ratio": facts.flops_ratio,
        "dead_filters": facts.dead_filters,
        "left_dense": dict(facts.left_dense),
        "lifted": list(facts.lifted),
        "standalone": facts.standalone,
        "explored": outcome.explored,
        "updates": outcome.updates,
        "weights": weights,
        "step": step,
        "train_s": outcome.train_s,
    }


def _start(run: Run, sitting: Sitting, dense: nn.Module) -> nn.Module:
    """Return the network that a run starts from.

    Its scores are worked out on the CPU from one whole batch: the same patterns on every device.
    """
    plan, scores = sitting.plan, {}
    if run.arm not in SCORELESS:
        images, labels = (each.cpu() for each in _first_batch(sitting.split, run, plan))
        scores = arms.scores_for(dense, images, labels, plan.scores, run.seed, run.density)
    return arms.build(run, plan, dense, scores, sitting.classes)


def _first_batch(split: Any, run: Run, plan: AccuracyPlan) -> train.Batch:
    batch: train.Batch = next(
        split.train_batches(plan.batch, torch.Generator().manual_seed(run.seed))
    )
    return batch


__all__ = ["Line", "Sitting", "data_facts", "line_of"]
