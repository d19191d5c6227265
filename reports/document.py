"""The report as a PDF: A4, text that can be searched, vector pictures, tables over pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports import style
from reports.content import Section
from reports.parts import Block, Bullets, Paragraph, Table
from reports.picture import Picture

TITLE = "Block-sparse convolution, measured"
MARGIN_IN = 0.7
BOTTOM_IN = 0.8
LEADING = 1.35  # line distance over letter size
BODY_PT, TABLE_PT, SMALL_PT = 9.5, 7.5, 8.0
CELL_PAD_IN = 0.05
MOST_CELL_LINES = 16
LEFT_OUT = " … (the whole text is in the stored results)"


class Flow:
    """Pages that fill from top to bottom; ``y`` is the place of the next thing, in inches."""

    def __init__(self) -> None:
        self.pages: list[Figure] = []
        self.new_page()

    def new_page(self) -> None:
        """Begin a page."""
        self.pages.append(Figure(figsize=style.A4_IN))
        self.y = MARGIN_IN

    @property
    def room_in(self) -> float:
        """Inches left on this page."""
        return style.A4_IN[1] - BOTTOM_IN - self.y

    def need(self, height_in: float) -> bool:
        """Begin a page unless ``height_in`` is left on this one; return whether one was begun."""
        if height_in <= self.room_in or self.y == MARGIN_IN:
            return False
        self.new_page()
        return True

    def skip(self, height_in: float) -> None:
        """Leave a gap, none at the top of a page."""
        if self.y > MARGIN_IN:
            self.y += height_in

    def write(
        self, x_in: float, y_in: float, text: str, size_pt: float, *, bold: bool = False,
        colour: str = style.INK,
    ) -> None:  # fmt: skip
        """Set one line; ``y_in`` is the top of its letters, from the top of the page."""
        width, height = style.A4_IN
        base = y_in + size_pt / 72  # letters hang about one size below their top
        self.pages[-1].text(
            x_in / width, 1 - base / height, text, fontsize=size_pt, color=colour,
            fontweight="bold" if bold else "normal", va="baseline", ha="left",
        )  # fmt: skip

    def rule(self, y_in: float, colour: str = style.RULE) -> None:
        """Draw a thin line over the width of the text."""
        width, height = style.A4_IN
        x = [MARGIN_IN / width, 1 - MARGIN_IN / width]
        y = [1 - y_in / height] * 2
        self.pages[-1].add_artist(Line2D(x, y, color=colour, linewidth=0.6))

    def text(
        self, text: str, size_pt: float, *, bold: bool = False, colour: str = style.INK,
        indent_in: float = 0.0, mark: str = "",
    ) -> None:  # fmt: skip
        """Set wrapped text; ``mark`` stands before its first line, in the indent."""
        width = (style.TEXT_IN - indent_in) * 72
        step = size_pt * LEADING / 72
        for number, line in enumerate(style.wrap(text, width, size_pt, bold)):
            self.need(step)
            if mark and number == 0:
                self.write(MARGIN_IN + 0.04, self.y, mark, size_pt)
            self.write(MARGIN_IN + indent_in, self.y, line, size_pt, bold=bold, colour=colour)
            self.y += step


def write_pdf(target: Path | BinaryIO, sections: Sequence[Section]) -> None:
    """Write the report; the same sections give the same bytes. Call it within ``style.look``."""
    flow = Flow()
    flow.text(TITLE, 19, bold=True)
    flow.skip(0.1)
    for number, section in enumerate(sections):
        _heading(flow, section, first=number == 0)
        for block in section.blocks:
            _block(flow, block)
    _footers(flow.pages)
    facts = {"Title": TITLE, "Creator": "", "Producer": "", "CreationDate": None}
    with PdfPages(target, metadata=facts) as pdf:
        for page in flow.pages:
            pdf.savefig(page)


def _heading(flow: Flow, section: Section, *, first: bool) -> None:
    """Set the title of a section on the page of what comes first in it."""
    if not first:
        flow.skip(0.3)
        block = section.blocks[0]
        flow.need(0.6 + _first_in(block))
    flow.text(section.title, 14, bold=True)
    flow.rule(flow.y + 0.03)
    flow.y += 0.13


def _first_in(block: Block) -> float:
    """Return the inches that belong on one page with the heading above."""
    if isinstance(block, Picture):
        return _picture_in(block)
    return 0.6 if isinstance(block, Paragraph) and not block.strong else 1.6


def _block(flow: Flow, block: Block) -> None:
    if isinstance(block, Paragraph):
        if block.strong:
            flow.skip(0.1)
            flow.need(0.9)
        flow.text(block.text, 10.5 if block.strong else BODY_PT, bold=block.strong)
        flow.y += 0.05 if block.strong else 0.08
    elif isinstance(block, Bullets):
        for item in block.items:
            flow.text(item, BODY_PT, indent_in=0.18, mark="•")
            flow.y += 0.02
        flow.y += 0.06
    elif isinstance(block, Table):
        _table(flow, block)
    else:
        _picture(flow, block)


def _picture(flow: Flow, picture: Picture) -> None:
    """Draw title, picture and caption together on one page."""
    flow.skip(0.1)
    flow.need(_picture_in(picture))
    flow.text(picture.title, 10.5, bold=True)
    flow.y += 0.05
    _draw_at(flow.pages[-1], picture, flow.y)
    flow.y += picture.height_in + 0.06
    flow.text(picture.caption, SMALL_PT, colour=style.FAINT)
    flow.y += 0.12


def _picture_in(picture: Picture) -> float:
    """Return the inches that title, picture and caption take."""
    texts = [(picture.title, 10.5, True), (picture.caption, SMALL_PT, False)]
    lines = [
        len(style.wrap(text, style.TEXT_IN * 72, size, bold)) * size * LEADING / 72
        for text, size, bold in texts
    ]
    return sum(lines) + picture.height_in + 0.3


def _draw_at(page: Figure, picture: Picture, top_in: float) -> None:
    width, height = style.A4_IN
    below = height - top_in - picture.height_in
    spec = page.add_gridspec(
        3,
        3,
        width_ratios=[MARGIN_IN, style.WIDTH_IN, width - MARGIN_IN - style.WIDTH_IN],
        height_ratios=[top_in, picture.height_in, max(below, 1e-3)],
    )
    picture.draw(page.add_subfigure(spec[1, 1]))


def _table(flow: Flow, table: Table) -> None:
    """Set a table; its head is repeated on every page that it reaches."""
    scale = style.TEXT_IN / sum(table.widths)
    widths = [w * scale for w in table.widths]
    head = _cells(table.columns, widths, bold=True)
    step = TABLE_PT * LEADING / 72
    first = _row_height(_cells(table.rows[0], widths), step) if table.rows else 0
    flow.need(_row_height(head, step) + first + 0.1)
    _row(flow, head, widths, step, bold=True)
    for row in table.rows:
        cells = _cells(row, widths)
        if flow.need(_row_height(cells, step)):
            _row(flow, head, widths, step, bold=True)
        _row(flow, cells, widths, step)
    flow.y += 0.1


def _cells(texts: Sequence[str], widths: Sequence[float], bold: bool = False) -> list[list[str]]:
    """Return the lines of every cell of a row; what no page could hold is cut, and says so."""
    cells = []
    for text, width in zip(texts, widths, strict=True):
        space = (width - 2 * CELL_PAD_IN) * 72
        lines = style.wrap(text, space, TABLE_PT, bold)
        if len(lines) > MOST_CELL_LINES:
            lines = lines[:MOST_CELL_LINES] + style.wrap(LEFT_OUT, space, TABLE_PT)
        cells.append(lines)
    return cells


def _row_height(cells: list[list[str]], step: float) -> float:
    return max(len(lines) for lines in cells) * step + 2 * CELL_PAD_IN


def _row(
    flow: Flow, cells: list[list[str]], widths: Sequence[float], step: float, *, bold: bool = False
) -> None:
    left = MARGIN_IN
    for lines, width in zip(cells, widths, strict=True):
        for number, line in enumerate(lines):
            top = flow.y + CELL_PAD_IN + number * step + TABLE_PT * (LEADING - 1) / 3 / 72
            flow.write(left + CELL_PAD_IN, top, line, TABLE_PT, bold=bold)
        left += width
    flow.y += _row_height(cells, step)
    flow.rule(flow.y, style.FAINT if bold else style.RULE)


def _footers(pages: Sequence[Figure]) -> None:
    width, height = style.A4_IN
    for number, page in enumerate(pages, 1):
        y = 0.45 / height
        page.text(MARGIN_IN / width, y, TITLE, fontsize=7.5, color=style.FAINT)
        page.text(
            1 - MARGIN_IN / width, y, f"{number} of {len(pages)}", fontsize=7.5,
            color=style.FAINT, ha="right",
        )  # fmt: skip
