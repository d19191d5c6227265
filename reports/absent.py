"""What this folder has nothing for, and the command that would measure it."""

from __future__ import annotations

from collections.abc import Iterator

from reports import commands
from reports.data import ReportData
from reports.energy import step_pairs, why_absent
from reports.parts import Block, Bullets, Paragraph


def absent_blocks(data: ReportData) -> Iterator[Block]:
    """Yield a line a missing part; nothing where all are there."""
    lines = tuple(absences(data))
    if lines:
        yield Paragraph(
            "The report has a part for each of these, and this folder nothing for it. The command "
            "at the end measures it; with this folder for DIR the next report has the part."
        )
        yield Bullets(lines)


def absences(data: ReportData) -> Iterator[str]:
    """Yield a sentence and a command for each missing part, in the report's order."""
    if not len(data.rows):
        yield (
            "Speed-up of single layers, block against sparsity, nearness to the limit: no layer "
            f"was timed alone here. {commands.RUN}"
        )
    if not len(data.runs):
        yield (
            "Speed-up against accuracy: No network was trained here, so this says nothing about "
            f"accuracy. {commands.ACCURACY}"
        )
    if not data.breakeven:
        yield f"Break-even sparsity by search: none was made here. {commands.BREAK_EVEN}"
    if not len(data.quality):
        yield f"Retained score of groupings: no regrouping was measured here. {commands.QUALITY}"
    if not data.steps:
        yield f"Whole training steps: none was timed here. {commands.STEP}"
    if not (any(step_pairs(data)) or data.rows["energy_j"].notna().any()):
        yield _energy(data)
    if data.gate is None:
        yield f"Gate: two revisions were not compared here. {commands.GATE}"
    yield (
        "Trend: a history of several folders has its own figure and files, beside a report. "
        f"{commands.TREND}"
    )


def _energy(data: ReportData) -> str:
    why = why_absent(data.steps)
    told = f" ({why})" if why else ""
    return (
        f"Energy: no joule was recorded here{told}. {commands.STEP} on a GPU that tells it, or "
        f"{commands.RUN} --energy"
    )
