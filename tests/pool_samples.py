"""Processes of a pool that only pretend to train, and write down when they did what.

::

    python -m tests.pool_samples FOLDER    # two that work for ever; their ids in FOLDER
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from bench.accuracy.company import Company, Neighbours, end_with_the_parent
from bench.accuracy.desk import DONE, FAILED, READY, Pool

STEP_S = 0.003


class Task(NamedTuple):
    """A pretended run: steps, a turn, steps again; ``how`` it goes: well, when left out."""

    name: str
    how: str = ""
    steps: int = 20

    def __str__(self) -> str:
        return self.name


class Span(NamedTuple):
    """Something that a process did."""

    who: str
    what: str
    start: float
    end: float


def work(pipe: Connection, wanted: Any, folder: Path) -> None:
    end_with_the_parent()
    company = Neighbours(pipe, wanted)
    (folder / f"{os.getpid()}.pid").touch()
    pipe.send((READY, None))
    while (task := pipe.recv()) is not None:
        try:
            pretend(task, company, folder)
        except ValueError as error:
            pipe.send((FAILED, str(error)))
        else:
            pipe.send((DONE, task.name.upper()))


def pretend(task: Task, company: Company, folder: Path) -> None:
    steps(task, company, folder)
    end, good = folder / "bad.end", folder / "good.log"
    if task.how == "outlasts":
        step_until(end, task, company, folder)
    elif task.how:
        step_until(good, task, company, folder)
    if task.how == "dies at work":
        end.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if task.how == "fails":
        end.touch()
        raise ValueError("no such thing")
    with company.turn():
        note(folder, task, "turn", 10 * STEP_S)
        if task.how == "dies in its turn":
            end.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    steps(task, company, folder)


def step_until(path: Path, task: Task, company: Company, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        if time.monotonic() > deadline:
            raise ValueError(f"expected {path.name}, got none: somebody waits in vain")
        company.pause()
        note(folder, task, "step", STEP_S)


def steps(task: Task, company: Company, folder: Path) -> None:
    for _ in range(task.steps):
        company.pause()
        note(folder, task, "step", STEP_S)


def note(folder: Path, task: Task, what: str, seconds: float) -> None:
    """Do something for a while, and write down when: all processes share the clock."""
    start = time.monotonic()
    time.sleep(seconds)
    with (folder / f"{task.name}.log").open("a") as file:
        file.write(f"{task.name} {what} {start} {time.monotonic()}\n")


def spans(folder: Path) -> list[Span]:
    rows = [line.split() for log in folder.glob("*.log") for line in log.read_text().splitlines()]
    return [Span(who, what, float(start), float(end)) for who, what, start, end in rows]


def pool(folder: Path, tasks: Sequence[Task], places: int) -> Pool:
    context = multiprocessing.get_context("spawn")
    wanted = context.RawValue("b", 0)

    def hire() -> Any:
        mine, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, wanted, folder), daemon=True)
        process.start()
        theirs.close()
        return process, mine

    return Pool(hire, wanted, tasks, places)


if __name__ == "__main__":
    endless = [Task("one", steps=10**9), Task("other", steps=10**9)]
    list(pool(Path(sys.argv[1]), endless, 2).results())
