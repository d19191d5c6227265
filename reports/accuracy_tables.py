"""The tables beside the picture of accuracy: what is shown to be equivalent, what others found."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from bench.accuracy_table import ACCURACY_CONTEXT, DENSE_ARM
from bench.anchors import Anchor, anchors_for, incomparable
from bench.equivalence import AIM, ALPHA, MARGIN, TOO_FEW, equivalence, seeds_needed
from bench.frames import Record, records
from reports import style
from reports.data import ReportData, named_arms, own_pattern, pick
from reports.findings_accuracy import margin_words, references, spread
from reports.parts import Block, Paragraph, Table

COLUMNS = ("arm", "sparsity", "runs", "difference (points)", "p below", "p above", "verdict")
WIDTHS = (2.0, 0.8, 0.7, 2.0, 0.8, 0.8, 2.3)


def equivalence_blocks(data: ReportData) -> Iterator[Block]:
    """Yield a table of verdicts a context and reference, and how to read it."""
    any_there = False
    for key in data.arm_contexts():
        runs = pick(data.runs, ACCURACY_CONTEXT, key)
        there = False
        for reference in references(runs):
            table = _verdicts(runs, reference)
            if table is not None:
                there = True
                label = data.label(key, short=True)
                title = f"As accurate as {reference}? Margin {margin_words(MARGIN)}"
                yield Paragraph(f"{title}: {label}" if label else title, strong=True)
                yield table
        any_there |= there
        needed = _needed(runs) if there else ""
        if needed:
            yield Paragraph(needed)
    if any_there:
        yield Paragraph(_reading())


def _verdicts(runs: pd.DataFrame, reference: str) -> Table | None:
    found = equivalence(runs, reference)
    if found.empty:
        return None
    against = set(found["reference_pattern"])
    named = named_arms(found).sort_values(["name", "density"], ascending=[True, False])
    rows = []
    for row in records(named):
        other = own_pattern(row["reference_pattern"], against) if len(against) > 1 else ""
        rows.append((
            row["name"] + (f" (against {other})" if other else ""),
            style.percent(1 - row["density"]),
            f"{row['n_arm']}, {row['n_reference']}",
            _difference(row),
            _chance(row["p_below"]),
            _chance(row["p_above"]),
            _verdict(row),
        ))  # fmt: skip
    columns = (*COLUMNS[:3], f"arm − {reference} (points)", *COLUMNS[4:])
    return Table(columns, tuple(rows), WIDTHS)


def _difference(row: Record) -> str:
    text = style.points(row["difference"])
    if math.isnan(row["low"]):
        return text
    return f"{text} ({style.points(row['low'])} to {style.points(row['high'])})"


def _chance(p: float) -> str:
    return "—" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _verdict(row: Record) -> str:
    reason = row["reason"]
    return row["verdict"] + (f": {reason}" if reason and reason != TOO_FEW else "")


def _needed(runs: pd.DataFrame) -> str:
    """Return how many runs a margin takes with the spread that was seen; "" without spread."""
    sd = spread(runs)
    if not sd > 0:
        return ""
    needed = [f"{seeds_needed(sd, m)} for a margin of {margin_words(m)}" for m in (MARGIN, AIM)]
    return (
        f"One run spreads by {100 * sd:.2f} points (standard deviation, pooled over arms). For "
        "arms that are truly equal to be shown so in four of five cases, an arm needs "
        f"{' and '.join(needed)}."
    )


def _reading() -> str:
    return (
        f"Two one-sided Welch tests over runs, each at {100 * ALPHA:g} %: p below is of a loss of "
        "the margin or more, p above of a gain; the interval is of "
        f"{100 * (1 - 2 * ALPHA):g} %. Equivalent: it lies inside the margin. Within the margin "
        "below: no such loss, but more gain than the margin is not ruled out. An arm's densities "
        "are tested from the lowest sparsity up and end with the first that is not shown, so the "
        "best is not picked. Each arm is one claim. Not shown is not different: it may be too few "
        "runs."
    )


def anchor_blocks(data: ReportData) -> Iterator[Block]:
    """Yield what others published for a data set and network of ours; nothing where none did."""
    seen = {(data.images(key), key[2]): key for key in data.arm_contexts()}
    unchecked = False
    for (images, model), key in seen.items():
        anchors = anchors_for(key[1], model)
        if anchors:
            title = f"Published for {model}, beside our {images}; never a reference"
            yield Paragraph(title, strong=True)
            yield _anchor_table(anchors, f"{images}, {key[1]}")
            unchecked |= any(not a.checked for a in anchors)
    if unchecked:
        yield Paragraph("† copied from notes of the source's arrays, not read there again.")


def _anchor_table(anchors: list[Anchor], run: str) -> Table:
    groups: dict[tuple[str, str, str], list[Anchor]] = {}
    for anchor in anchors:
        told = (anchor.method, anchor.source, incomparable(anchor, run))
        groups.setdefault(told, []).append(anchor)
    rows = tuple(
        (method, "; ".join(map(_anchor_text, found)), why, source)
        for (method, source, why), found in groups.items()
    )
    columns = ("method", "top-1 accuracy (%) at sparsity", "beside ours", "source")
    return Table(columns, rows, (1.1, 2.4, 2.4, 3.0))


def _anchor_text(anchor: Anchor) -> str:
    sd = "" if anchor.sd is None else f" ± {100 * anchor.sd:.2f}"
    where = DENSE_ARM if anchor.density == 1 else style.percent(round(1 - anchor.density, 3))
    mark = "" if anchor.checked else " †"
    return f"{where}: {style.accuracy(anchor.accuracy)}{sd}{mark}"
