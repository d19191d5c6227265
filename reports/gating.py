"""What a gate of two revisions said, and what its self-test knows, in words and tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.gating.rehearsal import CELLS
from reports import style
from reports.data import ReportData
from reports.figures_gate import gate_picture
from reports.parts import Block, Bullets, Paragraph, Table

MOST_ROWS = 80  # of a table; gate.json has all


def gate_blocks(data: ReportData) -> Iterator[Block]:
    """Yield the gate's section; nothing where none was run."""
    if data.gate is not None:
        yield from _verdicts(data.gate)
    if data.self_test is not None:
        yield from _self_test(data.self_test)


def _verdicts(gate: dict[str, Any]) -> Iterator[Block]:
    yield Paragraph(gate["sentence"])
    about = gate["about"]
    yield Paragraph(_how(about))
    yield Bullets(tuple(gate["notes"])) if gate["notes"] else Paragraph("Nothing to note.")
    picture = gate_picture(gate["verdicts"], about)
    if picture is not None:
        yield picture
    verdicts = gate["verdicts"]
    order = sorted(verdicts, key=lambda v: v["kind"] == "pass")
    rows = [
        (
            v["kind"].upper(), v["label"], _ratio(v), _share(v["margin"]),
            str(v["trials"] or "—"), v["reason"],
        )
        for v in order[:MOST_ROWS]
    ]  # fmt: skip
    if not rows:
        return
    columns = ("verdict", "cell", "head over base", "visible", "trials", "reason")
    yield Table(columns, tuple(rows), (1.0, 2.6, 1.5, 0.8, 0.7, 2.8))
    if len(order) > MOST_ROWS:
        yield Paragraph(f"{len(order) - MOST_ROWS} further cells passed; gate.json has them all.")
    yield Paragraph(
        "A trial is three fresh processes that take turns: base, head, base again. Visible is the "
        "smallest slow-down that these trials would have shown; intervals are two-sided 90 %, so "
        "that each side holds with 95 %. What was suspected was measured again, and is judged by "
        "the new trials alone."
    )


def _how(about: dict[str, Any]) -> str:
    if not about:
        return "Two stored folders, one process each."
    environment = about["environment"] or {}
    minutes = about["seconds"] / 60
    head = about["head"]["commit"][:10] + (" with changes" if about["head"]["dirty"] else "")
    return (
        f"Base {about['base']['commit'][:10]} ({about['base']['revision']}) against head {head}: "
        f"{style.counted(about['trials'], 'trial')} in {minutes:.1f} minutes on "
        f"{environment.get('device_name', 'an unknown machine')}. Made by: python -m bench gate "
        f"--base-rev {about['base']['revision']} --suite {about['suite']}."
    )


def _self_test(found: dict[str, Any]) -> Iterator[Block]:
    yield Paragraph("How often the gate errs on this machine", strong=True)
    quiet = found["quiet"]
    rows = [
        ("false alarms, equal code", _rate(quiet["alarms"])),
        ("inconclusive, equal code", _rate(quiet["inconclusive"])),
        *(
            (f"+{100 * float(effect):.0f} % in one cell found", _rate(rates["found"]))
            for effect, rates in found["planted"].items()
        ),
        ("smallest visible slow-down, worst cell, median run", _share(quiet["visible"])),
        (
            "wall time, median (95th percentile)",
            f"{quiet['seconds'][0] / 60:.1f} ({quiet['seconds'][1] / 60:.1f}) minutes",
        ),
        (
            f"a real {100 * found['effect']:+.0f} % in one of {len(found['real'])} cells",
            "found, and nothing else" if found["found"] else "not found alone",
        ),
    ]
    if "favoured" in found:  # self-tests of earlier versions did not ask
        name = "equal code in head's place is slower by (95 % interval)"
        rows.append((name, _rate(found["favoured"])))
    cells = min(CELLS, found["pool_cells"])
    yield Table((f"runs of {cells} cells", "measured"), tuple(rows), (3, 2))
    yield Paragraph(
        f"{quiet['runs']} virtual runs each, drawn from {found['pool_trials']} real trials of "
        f"equal code on {found['environment']['device_name']}; the intervals are 95 % over pools "
        "drawn anew, and so count how few trials there are. Made by: python -m bench gate "
        "--self-test."
    )


def _ratio(verdict: dict[str, Any]) -> str:
    if verdict["ratio"] is None:
        return "—"
    return f"{verdict['ratio']:.3f} ({verdict['low']:.3f} to {verdict['high']:.3f})"


def _share(value: float | None) -> str:
    return "—" if value is None else f"{100 * value:.1f} %"


def _rate(share: list[float]) -> str:
    value, low, high = share
    return f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f} %)"
