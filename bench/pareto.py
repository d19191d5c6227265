"""Speed-up against accuracy: what is undominated, and what accuracy allows. Floor 1: no torch.

The front is drawn through means, so it says what was seen, not what is shown: a point left of
it may belong on it. What is shown: a point is *clearly* dominated where another is better on
both axes and no interval of the two overlaps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bench.accuracy_table import ARM_KEYS
from bench.equivalence import ALPHA, MARGIN, SHOWN, UNSTRUCTURED_ARM, equivalence
from bench.frames import Record, records

AXES = ("step", "accuracy")  # stems of the columns of the intervals


def undominated(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Return for each (x, y), more being better, that no other is at least as good and better.

    Another dominates when it is no worse on both axes and better on one: equal points do not
    dominate each other. A point with NaN neither dominates nor is on the front.

    >>> undominated([(1, 3), (2, 2), (2, 1), (1, 3)])
    [True, True, False, True]
    """

    def dominates(p: tuple[float, float], q: tuple[float, float]) -> bool:
        return p[0] >= q[0] and p[1] >= q[1] and p != q

    return [not math.isnan(sum(q)) and not any(dominates(p, q) for p in points) for q in points]


def pareto(points: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the columns ``on_front`` and ``clearly_dominated``.

    Both are bool. Without an interval a point is not clearly dominated, nor does it so dominate.

    Args:
        points: rows of :func:`bench.accuracy_table.accuracy_summary` of one context, dense too.
    """
    rows = records(points)
    front = undominated([(row["step_speedup"], row["accuracy"]) for row in rows])
    clearly = [any(_above(other, row) for other in rows) for row in rows]
    return points.assign(
        on_front=pd.Series(front, points.index, dtype=bool),
        clearly_dominated=pd.Series(clearly, points.index, dtype=bool),
    )


def _above(ours: Record, theirs: Record) -> bool:
    """Return whether our intervals lie above theirs on both axes; NaN never does."""
    return all(ours[f"{axis}_low"] > theirs[f"{axis}_high"] for axis in AXES)


@dataclass(frozen=True)
class IsoSpeedup:
    """The largest speed-up whose accuracy is shown to be within the margin of the reference.

    Attributes:
        best: the summary's row of that arm and density, or None: nothing is shown.
        reference: the arm it is held against. margin: a fraction.
        arms: how many arms it was picked from. alpha: level of each arm's tests.
    """

    best: Record | None
    reference: str
    margin: float
    arms: int
    alpha: float


def iso_speedup(
    table: pd.DataFrame,
    summary: pd.DataFrame,
    reference: str = UNSTRUCTURED_ARM,
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> IsoSpeedup:
    """Return the iso-accuracy speed-up of the arms in ``summary``.

    Shown means: along its own fixed sequence of densities an arm's accuracy is shown to be less
    than the margin below the reference's. Of k arms (patterns of one arm count as arms) each is
    tested at alpha / k (Bonferroni), so that the chance of any false claim stays at ``alpha``
    although the fastest is picked. The speed-up's interval is the summary's, over seeds; it does
    not account for the pick.

    Args:
        table: what :func:`bench.accuracy_table.accuracy_rows` returned, of one context.
        summary: its summary, cut down to the arms to pick from. The reference itself and dense
            are no candidates.
    """
    keys = [name for name in ARM_KEYS if name != "density"]
    timed = summary[summary["step_n"] > 0]
    candidates = equivalence(table, reference, margin, alpha)[keys].drop_duplicates()
    candidates = candidates.merge(timed[keys].drop_duplicates(), on=keys)
    arms = len(candidates)
    each = alpha / max(arms, 1)
    found = equivalence(table, reference, margin, each)
    shown = found[found["verdict"].isin(SHOWN)][ARM_KEYS]
    best = records(timed.merge(shown, on=ARM_KEYS).sort_values("step_speedup", kind="stable"))
    return IsoSpeedup(best[-1] if best else None, reference, margin, arms, each)
