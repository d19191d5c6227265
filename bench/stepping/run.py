"""Makes a comparison and keeps it: one line of ``steps.jsonl``, and none is made twice."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.environment import environment
from bench.jsonl import append_line
from bench.records import SCHEMA, Environment, Flag, Status
from bench.step_table import STEPS, STEPS_KEY, is_noisy, read_steps
from bench.stepping.asked import Asked
from bench.stepping.making import Failed
from bench.stepping.trials import MOST_TRIALS, Machine
from bench.store import Store

Line = dict[str, Any]
APART = ("spent", "energy", "memory", "optimizer")  # of the first trial, said of the whole


def run(
    asked: Asked,
    out: Path,
    budget_s: float,
    *,
    most_trials: int = MOST_TRIALS,
    energy: bool = True,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> tuple[Line, bool]:
    """Compare, unless it is stored; whatever happens is a line with a status.

    Args:
        out: the results folder; made when missing. budget_s: for the trials.

    Returns:
        (the line, whether it was stored before).

    Raises:
        ValueError: a budget or a number of trials out of range. StoreError: the folder cannot be
            used.
    """
    if not budget_s > 0:
        raise ValueError(f"expected a budget above 0, got {budget_s:g} s")
    if most_trials < 1:
        raise ValueError(f"expected at least 1 trial, got {most_trials}")
    with Store(out) as store:  # its lock also keeps a second one from measuring here
        stored = {line[STEPS_KEY]: line for line in read_steps(out)}
        if asked.run_id in stored:
            return stored[asked.run_id], True
        with tempfile.TemporaryDirectory(prefix="hrbp-step-") as folder:
            machine = Machine(asked, Path(folder), budget_s, most_trials, energy, progress=progress)
            line = _line(machine)
        facts = line.pop("environment", None)
        known = Environment.from_dict(facts) if facts else environment(asked.device)
        line["environment"] = store.add_environment(known)
        append_line(out / STEPS, line, STEPS_KEY)
        return line, False


def _line(machine: Machine) -> Line:
    asked = machine.asked
    line: Line = {"schema": SCHEMA, STEPS_KEY: asked.run_id} | asked.to_dict()
    line |= {"status": str(Status.OK), "reason": None, "flags": []}
    trials: list[Line] = []
    try:
        line |= machine.make()
        for trial in machine.trials():
            trials.append(trial)
    except Failed as failure:
        line |= {"status": str(failure.status), "reason": failure.reason} | failure.facts
    line |= dict.fromkeys(("spent", "energy", "optimizer"))
    for trial in trials:
        line |= {name: trial.pop(name) for name in APART if name in trial}
    memory = line.pop("memory", None)
    line["facts"] = {**line.get("facts", {}), "memory": memory}
    line["trials"] = trials if line["status"] == Status.OK else []
    line["flags"] = [str(flag) for flag in _flags(trials, asked.device)]
    return line


def _flags(trials: list[Line], device: str) -> list[Flag]:
    if not trials:
        return []
    causes = {cause for trial in trials for cause in trial["causes"]}
    flags = {
        Flag.NOISY: is_noisy(trials),
        Flag.THROTTLED: bool(causes & {"thermal", "brake"}),
        Flag.POWER_LIMITED: "power" in causes,
        Flag.SINGLE_PROCESS: len(trials) == 1,
        Flag.UNLOCKED: device == "cuda",
    }
    return [flag for flag, on in flags.items() if on]
