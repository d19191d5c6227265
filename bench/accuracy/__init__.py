"""Accuracy, the other axis: train every arm by one recipe, and time its own network's steps.

::

    lines = run(PRESETS["digits"], Path("results"), environment_id="...")

Plans need no torch; :func:`run` is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.accuracy.names import ARMS, NETWORKS
from bench.accuracy.plan import AccuracyPlan, Run
from bench.accuracy.presets import PRESETS

if TYPE_CHECKING:
    from bench.accuracy.runs import run

__all__ = ["ARMS", "NETWORKS", "PRESETS", "AccuracyPlan", "Run", "run"]


def __getattr__(name: str) -> Any:
    if name != "run":
        raise AttributeError(f"module 'bench.accuracy' has no attribute {name!r}")
    from bench.accuracy.runs import run

    return run
