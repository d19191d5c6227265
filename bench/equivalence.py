"""Is an arm as accurate as another? Tests of equivalence along sparsity. Floor 1: no torch.

"Almost matches" is a claim of its own: a difference that is not significant does not show it.
Two one-sided tests do (TOST: Schuirmann 1987, J. Pharmacokin. Biopharm. 15, 657): that the arm
is less than ``margin`` below the reference, and less than ``margin`` above it. Each is Welch's
t test over runs at level ``alpha``; both reject exactly when the interval of confidence
1 - 2 alpha lies inside the margin.

Along sparsity an arm's densities are tested in a fixed order, the highest density first, each
at the full ``alpha``, up to the first that fails (Maurer, Hothorn and Lehmacher 1995, Biometrie
in der chemisch-pharmazeutischen Industrie 6, 3; Westfall and Krishen 2001, J. Stat. Plan.
Inference 99, 25). So no density is picked for having come out well, and the chance of any false
claim about an arm is at most ``alpha``. The two claims have a sequence each: "within the margin
below" goes on while the lower side holds, "equivalent" while both do. Each arm is a claim of its
own: who picks the best of k arms tests at alpha / k (:func:`bench.pareto.iso_speedup`).

Seeds are not taken as pairs, as in :func:`bench.accuracy_table.accuracy_gaps`. The arms of one
seed share initialisation and batches, so pairing could help; but that must be shown, and the
recorded runs (digits, three seeds) have correlations between arms from -1 to 1. Where runs of a
seed do rise and fall together, the unpaired interval is too wide, never too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.accuracy_table import ACCURACY_CONTEXT, ARM_KEYS, DENSE_ARM
from bench.frames import Record, groups

UNSTRUCTURED_ARM = "unstructured"
MARGIN, AIM = 0.01, 0.005  # accuracy is a fraction: 1 point, and half a point
ALPHA = 0.05
EQUIVALENT = "equivalent"
WITHIN = "within the margin below"
NOT_SHOWN = "not shown"
NOT_TESTED = "not tested: an earlier one was not shown"
TOO_FEW = "too few runs"
SHOWN = (EQUIVALENT, WITHIN)
COLUMNS = [
    *ARM_KEYS, "reference", "reference_pattern", "n_arm", "n_reference", "diverged",
    "difference", "low", "high", "p_below", "p_above", "margin", "alpha", "verdict", "reason",
]  # fmt: skip
# settings that the reference should share with the arm: where sparsity lies, and how it moves
_LIKE = ("dst ", "scores ", "block ", "allocation ", "rescaled ")
_STATIC = "dst static"


@dataclass(frozen=True)
class Tost:
    """Two one-sided tests of two samples.

    Attributes:
        difference: mean of the first less mean of the second.
        low, high: its interval of confidence 1 - 2 alpha.
        p_below: of "the first is margin or more below". p_above: of "margin or more above".
    """

    difference: float
    low: float
    high: float
    p_below: float
    p_above: float


def tost(
    first: Sequence[float], second: Sequence[float], margin: float, alpha: float = ALPHA
) -> Tost:
    """Return Welch's two one-sided tests; NaN but for the difference where they are undefined.

    They are undefined below two values on a side, and where neither side has any spread: runs
    that agree to the last image by chance would show whatever one likes.
    """
    from scipy.stats import t  # takes 1.5 s to load: only where it is called

    _check(margin, alpha)
    if not first or not second:
        return Tost(*(math.nan,) * 5)
    difference = float(np.mean(first) - np.mean(second))
    if min(len(first), len(second)) < 2:
        return Tost(difference, *(math.nan,) * 4)
    parts = [float(np.var(v, ddof=1)) / len(v) for v in (first, second)]
    # equal values have a variance of rounding errors
    if math.sqrt(sum(parts)) < 1e-9 * max(map(abs, (*first, *second))):
        return Tost(difference, *(math.nan,) * 4)
    error = math.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / sum(
        p**2 / (len(v) - 1) for p, v in zip(parts, (first, second), strict=True)
    )
    half = error * float(t.ppf(1 - alpha, freedom))
    below = float(t.sf((difference + margin) / error, freedom))
    above = float(t.cdf((difference - margin) / error, freedom))
    return Tost(difference, difference - half, difference + half, below, above)


def _check(margin: float, alpha: float) -> None:
    if not margin > 0:
        raise ValueError(f"expected a margin > 0, got {margin!r}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"expected alpha in (0, 0.5), got {alpha!r}")


def equivalence(
    table: pd.DataFrame,
    reference: str = UNSTRUCTURED_ARM,
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> pd.DataFrame:
    """Return one row an arm, pattern and density, columns :data:`COLUMNS`; densest first.

    The reference is that arm at the same density (dense: at 1) in the same context. Of several
    patterns of it, the one counts that shares most of the arm's scores, block, allocation and
    way of training sparse ("dst"), then a static one, then the first by name; it is named in
    ``reference_pattern``. The reference and dense are not tested themselves; a context without
    the reference has no rows.

    ``low`` and ``high`` are of confidence 1 - 2 alpha, and stand there for densities that are
    not tested too: they describe, they claim nothing. A density with too few runs, or without
    spread, ends the sequence as one that fails does. So does a run of the arm without a
    result (it diverged, say): the mean of the others flatters. Such runs of the reference are
    left out, which raises the reference. ``diverged`` counts the arm's.

    Args:
        table: what :func:`bench.accuracy_table.accuracy_rows` returned.
        margin: a fraction, > 0. alpha: level of each one-sided test, in (0, 0.5).
    """
    _check(margin, alpha)
    records = []
    held = dict(groups(table[table["arm"] == reference], ACCURACY_CONTEXT))
    tested = table[~table["arm"].isin([reference, DENSE_ARM])]
    for key, runs in groups(tested, [*ACCURACY_CONTEXT, "arm", "pattern"]):
        pattern, theirs = key[-1], held.get(key[: len(ACCURACY_CONTEXT)])
        if theirs is not None:
            chosen = _reference_pattern(pattern, sorted(set(theirs["pattern"])))
            theirs = theirs[theirs["pattern"] == chosen]
            names = {"reference": reference, "reference_pattern": chosen}
            records += [row | names for row in _sequence(runs, theirs, margin, alpha)]
    return pd.DataFrame(records, columns=COLUMNS)


def _reference_pattern(pattern: str, others: Sequence[str]) -> str:
    ours = _likeness(pattern)

    def order(other: str) -> tuple[int, bool, str]:
        theirs = _likeness(other)
        return -len(ours & theirs), _STATIC not in theirs, other

    return min(others, key=order)


def _likeness(pattern: str) -> set[str]:
    """Return the settings that count; a pattern that says nothing of moving is static."""
    found = {part for part in pattern.split(", ") if part.startswith(_LIKE)}
    return found if any(part.startswith("dst ") for part in found) else {*found, _STATIC}


def _sequence(
    runs: pd.DataFrame, theirs: pd.DataFrame, margin: float, alpha: float
) -> Iterator[Record]:
    """Yield the rows of one arm and pattern in the order of the tests."""
    below_open = both_open = True
    for density in sorted(set(runs["density"]), reverse=True):
        part = runs[runs["density"] == density]
        dense = (theirs["arm"] == DENSE_ARM).all()
        reference = theirs if dense else theirs[theirs["density"] == density]
        ours, others = (frame["accuracy"].dropna().tolist() for frame in (part, reference))
        found = tost(ours, others, margin, alpha)
        row = {name: part[name].iloc[0] for name in ARM_KEYS}
        row |= {"n_arm": len(ours), "n_reference": len(others)}
        row |= {"diverged": int((part["status"] != "ok").sum())} | vars(found)
        row |= {"margin": margin, "alpha": alpha}
        if not below_open:
            row |= {"verdict": NOT_TESTED, "reason": "", "p_below": math.nan, "p_above": math.nan}
            yield row
            continue
        row["reason"] = _undefined(row)
        below = not row["reason"] and found.p_below < alpha
        both = below and both_open and found.p_above < alpha
        row["verdict"] = _verdict(row["reason"], below, both)
        below_open, both_open = below, both
        yield row


def _undefined(row: Record) -> str:
    """Return why a density cannot be tested; "" where it can."""
    if min(row["n_arm"], row["n_reference"]) < 2:
        return TOO_FEW
    if row["diverged"]:
        return "a run has no result"
    return "no spread between runs" if math.isnan(row["p_below"]) else ""


def _verdict(reason: str, below: bool, both: bool) -> str:
    if reason == TOO_FEW:
        return TOO_FEW
    return EQUIVALENT if both else WITHIN if below else NOT_SHOWN


def tost_power(
    runs: int, sd: float, margin: float, alpha: float = ALPHA, difference: float = 0.0
) -> float:
    """Return the chance that Welch's TOST shows equivalence with ``runs`` runs a side.

    Both sides have normal runs with the same standard deviation. The sum of the two variances
    and the share of one of them are independent; the power is averaged over both, at 400 and 40
    quantiles, where the normal distribution gives it exactly. Simulation differs by less than
    its own error (0.005 of 40,000 pairs).

    Args:
        runs: >= 2. sd, margin, difference: in one unit, whichever.
    """
    from scipy.stats import beta, chi2, norm, t

    _check(margin, alpha)
    if runs < 2 or not sd > 0:
        raise ValueError(f"expected runs >= 2 and sd > 0, got {runs!r} and {sd!r}")
    free = runs - 1
    spread = np.sqrt(chi2.ppf(_middles(400), 2 * free) / (2 * free))
    share = beta.ppf(_middles(40), free / 2, free / 2)
    cut: np.ndarray[Any, Any] = t.ppf(1 - alpha, free / (share**2 + (1 - share) ** 2))
    error = sd * math.sqrt(2 / runs)
    room = margin / error - cut[:, None] * spread[None, :]
    shift = difference / error
    inside = norm.cdf(room - shift) - norm.cdf(-room - shift)
    return float(np.clip(inside, 0, None).mean())


def _middles(parts: int) -> np.ndarray[Any, Any]:
    return (np.arange(parts) + 0.5) / parts


def seeds_needed(sd: float, margin: float, power: float = 0.8, alpha: float = ALPHA) -> int:
    """Return the fewest runs a side that show equivalence with chance ``power``.

    The true difference is taken as 0. With the t distribution; the usual normal formula,
    2 (sd (z(1 - alpha) + z((1 + power) / 2)) / margin)², asks for one run less where few are
    needed, and those would have less power: 0.13 and a margin of 0.3 give 4, whose power is 0.75.

    Raises:
        ValueError: a power outside (0, 1), or above 100,000 runs.
    """
    if not 0 < power < 1:
        raise ValueError(f"expected a power in (0, 1), got {power!r}")
    low, high = 1, 2  # low does not do, high may
    while tost_power(high, sd, margin, alpha) < power:
        low, high = high, 2 * high
        if high > 100_000:
            raise ValueError(f"expected a margin near sd, got {margin!r} for a sd of {sd!r}")
    while high - low > 1:
        middle = (low + high) // 2
        enough = tost_power(middle, sd, margin, alpha) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high
