"""Does the runs of a plan that are not stored yet; one line of ``accuracy.jsonl`` each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.accuracy import arms, models
from bench.accuracy import data as loading
from bench.accuracy.beside import trained
from bench.accuracy.checkpoint import EVERY_S, Checkpoint
from bench.accuracy.data.loading import STREAMED
from bench.accuracy.names import DENSE
from bench.accuracy.one_run import Line, Sitting, data_facts, line_of
from bench.accuracy.plan import AccuracyPlan, Run
from bench.accuracy.ranks import ALONE, Team
from bench.environment import pick_device
from bench.jsonl import append_line, read_lines
from bench.store import ACCURACY, ACCURACY_KEY

Made = Generator[tuple[str, Line], None, None]  # run_id and line, as runs end
Progress = Callable[[int, int, Line], None]


def run(
    plan: AccuracyPlan,
    out: Path,
    *,
    environment_id: str,
    progress: Progress | None = None,
    checkpoint_s: float = EVERY_S,
    team: Team = ALONE,
    beside: int | None = 1,
) -> list[Line]:
    """Train what ``plan`` asks for and is not yet in ``out/accuracy.jsonl``.

    Args:
        out: the results folder; made when missing. The first rank's alone.
        environment_id: stands in every line; its facts belong to ``environment.json``.
        progress: called as (runs done, runs in all, line) after each run, stored ones included.
        checkpoint_s: seconds between two checkpoints of a run at least.
        team: the processes that train together; all of them call this alike.
        beside: how many runs train at once, each in a process of its own; None: as many as the
            device has room for. Torch's threads are for all of them together.

    Returns:
        The line of every run of the plan, in the plan's order, stored earlier or now.

    Raises:
        ValueError: device "cuda" where there is none; data that cannot be read; a density that
            no pattern of such blocks reaches; a batch that the ranks cannot share.
        RuntimeError: an error on another rank.
        StoreError: ``accuracy.jsonl`` cannot be read or written.
    """
    plan.check_ranks(team.place.ranks)
    beside = check_beside(beside, plan, team)
    device = pick_device(plan.device)
    path = Path(out) / ACCURACY
    stored = team.decided(lambda: _stored(path))
    where = device if beside == 1 else "cpu"  # the others' processes take it to the device
    split = team.each(lambda: _loaded(plan, where, team), "the data")
    sitting = Sitting(plan, split, device, environment_id, Path(out), checkpoint_s, team)
    team.alike(sitting.data(), "the data")
    team.each(lambda: _check(sitting), "the plan")
    names = {each: sitting.run_id(each) for each in plan.runs()}
    with contextlib.closing(_lines(sitting, names, stored, beside)) as lines:
        for done, (run_id, line) in enumerate(lines, 1):
            stored[run_id] = line
            if progress is not None:
                progress(done, len(names), line)
    return [stored[run_id] for run_id in names.values()]


def check_beside(beside: int | None, plan: AccuracyPlan, team: Team) -> int | None:
    """Return how many runs are to train at once, as asked; ImageNet's train one by one.

    Raises:
        ValueError: below 1; several beside ranks, or of images that every core decodes.
    """
    if beside is not None and (isinstance(beside, bool) or beside < 1):
        raise ValueError(f"expected beside as an int >= 1 or auto, got {beside!r}")
    told = "auto" if beside is None else beside
    if beside != 1 and team.many:
        raise ValueError(
            f"expected one run at a time of {team.place.ranks} ranks, got beside {told}: ranks "
            f"share a run, and runs beside each other share a machine"
        )
    if plan.data in STREAMED:
        if beside is not None and beside > 1:
            raise ValueError(
                f"expected one run at a time of {plan.data}, whose images take all cores to "
                f"decode, got beside {told}"
            )
        return 1
    return beside


def _lines(
    sitting: Sitting, names: dict[Run, str], stored: dict[str, Line], beside: int | None
) -> Made:
    """Yield (run_id, line) of all runs, the stored ones first; store the others."""
    path = sitting.out / ACCURACY
    missing = [(run, run_id) for run, run_id in names.items() if run_id not in stored]
    yield from [(run_id, stored[run_id]) for run_id in names.values() if run_id in stored]
    if not missing:
        return
    if beside == 1:
        made = _one_by_one(sitting, missing)
    else:
        made = trained(sitting, missing, beside, torch.get_num_threads())
    with contextlib.closing(made):
        for run_id, line in made:
            checkpoint = Checkpoint(sitting.out, run_id)
            yield run_id, sitting.team.decided(partial(_kept, line, path, checkpoint))


def _one_by_one(sitting: Sitting, missing: list[tuple[Run, str]]) -> Made:
    for run, run_id in missing:
        yield (
            run_id,
            line_of(run, sitting, run_id, Checkpoint(sitting.out, run_id, sitting.every_s)),
        )


def _stored(path: Path) -> dict[str, Line]:
    if not path.exists():
        return {}
    return {line[ACCURACY_KEY]: line for line in read_lines(path, ACCURACY_KEY).records}


def _kept(line: Line, path: Path, checkpoint: Checkpoint) -> Line:
    append_line(path, line, key=ACCURACY_KEY)
    checkpoint.drop()
    return line


def _loaded(plan: AccuracyPlan, device: str, team: Team = ALONE) -> Any:
    if plan.data in STREAMED:
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
