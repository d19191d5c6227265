"""The findings page: what was measured, what it means in plain words, and the headline figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.frames import records
from bench.records import OURS
from bench.step_table import step_rows
from bench.table import CONTEXT
from reports import figures_steps, findings, style
from reports.breakeven import swept_finding
from reports.data import ReportData, pick
from reports.figures_headline import headline_picture
from reports.parts import Block, Bullets, Paragraph, Table
from reports.picture import Picture
from reports.quality import advice
from reports.steps import labelled

PAGE_IN, TITLE_IN = 9.6, 0.95  # of A4 within its margins, and what title and heading take
LINE_IN, SMALL_IN, GAP_IN = 0.178, 0.15, 0.1
MOST_MEANINGS = 9
MOST_ADVICE = 4
TALLEST_IN = 4.5  # of a figure taken from another section


@dataclass(frozen=True)
class FirstPage:
    """The page, what did not fit on it, and the picture that it took from another section."""

    blocks: tuple[Block, ...]
    rest: tuple[Block, ...]
    taken: Picture | None


def first_page(data: ReportData, pictures: Sequence[Picture]) -> FirstPage:
    """Return the findings.

    Args:
        pictures: of the other sections: the first low enough stands here where nothing has a
            speed-up over dense.
    """
    drawn = headline_picture(data)
    taken = None
    if drawn is None:
        taken = next((p for p in pictures if p.height_in <= TALLEST_IN), None)
    told = list(meanings(data))
    blocks: list[Block] = [Paragraph(sentence) for sentence in findings.measured(data)]
    if told:
        blocks += [Paragraph("What it means", strong=True), Bullets(tuple(told[:MOST_MEANINGS]))]
    blocks += [picture for picture in (drawn or taken,) if picture]
    more = [Bullets(tuple(told[MOST_MEANINGS:]))] if len(told) > MOST_MEANINGS else []
    figures = tuple(_in_figures(data))
    if not more and _height_in([*blocks, *figures]) <= PAGE_IN - TITLE_IN:
        title = [Paragraph("In figures", strong=True)] if figures else []
        return FirstPage((*blocks, *title, *figures), (), taken)
    return FirstPage(tuple(blocks), (*more, *figures), taken)


def meanings(data: ReportData) -> Iterator[str]:
    """Yield what the numbers say: kernels, networks, break-even, steps, gate, groupings."""
    yield from findings.meaning(data)
    for key in data.contexts():
        rows = records(pick(data.swept, [*CONTEXT, "impl"], (*key, OURS)))
        if any(row["answer"] != "always" for row in rows):
            yield findings.said(data, key, swept_finding(rows))
    steps = labelled(step_rows(data.steps))
    timed = records(steps[steps["speedup"].notna()])
    if timed:
        yield f"Whole training steps: {figures_steps.finding(timed)}"
    if len(data.quality):
        yield from list(advice(data.quality))[:MOST_ADVICE]


def _in_figures(data: ReportData) -> Iterator[Block]:
    for label, lines in findings.headline_groups(data):
        if label:
            yield Paragraph(f"{label}:")
        yield Bullets(tuple(lines))


def _height_in(blocks: Sequence[Block]) -> float:
    """Return about what the blocks take on paper."""
    return sum(_one_in(block) for block in blocks)


def _one_in(block: Block) -> float:
    if isinstance(block, Picture):
        return block.height_in + 0.5 + SMALL_IN * _lines(block.caption, 8.0)
    if isinstance(block, Bullets):
        return sum(LINE_IN * _lines(item, 9.5) + 0.02 for item in block.items) + GAP_IN
    if isinstance(block, Table):
        return LINE_IN * (len(block.rows) + 1)
    return LINE_IN * _lines(block.text, 9.5) + GAP_IN + (0.15 if block.strong else 0)


def _lines(text: str, size_pt: float) -> int:
    return len(style.wrap(text, (style.TEXT_IN - 0.18) * 72, size_pt))
