"""Rows become sentences. Every figure in them is computed from the rows, none is written down."""

from __future__ import annotations

from bench.frames import Record, records
from bench.records import OURS, Environment
from bench.table import ALL, CONTEXT, STATUSES
from reports.data import Key, ReportData, pick
from reports.findings_accuracy import accuracy_finding, arm_groups, iso_finding, said
from reports.style import counted, listed, percent, times

LINE_LENGTH = 100
FAILURES = ("wrong", "impossible", "oom", "timeout", "crashed")


def headline(data: ReportData) -> list[str]:
    """Return the findings as lines of at most 100 characters, for a terminal.

    Where several contexts or patterns are there, a line that names one stands before its lines.
    """
    lines = []
    for label, texts in headline_groups(data):
        if label:
            room = LINE_LENGTH - 1
            lines.append((label if len(label) <= room else label[: room - 1] + "…") + ":")
        lines += texts
    return lines


def headline_groups(data: ReportData) -> list[tuple[str, list[str]]]:
    """Return (context or "", lines), the counts of cells first; no group is empty."""
    first = [_cells_line(data)] if len(data.rows) else []
    if data.gate is not None:
        first = [*first, data.gate["sentence"]]
    if (
        not first
        and data.self_test is None
        and not len(data.runs)
        and not len(data.quality)
        and not data.optimum
        and not data.steps
    ):
        first = ["Nothing is stored here: no cell and no training run."]
    groups = [("", first)]
    for key in data.contexts():
        texts = [_speedup_text(row) for row in ours_by_density(data, key)]
        groups.append((data.label(key, short=True), texts))
    for key in data.arm_contexts():
        groups += arm_groups(data, key)
    return [(label, texts) for label, texts in groups if texts]


def _cells_line(data: ReportData) -> str:
    status = data.rows["status"]
    failed = int(status.isin(FAILURES).sum())
    return (
        f"{counted(len(status), 'cell')}: {int((status == 'ok').sum())} ok, {failed} failed, "
        f"{int((status == 'skipped').sum())} skipped, {len(data.missing)} missing"
    )


def ours_by_density(data: ReportData, key: Key, block: str = ALL) -> list[Record]:
    """Return our rows of coverage for forward + backward, the densest first.

    Args:
        block: "32x32", or all of them together.
    """
    part = pick(data.coverage, [*CONTEXT, "impl", "pass", "block"], (*key, OURS, ALL, block))
    return records(part.sort_values("density", ascending=False))


def blocks_of(data: ReportData, key: Key) -> list[str]:
    """Return "all", and after it each block where a context has several, the smallest first."""
    part = pick(data.coverage, [*CONTEXT, "impl", "pass"], (*key, OURS, ALL))
    each = sorted({*part["block"]} - {ALL}, key=lambda block: int(block.split("x")[0]))
    return [ALL, *each] if len(each) > 1 else [ALL]


def _speedup_text(row: Record) -> str:
    start = f"Forward + backward at density {row['density']:.4g}: "
    if not row["cells"]:
        return start + "no layer has all three passes"
    reach = f"{row['speedup_min']:.2f} to {times(row['speedup_max'])}"
    text = f"{start}{times(row['speedup'])} dense ({counted(row['cells'], 'cell')}, {reach}"
    return text + (f", {row['slower']} slower)" if row["slower"] else ")")


def machine(environment: Environment | None, name: str) -> str:
    """Return one environment in words."""
    if environment is None:
        return f"{name}: an environment that environment.json does not describe"
    e = environment
    versions = [("torch", e.torch), ("CUDA", e.cuda), ("cuDNN", e.cudnn), ("Triton", e.triton)]
    parts = [f"{label} {value}" for label, value in versions if value]
    if e.device == "cpu":
        parts.insert(0, counted(e.threads, "thread"))
    parts.append(f"Python {e.python}")
    if e.commit:
        parts.append(f"commit {e.commit[:12]}" + (" with uncommitted changes" if e.dirty else ""))
    return f"{name}: {e.device_name} ({e.device}), {', '.join(parts)}"


def measured(data: ReportData) -> list[str]:
    """Return what was measured, a sentence per machine."""
    sentences = []
    for key, name in data.names.items():
        rows = data.rows[data.rows["environment"] == key]
        runs = data.runs[data.runs["environment"] == key]
        what = []
        if len(rows):
            layers = rows[["suite", "layer", "shape"]].drop_duplicates()
            what.append(
                f"{counted(len(rows), 'cell')} of {counted(len(layers), 'layer')} "
                f"({listed(sorted(set(layers['suite'])))}) by {listed(sorted(set(rows['impl'])))}"
            )
        if len(runs):
            what.append(
                f"{counted(len(runs), 'training run')} of {listed(sorted(set(runs['arm'])))}"
            )
        steps = sorted({line["model"] for line in data.steps if line["environment"] == key})
        if steps:
            what.append(f"whole training steps of {listed(steps)}")
        sentences.append(f"{machine(data.environments.get(key), name)}. Here: {listed(what)}.")
    others = [
        (len(data.quality), counted(len(data.quality), "regrouping")),
        (len(data.breakeven), "break-even searches: " + f"{len(data.breakeven)}"),
        (data.gate is not None, "the verdicts of a gate"),
        (data.self_test is not None, "a gate's test of itself"),
    ]
    told = [words for there, words in others if there]
    if told:
        sentences.append(f"{'Beside that' if sentences else 'Here'}: {listed(told)}.")
    return sentences or ["The folder holds no cell and no training run."]


def meaning(data: ReportData) -> list[str]:
    """Return what the numbers say, slower cells as plainly as faster ones."""
    sentences = [_speed_meaning(data, key) for key in data.contexts()]
    for key in data.arm_contexts():
        sentences += [accuracy_finding(data, key), *iso_finding(data, key)]
    if len(data.rows) and not (data.rows["status"] == "ok").any():
        sentences.append("No cell gave a valid time, so this says nothing about speed.")
    if data.gate is not None:
        sentences.append(f"Gate: {data.gate['sentence']}")
    return sentences


def _speed_meaning(data: ReportData, key: Key) -> str:
    rows = [r for r in ours_by_density(data, key) if r["cells"]]
    if not rows:
        return said(data, key, f"no layer has a speed-up of {OURS} over all three passes.")
    faster = [f"{r['density']:.4g}" for r in rows if r["speedup"] > 1]
    slower = [f"{r['density']:.4g}" for r in rows if r["speedup"] <= 1]
    parts = []
    if faster:
        parts.append(f"faster than dense at density {listed(faster)}")
    if slower:
        parts.append(f"NOT faster than dense at density {listed(slower)}")
    cells, up, down = (sum(r[n] for r in rows) for n in ("cells", "faster", "slower"))
    text = (
        f"forward + backward of {OURS} is on average {' and '.join(parts)}. Cell by cell, "
        f"{up} of {cells} are faster beyond their interval, {down} slower, and "
        f"{cells - up - down} undecided."
    )
    return said(data, key, text)


def layers_finding(data: ReportData, key: Key) -> str:
    """Return the figure's finding: how many layers are faster, and the extremes."""
    part = pick(data.totals, [*CONTEXT, "impl"], (*key, OURS)).dropna(subset="speedup")
    if part.empty:
        return f"No layer has a speed-up of {OURS} over all three passes."
    up, down = (part["speedup_low"] > 1).sum(), (part["speedup_high"] < 1).sum()
    ordered = records(part.sort_values("speedup"))
    worst, best = ordered[0], ordered[-1]
    return (
        f"Forward + backward: {up} of {counted(len(part), 'pattern')} are faster than dense beyond "
        f"their interval, {down} slower. Most: {_where(best)}; least: {_where(worst)}."
    )


def _where(row: Record) -> str:
    place = f"{row['layer']}, block {row['block']}, sparsity {percent(1 - row['density'])}"
    return f"{times(row['speedup'])} ({place})"


def heat_finding(data: ReportData, key: Key) -> str:
    """Return the best and the worst block and sparsity over all three passes."""
    part = pick(data.coverage, [*CONTEXT, "impl", "pass"], (*key, OURS, ALL))
    part = part[(part["block"] != ALL) & (part["cells"] > 0)]
    if part.empty:
        return f"No block has a speed-up of {OURS} over all three passes."
    ordered = records(part.sort_values("speedup"))
    worst, best = ordered[0], ordered[-1]

    def words(row: Record) -> str:
        place = f"block {row['block']} at sparsity {percent(1 - row['density'])}"
        return f"{place}, {times(row['speedup'])} over {counted(int(row['cells']), 'layer')}"

    if len(part) == 1:
        return f"Forward + backward, the only tile: {words(best)}."
    return f"Forward + backward, most: {words(best)}; least: {words(worst)}."


def baseline_finding(data: ReportData, key: Key) -> str:
    """Return who is fastest at the lowest density that has figures, and where we stand."""
    part = pick(data.coverage, [*CONTEXT, "pass", "block"], (*key, ALL, ALL))
    part = part[part["cells"] > 0]
    if part.empty:
        return "No implementation has a speed-up over all three passes."
    lowest = part[part["density"] == part["density"].min()].sort_values("speedup")
    names = [f"{r.impl} {times(r.speedup)} (n = {r.cells})" for r in lowest[::-1].itertuples()]
    return (
        f"Forward + backward at density {lowest['density'].iloc[0]:.4g}, fastest first: "
        f"{listed(names)}."
    )


def status_text(row: Record) -> str:
    """Return the counts beside a geometric mean: ``12 ok, 1 crashed, 2 throttled``."""
    counts = [(name, int(row[name])) for name in (*STATUSES, "throttled")]
    return ", ".join(f"{n} {name}" for name, n in counts if n)
