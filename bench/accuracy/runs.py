"""Runs a plan: each finished run is one line of ``accuracy.jsonl``, and none is made twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.accuracy import arms, data, models, train
from bench.accuracy.data import Split
from bench.accuracy.plan import DENSE, AccuracyPlan, Run
from bench.environment import pick_device
from bench.jsonl import append_line, read_lines
from bench.records import SCHEMA
from bench.store import ACCURACY, ACCURACY_KEY

Line = dict[str, Any]
Progress = Callable[[int, int, Line], None]


def run(
    plan: AccuracyPlan,
    out: Path,
    *,
    environment_id: str,
    progress: Progress | None = None,
) -> list[Line]:
    """Train what ``plan`` asks for and is not yet in ``out/accuracy.jsonl``.

    Args:
        out: the results folder; made when missing.
        environment_id: stands in every line; its facts belong to ``environment.json``.
        progress: called as (runs done, runs in all, line) after each run, stored ones included.

    Returns:
        The line of every run of the plan, in the plan's order, stored earlier or now.

    Raises:
        ValueError: device "cuda" where there is none.
        StoreError: ``accuracy.jsonl`` cannot be read or written.
    """
    device = pick_device(plan.device)
    path = Path(out) / ACCURACY
    stored = {}
    if path.exists():
        stored = {line[ACCURACY_KEY]: line for line in read_lines(path, ACCURACY_KEY).records}
    split = data.load(plan.data).to(device)
    lines: list[Line] = []
    todo = plan.runs()
    for done, each in enumerate(todo, 1):
        run_id = plan.run_id(each, device)
        if run_id not in stored:
            stored[run_id] = _line(each, plan, split, device, run_id, environment_id)
            append_line(path, stored[run_id], key=ACCURACY_KEY)
        lines.append(stored[run_id])
        if progress is not None:
            progress(done, len(todo), stored[run_id])
    return lines


def _line(
    run: Run, plan: AccuracyPlan, split: Split, device: str, run_id: str, environment_id: str
) -> Line:
    """Train one run; return what is stored of it."""
    dense = models.make(plan.facts.model, run.seed)
    network = arms.build(run, plan, dense, _scores(run, plan, dense, split)).to(device)
    dense = dense.to(device)
    facts = arms.arm_facts(network, dense, split.train_x[: plan.batch])
    outcome = train.train(network, split, plan, run.seed)
    ok = outcome.reason is None
    timed = ok and run.arm != DENSE
    return {
        "schema": SCHEMA,
        "run_id": run_id,
        "arm": run.arm,
        "density": run.density,
        "seed": run.seed,
        "accuracy": outcome.curve[-1] if ok else None,
        "status": "ok" if ok else "diverged",
        "reason": outcome.reason,
        "data": plan.data,
        "model": plan.facts.model,
        "recipe": plan.recipe(run, device) | {"threads": torch.get_num_threads()},
        "curve": outcome.curve,
        "real_density": facts.real_density,
        "flops_ratio": facts.flops_ratio,
        "dead_filters": facts.dead_filters,
        "step": train.step_times(dense, network, split, plan) if timed else None,
        "train_s": outcome.train_s,
        "environment": environment_id,
    }


def _scores(run: Run, plan: AccuracyPlan, dense: nn.Module, split: Split) -> arms.Scores:
    """Return the seed's scores, worked out on the CPU: the same patterns on every device."""
    if run.arm == DENSE:
        return {}
    generator = torch.Generator().manual_seed(run.seed)
    rows = next(train.batches(len(split.train_y), plan.batch, generator)).to(split.train_x.device)
    images, labels = split.train_x[rows].cpu(), split.train_y[rows].cpu()
    return arms.scores_for(dense, images, labels, plan.scores, run.seed)
