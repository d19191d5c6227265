"""Does the runs of a plan that are not stored yet; one line of ``accuracy.jsonl`` each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.accuracy import arms, models
from bench.accuracy import data as loading
from bench.accuracy.checkpoint import EVERY_S, Checkpoint
from bench.accuracy.names import DENSE
from bench.accuracy.one_run import Line, Sitting, data_facts, line_of
from bench.accuracy.plan import AccuracyPlan
from bench.accuracy.ranks import ALONE, Team
from bench.environment import pick_device
from bench.jsonl import append_line, read_lines
from bench.store import ACCURACY, ACCURACY_KEY

Progress = Callable[[int, int, Line], None]


def run(
    plan: AccuracyPlan,
    out: Path,
    *,
    environment_id: str,
    progress: Progress | None = None,
    checkpoint_s: float = EVERY_S,
    team: Team = ALONE,
) -> list[Line]:
    """Train what ``plan`` asks for and is not yet in ``out/accuracy.jsonl``.

    Args:
        out: the results folder; made when missing. The first rank's alone.
        environment_id: stands in every line; its facts belong to ``environment.json``.
        progress: called as (runs done, runs in all, line) after each run, stored ones included.
        checkpoint_s: seconds between two checkpoints of a run at least.
        team: the processes that train together; all of them call this alike.

    Returns:
        The line of every run of the plan, in the plan's order, stored earlier or now.

    Raises:
        ValueError: device "cuda" where there is none; data that cannot be read; a density that
            no pattern of such blocks reaches; a batch that the ranks cannot share.
        RuntimeError: an error on another rank.
        StoreError: ``accuracy.jsonl`` cannot be read or written.
    """
    plan.check_ranks(team.place.ranks)
    device = pick_device(plan.device)
    path = Path(out) / ACCURACY
    stored = team.decided(lambda: _stored(path))
    split = team.each(lambda: _loaded(plan, device, team), "the data")
    sitting = Sitting(plan, split, device, environment_id, Path(out), checkpoint_s, team)
    team.alike(sitting.data(), "the data")
    team.each(lambda: _check(sitting), "the plan")
    lines: list[Line] = []
    todo = plan.runs()
    for done, each in enumerate(todo, 1):
        run_id = sitting.run_id(each)
        if run_id not in stored:
            checkpoint = Checkpoint(sitting.out, run_id, checkpoint_s)
            line = line_of(each, sitting, run_id, checkpoint)
            stored[run_id] = team.decided(partial(_kept, line, path, checkpoint))
        lines.append(stored[run_id])
        if progress is not None:
            progress(done, len(todo), stored[run_id])
    return lines


def _stored(path: Path) -> dict[str, Line]:
    if not path.exists():
        return {}
    return {line[ACCURACY_KEY]: line for line in read_lines(path, ACCURACY_KEY).records}


def _kept(line: Line, path: Path, checkpoint: Checkpoint) -> Line:
    append_line(path, line, key=ACCURACY_KEY)
    checkpoint.drop()
    return line


def _loaded(plan: AccuracyPlan, device: str, team: Team = ALONE) -> Any:
    if plan.data == "imagenet":
        split: Any = loading.stream(
            plan.data, plan.root, skip_unreadable=plan.skip_unreadable,
            workers=team.place.cores(loading.decoders()),
        )  # fmt: skip
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


__all__ = ["Progress", "Sitting", "data_facts", "run"]
