"""Accuracy runs become sentences: differences, whole steps, and the two together."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from bench.accuracy_table import ACCURACY_CONTEXT, ARM_KEYS, DENSE_ARM
from bench.equivalence import UNSTRUCTURED_ARM, seeds_needed
from bench.frames import Record, records
from bench.pareto import IsoSpeedup, iso_speedup, pareto
from reports.data import Key, ReportData, named_arms, own_pattern, pick
from reports.style import counted, interval, listed, percent, points, times

OUR_ARM = "hrbp2"


def said(data: ReportData, key: Key, text: str) -> str:
    """Return ``context: text``; where there is one context only, ``Text``."""
    label = data.label(key, short=True)
    return f"{label}: {text}" if label else text[0].upper() + text[1:]


def arm_groups(data: ReportData, key: Key) -> Iterator[tuple[str, list[str]]]:
    """Yield (label, lines) a pattern of our arm: accuracy, whole training steps, and both."""
    columns = [*ACCURACY_CONTEXT, "arm"]
    arms = pick(data.summary, columns, (*key, OUR_ARM))
    gaps = pick(data.gaps, columns, (*key, OUR_ARM))
    patterns = sorted(set(arms["pattern"]))
    for pattern in patterns:
        own = own_pattern(pattern, patterns) if len(patterns) > 1 else ""
        parts = [data.label(key, short=True), own]
        frames = [
            records(pick(frame, ["pattern"], (pattern,)).sort_values("density", ascending=False))
            for frame in (gaps, arms)
        ]
        lines = [_gap_text(row) for row in frames[0] if not math.isnan(row["gap"])]
        lines += [text for row in frames[1] for text in _step_texts(row)]
        lines += _iso_lines(data, key, pattern)
        yield " · ".join(p for p in parts if p), lines


def _gap_text(row: Record) -> str:
    return (
        f"Accuracy at density {row['density']:.4g}: dense − {OUR_ARM} = "
        f"{points(row['gap'])} points{_between(row)}"
    )


def _step_texts(row: Record) -> Iterator[str]:
    at = f"at density {row['density']:.4g}"
    if row["step_n"]:
        reach = interval(row["step_low"], row["step_high"]).replace("×", "", 1)
        known = "" if reach == "—" else f" (95 %: {reach}, n = {row['step_n']})"
        yield f"Training step {at}: {OUR_ARM} {times(row['step_speedup'])} dense{known}"
    if row["diverged"]:
        yield f"{row['diverged']} of {counted(row['runs'], 'run')} of {OUR_ARM} diverged {at}"


def _between(row: Record) -> str:
    if math.isnan(row["gap_low"]):
        return " (too few seeds for an interval)"
    seeds = f"{row['n_dense']} and {row['n_arm']} seeds"
    return f" (95 %: {points(row['gap_low'])} to {points(row['gap_high'])}, {seeds})"


def accuracy_finding(data: ReportData, key: Key) -> str:
    """Return what the sparsest runs of our arm (else of any) cost and bring."""
    arms = pick(data.summary, ACCURACY_CONTEXT, key)
    sparse = arms[arms["arm"] != DENSE_ARM]
    if (sparse["arm"] == OUR_ARM).any():
        sparse = sparse[sparse["arm"] == OUR_ARM]
    if not len(sparse):
        return said(data, key, "only dense networks were trained.")
    row = records(sparse.sort_values(["density", "pattern"]))[0]
    keys = [*ACCURACY_CONTEXT, "arm", "pattern", "density"]
    gap = records(pick(data.gaps, keys, tuple(row[k] for k in keys)))
    words = f"{row['arm']} {_step_words(row)} and {_gap_words(gap[0] if gap else None)}."
    return said(data, key, f"at density {row['density']:.4g} {words}")


def _step_words(row: Record) -> str:
    speed, low, high = row["step_speedup"], row["step_low"], row["step_high"]
    if math.isnan(speed):
        return "has no step times"
    if math.isnan(low):
        return f"takes training steps at {times(speed)} dense's speed (one run: no interval)"
    verdict = "faster" if low > 1 else "slower" if high < 1 else "a difference is not shown"
    known = f"{interval(low, high)}: {verdict}"
    return f"takes training steps at {times(speed)} dense's speed ({known})"


def _gap_words(row: Record | None) -> str:
    if row is None or math.isnan(row["gap"]):
        return "has no accuracy to hold against dense"
    said = f"its accuracy differs by {points(-row['gap'])} points"
    if math.isnan(row["gap_low"]):
        return f"{said} (too few seeds for an interval)"
    low, high = -row["gap_high"], -row["gap_low"]
    verdict = (
        "a loss" if high < 0 else "a gain" if low > 0 else "neither a loss nor a gain is shown"
    )
    return f"{said} ({points(low)} to {points(high)}: {verdict})"


def accuracy_points(data: ReportData, row: Record) -> str:
    """Return what an arm's accuracy differs from dense's, ``−0.45 ± 2.01 points``; "" unknown.

    Args:
        row: of the summary.
    """
    gaps = records(pick(data.gaps, ARM_KEYS, tuple(row[k] for k in ARM_KEYS)))
    if not gaps or math.isnan(gaps[0]["gap"]):
        return ""
    half = (gaps[0]["gap_high"] - gaps[0]["gap_low"]) / 2
    known = "" if math.isnan(half) else f" ± {100 * half:.2f}"
    return f"{points(-gaps[0]['gap'])}{known} points"


def references(runs: pd.DataFrame) -> list[str]:
    """Return the arms that others are held against: unstructured, then dense, where trained."""
    there = set(runs.loc[runs["accuracy"].notna(), "arm"])
    return [arm for arm in (UNSTRUCTURED_ARM, DENSE_ARM) if arm in there]


def spread(runs: pd.DataFrame) -> float:
    """Return the standard deviation of one run, pooled over arms and densities; NaN for none."""
    each = runs.dropna(subset="accuracy").groupby(ARM_KEYS)["accuracy"]
    free = each.size() - 1
    if not free.sum():
        return math.nan
    return math.sqrt(float((each.var(ddof=1).fillna(0) * free).sum() / free.sum()))


def margin_words(margin: float) -> str:
    """Return ``1 point`` or ``0.5 points``."""
    return f"{100 * margin:g} point" + ("" if math.isclose(margin, 0.01) else "s")


def _iso_lines(data: ReportData, key: Key, pattern: str) -> Iterator[str]:
    """Yield what the accuracy of one pattern of our arm allows: one claim, so at 5 %."""
    runs = pick(data.runs, ACCURACY_CONTEXT, key)
    arms = pick(data.summary, [*ACCURACY_CONTEXT, "arm", "pattern"], (*key, OUR_ARM, pattern))
    for reference in references(runs)[:1]:
        found = iso_speedup(runs, arms, reference)
        if found.arms:
            start = f"Less than {margin_words(found.margin)} below {reference} is shown"
            if found.best is None:
                yield f"{start} at no density of {OUR_ARM}"
            else:
                speed, at = times(found.best["step_speedup"]), f"{found.best['density']:.4g}"
                yield f"{start} up to {speed}: {OUR_ARM} at density {at}"


def iso_finding(data: ReportData, key: Key) -> list[str]:
    """Return the iso-accuracy speed-up over all arms in a sentence; none without a reference."""
    runs = pick(data.runs, ACCURACY_CONTEXT, key)
    arms = named_arms(pick(data.summary, ACCURACY_CONTEXT, key))
    for reference in references(runs)[:1]:
        found = iso_speedup(runs, arms, reference)
        if not found.arms:
            return []
        what = f"an accuracy shown to be less than {margin_words(found.margin)} below {reference}"
        how = f"5 %, shared by {counted(found.arms, 'arm')} that it could be picked from"
        if found.best is None:
            text = f"no arm with step times has {what} ({how}).{_needed(runs, found)}"
        else:
            text = f"the largest speed-up with {what} is {_iso_words(found.best)} ({how})."
        return [said(data, key, text)]
    return []


def _iso_words(best: Record) -> str:
    known = interval(best["step_low"], best["step_high"])
    reach = "one run: no interval" if known == "—" else known
    text = f"{times(best['step_speedup'])} ({reach}), of {best['name']} at sparsity "
    text += percent(1 - best["density"])
    return text + (", which is not faster" if best["step_speedup"] <= 1 else "")


def _needed(runs: pd.DataFrame, found: IsoSpeedup) -> str:
    sd = spread(runs)
    if not sd > 0:
        return ""
    needed = seeds_needed(sd, found.margin, alpha=found.alpha)
    return (
        f" Runs spread by {100 * sd:.2f} points (sd); were an arm truly equal, {needed} seeds of "
        "each would show it in four of five cases."
    )


def front_finding(arms: pd.DataFrame) -> str:
    """Return who is on the Pareto front of the means, and who is clearly dominated.

    Args:
        arms: the drawn rows of the summary with a column ``name``, of one context.
    """
    drawn = pareto(arms)
    front = [_at(row) for row in records(drawn[drawn["on_front"]].sort_values("step_speedup"))]
    below = int(drawn["clearly_dominated"].sum())
    known = drawn[["accuracy_low", "step_low"]].notna().all(axis=1)
    if not known.any():
        return f"On the Pareto front of the means: {listed(front)}."
    return (
        f"On the Pareto front of the means: {listed(front)}; {below} of {len(drawn)} points are "
        "clearly dominated (another is better on both axes, intervals apart)."
    )


def _at(row: Record) -> str:
    if row["arm"] == DENSE_ARM:
        return str(row["name"])
    return f"{row['name']} at {percent(1 - row['density'])}"
