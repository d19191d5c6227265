"""The ``accuracy`` command: options become a plan, a plan becomes stored runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.accuracy.plan import PRESETS, AccuracyPlan
from bench.accuracy.runs import run
from bench.allocator import keep_freed_memory
from bench.environment import environment, pick_device, use_all_cores
from bench.store import Store


def make_plan(preset: str | None, **changes: Any) -> AccuracyPlan:
    """Return the preset's plan (or the default one) with the options that were given.

    Raises:
        ValueError: an unknown preset, arm or data set; a density that no pattern reaches.
    """
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"expected a preset of {', '.join(PRESETS)}; got {preset!r}")
    plan = PRESETS[preset] if preset else AccuracyPlan()
    given = {name: value for name, value in changes.items() if value is not None}
    given["device"] = pick_device(given.get("device", "auto"))
    return replace(plan, **given)


def train_plan(
    plan: AccuracyPlan, out: Path, progress: Callable[[int, int, str], None]
) -> list[dict[str, Any]]:
    """Train what is missing in ``out``; return the line of every run of the plan."""
    use_all_cores()
    keep_freed_memory()
    with Store(out) as store:  # the lock also keeps a second trainer out
        name = store.add_environment(environment(plan.device))

        def tell(done: int, total: int, line: dict[str, Any]) -> None:
            accuracy = line["accuracy"]
            shown = "diverged" if accuracy is None else f"accuracy {accuracy:.1%}"
            label = f"{line['arm']} density {line['density']:g} seed {line['seed']}: {shown}"
            progress(done, total, label)

        return run(plan, out, environment_id=name, progress=tell)
