"""What the gate found: verdicts, exit codes, and their three forms. No torch.

====  =======================================================================
exit  meaning; of several, the first of 2, 4, 5, 1, 3, 0 counts
====  =======================================================================
0     pass (the same explained skip on both sides is equal)
1     regression
2     usage or infrastructure; head missing, unreadable or empty
3     inconclusive
4     incomparable machine; base missing, unreadable or empty
5     wrong results or a missing cell
====  =======================================================================
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.jsonl import StoreError
from bench.records import SCHEMA
from bench.stats import geometric_mean
from bench.verdict import Verdict, VerdictKind

GATE, SELF_TEST = "gate.json", "self_test.json"  # in the folder of a gate
MARGIN = 1.10  # ratio head / base; between single processes less is not evidence
EXIT_CODES = {
    VerdictKind.PASS: 0,
    VerdictKind.FAIL: 1,
    VerdictKind.INCONCLUSIVE: 3,
    VerdictKind.INCOMPARABLE: 4,
    VerdictKind.MISSING: 5,
    VerdictKind.WRONG: 5,
}
USAGE, NO_BASE = 2, 4
PRECEDENCE = (2, 4, 5, 1, 3, 0)

_COLOURS = {
    VerdictKind.PASS: "green",
    VerdictKind.FAIL: "bold red",
    VerdictKind.WRONG: "bold red",
    VerdictKind.MISSING: "red",
    VerdictKind.INCOMPARABLE: "magenta",
    VerdictKind.INCONCLUSIVE: "yellow",
}


@dataclass(frozen=True)
class GateResult:
    """What the gate found.

    Attributes:
        verdicts: one a cell of base, in base's order; then cells wrong in head alone.
        notes: what a reader should know beside the verdicts.
        exit_code: see the module's table.
        errors: one sentence for each side that could not be read or measured.
        about: how it was found: commits, trials, seconds; empty for two stored folders.
    """

    verdicts: list[Verdict]
    notes: list[str]
    exit_code: int
    errors: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> dict[VerdictKind, int]:
        """Cells by verdict, every kind named."""
        found = Counter(v.kind for v in self.verdicts)
        return {kind: found[kind] for kind in VerdictKind}

    @property
    def ratios(self) -> list[float]:
        """Ratios head / base of the cells whose times were compared."""
        return [v.ratio for v in self.verdicts if v.ratio is not None]

    @property
    def worst_ratio(self) -> float | None:
        """The largest ratio; None when no times were compared."""
        return max(self.ratios, default=None)

    @property
    def geometric_mean_ratio(self) -> float | None:
        """Geometric mean of the ratios; None when no times were compared."""
        return geometric_mean(self.ratios) if self.ratios else None

    @property
    def visible(self) -> float | None:
        """The smallest slow-down that would have shown in every cell; None where not known."""
        return max((v.margin for v in self.verdicts if v.margin is not None), default=None)

    @property
    def sentence(self) -> str:
        """The verdict of the whole, in one sentence."""
        total, counts = len(self.verdicts), self.counts
        if self.errors:
            return f"NOT COMPARED: {'; '.join(self.errors)}."
        passed = f"none is slower than {MARGIN:.2f}x"
        slower = f"slower than {MARGIN:.2f}x (single process: confirm with another run)"
        if self.about:
            seen = "" if self.visible is None else f"; {self.visible:.1%} would show in each"
            passed = f"none is slower{seen}"
            slower = "slower, confirmed by fresh processes"
        return {
            0: f"PASS: of {total} cells, {len(self.ratios)} have times to compare, and {passed}.",
            1: f"FAIL: {counts[VerdictKind.FAIL]} of {total} cells are {slower}.",
            2: "NOT COMPARED: the gate could not run.",
            3: f"INCONCLUSIVE: {counts[VerdictKind.INCONCLUSIVE]} of {total} cells can be "
            f"called neither slower nor as fast; measure again on a quieter machine.",
            4: f"INCOMPARABLE: {counts[VerdictKind.INCOMPARABLE]} of {total} cells cannot be "
            f"compared.",
            5: f"WRONG OR MISSING: {counts[VerdictKind.WRONG]} of {total} cells are wrong and "
            f"{counts[VerdictKind.MISSING]} are missing in head.",
        }[self.exit_code]

    @property
    def summary(self) -> str:
        """Counts, worst and geometric-mean ratio, in one line."""
        counts = ", ".join(f"{n} {kind}" for kind, n in self.counts.items() if n)
        if not self.ratios:
            return f"{counts or 'no cells'}; no times compared"
        return (
            f"{counts}; head / base over {len(self.ratios)} compared cells: worst "
            f"{self.worst_ratio:.3f}x, geometric mean {self.geometric_mean_ratio:.3f}x"
        )


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what a gate left there; None where it left nothing.

    Raises:
        StoreError: no JSON of this schema.
    """
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        schema = data["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"expected {path} as a gate wrote it, got {error!r}") from error
    if schema != SCHEMA:
        raise StoreError(f"expected schema {SCHEMA} in {path}, got {schema!r}")
    return data


def worst_code(codes: Iterable[int]) -> int:
    """Return the code that comes first in ``PRECEDENCE``; 4 for none: nothing was compared."""
    return min(codes, key=PRECEDENCE.index, default=NO_BASE)


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """Return the exit code of these verdicts alone; 4 for none: nothing was compared."""
    return worst_code(EXIT_CODES[v.kind] for v in verdicts)


def render(result: GateResult, console: Console) -> None:
    """Print the cells that did not pass, the notes, the counts and the verdict.

    Of two revisions every cell is printed, with what would have shown in it.
    """
    failed = _not_passed(result)
    if result.about:
        table = Table("verdict", "cell", "head / base", "would show", "trials")
        for verdict in [*failed, *(v for v in result.verdicts if v.kind is VerdictKind.PASS)]:
            kind = Text(verdict.kind.upper(), style=_COLOURS[verdict.kind])
            table.add_row(kind, Text(verdict.label), *map(Text, _numbers(verdict)))
        console.print(table)
    if failed:
        table = Table("verdict", "cell", "reason")
        for verdict in failed:
            # Text, because a reason in square brackets would be read as markup
            kind = Text(verdict.kind.upper(), style=_COLOURS[verdict.kind])
            table.add_row(kind, Text(verdict.label), Text(verdict.reason))
        console.print(table)
    for note in result.notes:
        console.print(Text(f"note: {note}"))
    if not result.errors:
        console.print(Text(result.summary))
    console.print(Text(result.sentence, style="green" if result.exit_code == 0 else "bold"))


def to_json(result: GateResult) -> str:
    """Return the result as JSON text; ratios are null where no times were compared."""
    data = {
        "schema": SCHEMA,
        "exit_code": result.exit_code,
        "sentence": result.sentence,
        "counts": {str(kind): n for kind, n in result.counts.items()},
        "compared": len(result.ratios),
        "worst_ratio": result.worst_ratio,
        "geometric_mean_ratio": result.geometric_mean_ratio,
        "visible": result.visible,
        "errors": result.errors,
        "about": result.about,
        "notes": result.notes,
        "verdicts": [asdict(v) for v in result.verdicts],
    }
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def to_markdown(result: GateResult) -> str:
    """Return the result as a Markdown summary of a job."""
    lines = ["## Gate", "", f"**{_plain(result.sentence)}** (exit {result.exit_code})", ""]
    if not result.errors:
        lines += [_plain(result.summary), ""]
    failed = _not_passed(result)
    if failed:
        lines += ["| verdict | cell | reason |", "| --- | --- | --- |"]
        lines += [f"| {v.kind.upper()} | {_plain(v.label)} | {_plain(v.reason)} |" for v in failed]
        lines.append("")
    lines += [f"- {_plain(note)}" for note in result.notes]
    return "\n".join(lines).rstrip() + "\n"


def _numbers(verdict: Verdict) -> tuple[str, str, str]:
    """Return ratio with its interval, what would have shown, and trials; "-" for none."""
    ratio = "-"
    if verdict.ratio is not None:
        ratio = f"{verdict.ratio:.3f} ({verdict.low:.3f} to {verdict.high:.3f})"
    margin = "-" if verdict.margin is None else f"+{verdict.margin:.1%}"
    return ratio, margin, str(verdict.trials or "-")


def _not_passed(result: GateResult) -> list[Verdict]:
    return [v for v in result.verdicts if v.kind is not VerdictKind.PASS]


def _plain(text: str) -> str:
    """Return ``text`` so that it stays in one cell of a Markdown table and forms no tags."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(escaped.split())
