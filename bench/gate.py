"""Base against head: two stored folders become verdicts and an exit code. No torch.

Two revisions are judged by ``bench.gating``, by many fresh processes instead of one each.

Each folder is one process, so a difference between two processes of the same code cannot be
told from a difference between two codes: a cell FAILs only when the whole interval of its
ratio lies above ``MARGIN``, and its reason says "single process". Two runs of the same code
on a shared machine may well be INCONCLUSIVE. Exit codes stand in ``bench.gate_result``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.gate_result import (
    MARGIN,
    NO_BASE,
    USAGE,
    GateResult,
    exit_code,
    render,
    to_json,
    to_markdown,
    worst_code,
)
from bench.gating.readings import Outcome, judge_outcomes
from bench.records import Cell, Environment, Flag, Measurement, Status
from bench.stats import median, median_interval
from bench.store import Results, StoreError, read_results
from bench.verdict import Verdict, VerdictKind

__all__ = ["GateResult", "cell_label", "compare", "exit_code", "render", "to_json", "to_markdown"]

LEAST_DIFFERENCE_S = 1e-6
LEAST_SAMPLES = 6  # below this no order statistics cover the median with 95 %
NAMED = 3  # cells a note names before it only counts

_BAD = (Status.WRONG, Status.IMPOSSIBLE)


def compare(base: Path | str, head: Path | str) -> GateResult:
    """Compare two folders of results.

    A folder that cannot be read becomes a sentence in ``errors`` and an exit code, never an
    exception.
    """
    errors: list[str] = []
    codes: list[int] = []
    read: list[Results] = []
    for name, folder, code in (("base", base, NO_BASE), ("head", head, USAGE)):
        try:
            read.append(read_results(folder))
        except StoreError as error:
            errors.append(f"{name}: {error}")
            codes.append(code)
    if errors:
        return GateResult([], [], worst_code(codes), errors)
    base_results, head_results = read
    heads = head_results.latest()
    verdicts = [
        _verdict(measurement, heads.get(cell_id), base_results, head_results)
        for cell_id, measurement in base_results.latest().items()
    ]
    known = {verdict.cell_id for verdict in verdicts}
    verdicts += [
        _named(measurement, VerdictKind.WRONG, f"{_outcome(measurement)} in head; not in base")
        for cell_id, measurement in heads.items()
        if cell_id not in known and measurement.status in _BAD
    ]
    return GateResult(verdicts, _notes(base_results, head_results), exit_code(verdicts))


def cell_label(cell: Cell) -> str:
    """Return a cell's name for people; not unique, unlike its id."""
    case, recipe = cell.case, cell.case.recipe
    place = f"{case.suite}/{case.layer} {case.conv_pass} {case.dtype} {case.device}"
    pattern = f"{recipe.method}@{recipe.density:g} {recipe.block[0]}x{recipe.block[1]}"
    own = (
        "" if recipe.balance == "none" else f" balance {recipe.balance}",
        "" if recipe.taps is None else f" {recipe.taps} taps",
        "" if case.layout == "canonical" else f" {case.layout}",
    )
    return f"{place} {pattern}{''.join(own)} {cell.impl} {cell.mode}"


def _verdict(
    base: Measurement, head: Measurement | None, base_results: Results, head_results: Results
) -> Verdict:
    environment = base_results.environments[base.environment]
    differing = _machine_difference(environment, head, head_results)
    if differing:
        return _named(base, VerdictKind.INCOMPARABLE, f"another machine: {differing}")
    if head is not None and base.status is head.status is Status.OK:
        return _judge_times(base, head)
    return _named(base, *_judge_status(base, head))


def _machine_difference(base: Environment, head: Measurement | None, results: Results) -> str:
    """Return the hard facts that differ, as text; "" for a comparable machine.

    A cell that head lacks is compared with every machine of head: it is missing, and not
    incomparable, where one of them is base's.
    """
    names = [head.environment] if head else [m.environment for m in results.measurements]
    found = [_difference(base.hard, results.environments[n].hard) for n in dict.fromkeys(names)]
    return "" if "" in found else found[0]


def _difference(base: dict[str, Any], head: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {base[name]!r} in base, {head[name]!r} in head"
        for name in base
        if base[name] != head[name]
    )


def _judge_status(base: Measurement, head: Measurement | None) -> tuple[VerdictKind, str]:
    """Return (kind, reason) of a cell that is not ok on both sides."""
    if head is None:
        return VerdictKind.MISSING, f"absent from head; {_outcome(base)} in base"
    return judge_outcomes(_failure(base), _failure(head))


def _failure(measurement: Measurement) -> Outcome:
    reason = measurement.reason
    return None if reason is None else (str(measurement.status), reason)


def _judge_times(base: Measurement, head: Measurement) -> Verdict:
    """Compare the samples of two ok measurements."""
    if base.samples_s == head.samples_s:
        return _named(base, VerdictKind.PASS, "identical samples", (1.0, 1.0, 1.0))
    throttled = [n for n, m in (("base", base), ("head", head)) if Flag.THROTTLED in m.flags]
    if throttled:
        reason = f"throttled in {' and '.join(throttled)}"
        return _named(base, VerdictKind.INCONCLUSIVE, reason)
    fewest = min(len(base.samples_s), len(head.samples_s))
    if fewest < LEAST_SAMPLES:
        reason = f"expected at least {LEAST_SAMPLES} samples a side, got {fewest}"
        return _named(base, VerdictKind.INCONCLUSIVE, reason)
    base_s, head_s = median(base.samples_s), median(head.samples_s)
    base_low, base_high = median_interval(base.samples_s)
    head_low, head_high = median_interval(head.samples_s)
    ratio, low, high = head_s / base_s, head_low / base_high, head_high / base_low
    kind, said = VerdictKind.INCONCLUSIVE, "cannot be told from noise"
    if high <= MARGIN:
        kind, said = VerdictKind.PASS, f"at most {MARGIN:.2f}x"
    elif low > MARGIN and head_s - base_s >= LEAST_DIFFERENCE_S:
        kind, said = VerdictKind.FAIL, f"slower than {MARGIN:.2f}x"
    elif low > MARGIN:
        said = f"slower by {(head_s - base_s) * 1e6:.2f} us, less than 1 us"
    reason = f"{said}: {ratio:.3f}x, interval {low:.3f} to {high:.3f}, single process"
    return _named(base, kind, reason, (ratio, low, high))


def _named(
    measurement: Measurement,
    kind: VerdictKind,
    reason: str,
    ratio: tuple[float, float, float] | None = None,
) -> Verdict:
    """Return the verdict on this cell; ``ratio`` is (ratio, low, high)."""
    cell = measurement.cell
    return Verdict(cell.cell_id, cell_label(cell), kind, reason, *(ratio or ()))


def _outcome(measurement: Measurement) -> str:
    """Return status and reason as text."""
    return f"{measurement.status} ({measurement.reason})" if measurement.reason else "ok"


def _notes(base: Results, head: Results) -> list[str]:
    notes = []
    for name, results in (("base", base), ("head", head)):
        if results.torn:
            notes.append(f"{name}: the torn last line was left out")
        again = len(results.measurements) - len(results.latest())
        if again:
            notes.append(f"{name}: {again} cells in more than one environment; the last counts")
    bases, heads = base.latest(), head.latest()
    shared = [(bases[c], heads[c]) for c in bases if c in heads]
    pairs = dict.fromkeys((b.environment, h.environment) for b, h in shared)
    found = [_difference(base.environments[b].soft, head.environments[h].soft) for b, h in pairs]
    notes += [f"software differs: {text}" for text in dict.fromkeys(found) if text]
    fresh = [h for c, h in heads.items() if c not in bases and h.status not in _BAD]
    notes += _count("only in head, not judged", fresh)
    revived = [h for b, h in shared if h.status is Status.OK and b.status is not Status.OK]
    notes += _count("ok in head but not in base, passed without a time to compare with", revived)
    bad = [h for h in heads.values() if h.status in _BAD]
    return notes + _count("wrong or impossible in head", bad)


def _count(what: str, measurements: list[Measurement]) -> list[str]:
    """Return a note that counts these cells and names the first, or no note for none."""
    if not measurements:
        return []
    names = [cell_label(m.cell) for m in measurements[:NAMED]]
    more = ", ..." if len(measurements) > NAMED else ""
    return [f"{len(measurements)} cells {what}: {', '.join(names)}{more}"]
