"""The ``accuracy`` command: options become a plan, a plan becomes stored runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.accuracy.place import Place
from bench.accuracy.plan import AccuracyPlan
from bench.accuracy.presets import PRESETS
from bench.accuracy.ranks import joined
from bench.accuracy.runs import check_beside, run
from bench.allocator import keep_freed_memory
from bench.environment import cores, environment, pick_device, use_all_cores
from bench.store import Store


def make_plan(preset: str | None, **changes: Any) -> AccuracyPlan:
    """Return the preset's plan (or the default one) with the options that were given.

    Raises:
        ValueError: an unknown preset, arm or data set; a number out of range.
    """
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"expected a preset of {', '.join(PRESETS)}; got {preset!r}")
    plan = PRESETS[preset] if preset else AccuracyPlan()
    given = {name: value for name, value in changes.items() if value is not None}
    given["device"] = pick_device(given.get("device", "auto"))
    if given.get("data", plan.data) != plan.data and "model" not in given:
        given["model"] = None  # the preset's network is for the preset's images
    return replace(plan, **given)


def beside_of(text: str) -> int | None:
    """Return what ``--beside`` says; None: as many runs at once as there is room for.

    Raises:
        ValueError: neither a number from 1 on, nor auto.
    """
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise ValueError(f"expected --beside as an int >= 1 or auto, got {text!r}")
    return int(text)


def train_plan(
    plan: AccuracyPlan,
    out: Path,
    progress: Callable[[int, int, str], None],
    checkpoint_s: float,
    beside: int | None = 1,
) -> list[dict[str, Any]]:
    """Train what is missing in ``out``; return the line of every run of the plan.

    Every process that torchrun started calls this; the first alone writes, and has ``progress``
    called.
    """
    with joined(plan.device) as team, ExitStack() as stack:
        plan.check_ranks(team.place.ranks)
        check_beside(beside, plan, team)
        share_cores(team.place)
        keep_freed_memory()

        def opened() -> str:
            store = stack.enter_context(Store(out))  # the lock also keeps a second trainer out
            return store.add_environment(environment(plan.device))

        name = team.decided(opened)
        clock = Clock(time.monotonic)

        def tell(done: int, total: int, line: dict[str, Any]) -> None:
            progress(done, total, f"{told(line)}{clock.left(done, total)}")

        return run(
            plan, out, environment_id=name, progress=tell if team.place.first else None,
            checkpoint_s=checkpoint_s, team=team, beside=beside,
        )  # fmt: skip


def share_cores(place: Place) -> int:
    """Set torch's threads to this process's share of the machine's cores, and return them."""
    threads = use_all_cores()
    if place.local_ranks > 1:
        # OMP_NUM_THREADS counts for one rank, but no more than its share
        threads = min(threads, place.cores(cores()))
        torch.set_num_threads(threads)
    return threads


def told(line: dict[str, Any]) -> str:
    """Return one line of text on a finished run."""
    accuracy = line["accuracy"]
    shown = line["status"] if accuracy is None else f"accuracy {accuracy:.2%}"
    dst = line.get("dst", "static")
    arm = line["arm"] if dst == "static" else f"{line['arm']}:{dst}"
    return f"{arm} density {line['density']:g} seed {line['seed']}: {shown}"


class Clock:
    """Says how long the rest will take, if it goes on as it went; stored runs took no time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now, self._last = now, now()
        self._took: list[float] = []

    def left(self, done: int, total: int) -> str:
        """Return what is to be said after another run; "" when all is done or nothing known."""
        seconds, self._last = self._now() - self._last, self._now()
        if seconds > 0.1:
            self._took.append(seconds)
        if done == total or not self._took:
            return ""
        left = (total - done) * sum(self._took) / len(self._took)
        return f"; about {left / 60:.0f} min left" if left >= 90 else f"; about {left:.0f} s left"
