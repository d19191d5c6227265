"""Does the runs of a plan that are not stored yet; one line of ``accuracy.jsonl`` each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.accuracy import arms, models, train
from bench.accuracy import data as loading
from bench.accuracy.checkpoint import EVERY_S, Checkpoint
from bench.accuracy.names import DENSE, SCORELESS
from bench.accuracy.plan import AccuracyPlan, Run
from bench.accuracy.step_times import step_times
from bench.environment import pick_device
from bench.jsonl import append_line, read_lines
from bench.records import SCHEMA
from bench.store import ACCURACY, ACCURACY_KEY

Line = dict[str, Any]
Progress = Callable[[int, int, Line], None]


@dataclass(frozen=True)
class Sitting:
    """What all runs of one call share."""

    plan: AccuracyPlan
    split: Any  # a Split on the device, or a Stream
    device: str
    environment_id: str
    out: Path
    every_s: float

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(self.split.facts.classes) if self.split.facts else 10

    def data(self) -> dict[str, Any]:
        """Return what a line says of the images."""
        return data_facts(self.split)


def run(
    plan: AccuracyPlan,
    out: Path,
    *,
    environment_id: str,
    progress: Progress | None = None,
    checkpoint_s: float = EVERY_S,
) -> list[Line]:
    """Train what ``plan`` asks for and is not yet in ``out/accuracy.jsonl``.

    Args:
        out: the results folder; made when missing.
        environment_id: stands in every line; its facts belong to ``environment.json``.
        progress: called as (runs done, runs in all, line) after each run, stored ones included.
        checkpoint_s: seconds between two checkpoints of a run at least.

    Returns:
        The line of every run of the plan, in the plan's order, stored earlier or now.

    Raises:
        ValueError: device "cuda" where there is none; data that cannot be read; a density that
            no pattern of such blocks reaches.
        StoreError: ``accuracy.jsonl`` cannot be read or written.
    """
    device = pick_device(plan.device)
    path = Path(out) / ACCURACY
    stored = {}
    if path.exists():
        stored = {line[ACCURACY_KEY]: line for line in read_lines(path, ACCURACY_KEY).records}
    sitting = Sitting(plan, _loaded(plan, device), device, environment_id, Path(out), checkpoint_s)
    _check(sitting)
    lines: list[Line] = []
    todo = plan.runs()
    for done, each in enumerate(todo, 1):
        run_id = plan.run_id(each, device, sitting.data())
        if run_id not in stored:
            checkpoint = Checkpoint(sitting.out, run_id, checkpoint_s)
            stored[run_id] = _line(each, sitting, run_id, checkpoint)
            append_line(path, stored[run_id], key=ACCURACY_KEY)
            checkpoint.drop()
        lines.append(stored[run_id])
        if progress is not None:
            progress(done, len(todo), stored[run_id])
    return lines


def _loaded(plan: AccuracyPlan, device: str) -> Any:
    if plan.data == "imagenet":
        split: Any = loading.stream(plan.data, plan.root, skip_unreadable=plan.skip_unreadable)
    else:
        split = loading.load(plan.data, plan.root, skip_unreadable=plan.skip_unreadable)
    if plan.take != (None, None):
        split = split.take(*plan.take)
    return split.to(device)


def _check(sitting: Sitting) -> None:
    """Refuse now what would fail in the middle of the sweep."""
    plan = sitting.plan
    dense = models.make(plan.network, 0, classes=sitting.classes)
    for density in plan.densities if set(plan.arms) != {DENSE} else ():
        arms.densities_for(dense, plan, density)


def data_facts(split: Any) -> dict[str, Any]:
    """Return what a recipe says of the images."""
    facts = split.facts
    if facts is None:  # made by hand
        return {"train_images": len(split.train_y), "test_images": len(split.test_y)}
    told = {k: facts.to_dict()[k] for k in ("label", "digest", "train_images", "test_images")}
    return told | {"augmentation": split.augmentation}


def _line(run: Run, sitting: Sitting, run_id: str, checkpoint: Checkpoint) -> Line:
    """Train one run; return what is stored of it."""
    plan = sitting.plan
    line = {
        "schema": SCHEMA,
        "run_id": run_id,
        "arm": run.arm,
        "dst": run.dst,
        "density": run.density,
        "seed": run.seed,
        "data": plan.data,
        "model": plan.network,
        "recipe": plan.recipe(run, sitting.device, sitting.data())
        | {"threads": torch.get_num_threads()},
        "environment": sitting.environment_id,
    }
    try:
        return line | _trained(run, sitting, checkpoint)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        reason = f"{error}".splitlines()[0] if str(error) else "out of memory"
        advice = f"a batch of {plan.batch} images does not fit: give a smaller --batch"
        return line | _nothing("oom", f"{advice} ({reason})")


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
    plan, split, device = sitting.plan, sitting.split, sitting.device
    dense = models.make(plan.network, run.seed, classes=sitting.classes)
    first = next(split.train_batches(plan.batch, torch.Generator().manual_seed(run.seed)))
    network = arms.build(run, plan, dense, _scores(run, plan, dense, first), sitting.classes)
    allocation = arms.densities_for(dense, plan, run.density) if run.arm != DENSE else None
    network, dense = network.to(device), dense.to(device)
    training = train.Training(
        network, split, plan, run.seed, sitting.data()["train_images"],
        partial(arms.mover, run, plan),
    )  # fmt: skip
    state = checkpoint.load(device)
    if state is not None:
        training.load_state_dict(state)
    outcome = training.run(checkpoint.save)
    facts = arms.arm_facts(network, dense, first[0], allocation)
    ok = outcome.reason is None
    weights = train.weights_digest(network)
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
        "step": step_times(dense, network, first, plan) if ok and run.arm != DENSE else None,
        "train_s": outcome.train_s,
    }


def _scores(run: Run, plan: AccuracyPlan, dense: nn.Module, batch: tuple[Any, Any]) -> arms.Scores:
    """Return the seed's scores, worked out on the CPU: the same patterns on every device."""
    if run.arm in SCORELESS:
        return {}
    images, labels = (each.cpu() for each in batch)
    return arms.scores_for(dense, images, labels, plan.scores, run.seed, run.density)


__all__ = ["Progress", "Sitting", "data_facts", "run"]
