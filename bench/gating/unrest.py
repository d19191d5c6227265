"""Trials in which base differed from itself far more than in others are left out. Floor 0.

Base runs twice in every trial, and ``a`` is what the second differs from the first. Who drops a
trial by that alone has not looked at head, and so favours nobody: base's two may change places.
One such trial in seven made 30 % of virtual runs inconclusive (its median |a| was 5.8 % where the
others' were 1.6 %, two cores of a shared EPYC): squares of a few weigh most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.gating.readings import Reading, Trial

# Of a single cell |a| scatters too much to tell a trial's unrest.
LEAST_CELLS = 8
LEAST_TRIALS = 4
# Independent normal noise of 8 cells goes beyond it in less than one trial in 10 000.
WILD = 3.0


def unrest(trial: Trial) -> float | None:
    """Return the median |a| of a trial's cells; None with too few of them."""
    sizes = [abs(r.a) for r in trial.values() if r.timed and r.a is not None]
    return float(np.median(sizes)) if len(sizes) >= LEAST_CELLS else None


def wild(trials: Sequence[Trial]) -> list[int]:
    """Return the places of those whose unrest is ``WILD`` times the median's at least."""
    found = {i: u for i, t in enumerate(trials) if (u := unrest(t)) is not None}
    if len(found) < LEAST_TRIALS:
        return []
    limit = WILD * float(np.median(list(found.values())))
    return [i for i, u in found.items() if u >= limit and u > 0]


def without(readings: list[Reading], dropped: Trial) -> list[Reading]:
    """Return the readings that are not of this trial."""
    mine = {id(reading) for reading in dropped.values()}
    return [reading for reading in readings if id(reading) not in mine]
