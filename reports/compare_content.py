"""What a comparison of folders says, in order: sections of the blocks that the renderers know."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

from bench.frames import stacked
from bench.table import ROW_COLUMNS
from reports import style
from reports.compare import (
    SETTINGS,
    Folder,
    SharedCell,
    machine_differences,
    nearly_shared,
    single,
)
from reports.compare_findings import (
    CAUTION,
    cell_text,
    differing,
    findings,
    nearly_text,
)
from reports.compare_folders import (
    environment_blocks,
    folder_lines,
    lacking_blocks,
    source_blocks,
)
from reports.compare_networks import accuracy_blocks, step_overlay
from reports.compare_trend import trend_blocks
from reports.content import Section
from reports.data import ReportData, own_settings
from reports.figures_compare import speedup_pictures
from reports.parts import Block, Bullets, Paragraph, Table

MOST_ROWS = 40  # of a table where pages are short: two or three A4 pages
ASIDE_KEPT = ("layout", "pattern")  # settings that agree where batch, format and mode do not
NONE_SHARED = "No cell is shared, so there is nothing to draw here."


def sections(
    folders: Sequence[Folder], cells: Sequence[SharedCell], *, whole: bool
) -> list[Section]:
    """Return the comparison.

    Args:
        cells: what the folders share. whole: every cell in the tables; else the first ones, and
            how many are left out.
    """
    most = None if whole else MOST_ROWS
    named = (
        ("Findings", _first_page(folders, cells, whole)),
        ("Speed-up over dense, side by side", _speedups(folders, cells, most)),
        ("Times", _times(folders, cells, most)),
        ("Trend", trend_blocks(folders)),
        ("Accuracy", accuracy_blocks(folders)),
        ("Whole training steps", step_overlay(folders)),
        ("What some have and others lack", lacking_blocks(folders)),
        ("Machines and software", environment_blocks(folders)),
        ("What this was made from", source_blocks(folders)),
    )
    filled = [(title, tuple(blocks)) for title, blocks in named]
    return [Section(title, blocks) for title, blocks in filled if blocks]


def _first_page(
    folders: Sequence[Folder], cells: Sequence[SharedCell], whole: bool
) -> Iterator[Block]:
    names = style.listed(folder.label for folder in folders)
    yield Paragraph(
        f"A comparison of {names}. A cell is shared where layer shape, number format, layout, "
        "mode, pattern recipe and pass are the same. What is compared is our speed-up over each "
        f"folder's own dense reference; {folders[0].label} is what the others are held against. "
        "Nothing is averaged across folders."
    )
    yield Bullets(tuple(folder_lines(folders)))
    yield Paragraph("What it means", strong=True)
    yield Bullets(tuple(findings(folders, cells)))
    if cells:
        yield Paragraph("Apart by more than their intervals", strong=True)
        yield Bullets(tuple(differing(folders, cells)))
    yield Paragraph(CAUTION)
    if whole:
        yield Paragraph(
            "The table Every cell at the end has the cells of all folders and implementations; "
            "its column machine names the folder."
        )


def _speedups(
    folders: Sequence[Folder], cells: Sequence[SharedCell], most: int | None
) -> Iterator[Block]:
    labels = [folder.label for folder in folders]
    if not cells:
        yield from _near(nearly_shared(folders), labels, most)
        return
    yield from speedup_pictures(cells, labels, SETTINGS)
    yield Paragraph("Every shared cell", strong=True)
    order = _order(single(cells), most)
    ratios = tuple(f"{label} over {labels[0]}" for label in labels[1:])
    columns = ("cell", *(f"{label}: speed-up" for label in labels), *ratios)
    rows = tuple(
        (
            name,
            *(_span(cell.speedup(i)) for i in range(len(labels))),
            *(_ratio(cell, i) for i in range(1, len(labels))),
        )
        for name, cell in zip(_names(order, SETTINGS), order, strict=True)
    )
    widths = (2.4, *(1.4 for _ in labels), *(1.7 for _ in ratios))
    yield Table(columns, rows, widths)
    yield from _cut(len(single(cells)) - len(order))
    yield Paragraph(
        "In brackets the 95 % interval; of a ratio of speed-ups it is that of the two intervals' "
        "corners. Apart: the two intervals do not meet."
    )


def _near(cells: Sequence[SharedCell], labels: Sequence[str], most: int | None) -> Iterator[Block]:
    """Yield what agrees in all but batch, number format, mode and device; without any ratio."""
    if not cells:
        yield Paragraph(NONE_SHARED)
        return
    yield Paragraph(f"No cell is shared. {nearly_text(cells)} No ratio is made of them.")
    yield from speedup_pictures(cells, labels, ASIDE_KEPT, alike=False)
    order = _order(single(cells), most)
    rows = tuple(
        (name, *(_near_text(cell, i) for i in range(len(labels))))
        for name, cell in zip(_names(order, ASIDE_KEPT), order, strict=True)
    )
    columns = ("cell", *(f"{label}: speed-up" for label in labels))
    yield Table(columns, rows, (2.6, *(2.0 for _ in labels)))
    yield from _cut(len(single(cells)) - len(order))


def _near_text(cell: SharedCell, place: int) -> str:
    row = cell.rows[place]
    told = ", ".join(str(row[name]) for name in ("batch", "dtype", "mode"))
    return f"{_span(cell.speedup(place))}, {told}"


def _order(cells: Sequence[SharedCell], most: int | None) -> Sequence[SharedCell]:
    """Return the cells; where there are too many, those that lie furthest apart come first."""
    if most is None or len(cells) <= most:
        return cells
    return sorted(cells, key=_apart, reverse=True)[:most]


def _apart(cell: SharedCell) -> float:
    return max(abs(math.log(cell.ratio(i)[0])) for i in range(1, len(cell.rows)))


def _cut(number: int) -> Iterator[Block]:
    if number:
        yield Paragraph(
            f"Shown are the cells whose speed-ups lie furthest apart; "
            f"{style.counted(number, 'shared cell')} left out here, the HTML page has all of them."
        )


def _names(cells: Sequence[SharedCell], settings: Sequence[str]) -> list[str]:
    """Return the cells' names; of each setting what not all cells have."""
    values = {n: {str(cell[n]) for cell in cells} for n in settings}
    told = []
    for cell in cells:
        own = [own_settings(str(cell[n]), v) for n, v in values.items() if len(v) > 1]
        told.append(" · ".join([cell_text(cell), *own]))
    return told


def _span(span: tuple[float, float, float]) -> str:
    return f"{style.times(span[0])} ({style.interval(*span[1:])})"


def _ratio(cell: SharedCell, place: int) -> str:
    value, low, high = cell.ratio(place)
    return _span((value, low, high)) + (" apart" if low > 1 or high < 1 else "")


def _times(
    folders: Sequence[Folder], cells: Sequence[SharedCell], most: int | None
) -> Iterator[Block]:
    alone = single(cells)
    if not alone:
        return
    apart = [machine_differences(folders[0], folder) for folder in folders]
    labels = [folder.label for folder in folders]
    same = [i for i in range(1, len(folders)) if not apart[i]]
    for number in range(1, len(folders)):
        if apart[number]:
            yield Paragraph(
                f"{labels[number]} was made on another machine than {labels[0]}: they differ in "
                f"{style.listed(apart[number])}. Their times stand side by side and are not "
                "divided by each other; the ratios of speed-ups above are what compares."
            )
    order = _order(alone, most)
    rows = tuple(
        (
            name,
            *(_time_text(cell, i) for i in range(len(folders))),
            *(_time_ratio(cell, i) for i in same),
        )
        for name, cell in zip(_names(order, SETTINGS), order, strict=True)
    )
    ratios = (f"{labels[i]} over {labels[0]}: ours; dense" for i in same)
    columns = ("cell", *(f"{label}: ours; dense" for label in labels), *ratios)
    yield Table(columns, rows, (2.4, *(1.7 for _ in labels), *(1.2 for _ in same)))
    yield from _cut(len(alone) - len(order))
    yield Paragraph(
        "Medians, of ours with the 95 % interval. A ratio of times above 1× is slower; it stands "
        "only where both folders name the same machine."
    )


def _time_text(cell: SharedCell, place: int) -> str:
    row = cell.rows[place]
    ours, low, high, dense = (
        style.duration(row[name]) for name in ("median_s", "low_s", "high_s", "dense_s")
    )
    return f"{ours} ({low} to {high}); {dense}"


def _time_ratio(cell: SharedCell, place: int) -> str:
    ours, dense = (style.times(cell.time_ratio(place, dense=d)) for d in (False, True))
    return f"{ours}; {dense}"


def every_cell(folders: Sequence[Folder]) -> ReportData:
    """Return the cells of all folders as one folder's, for a table that names the folder.

    Environments are renamed to the folder's label; tables that would mix folders are empty.
    """
    rows, missing, names = [], [], {}
    for number, folder in enumerate(folders):
        key = f"{number}"
        names[key] = folder.label
        rows.append(folder.data.rows.assign(environment=key))
        missing.append(folder.data.missing.assign(environment=key))
    first = folders[0].data
    empty = {
        name: getattr(first, name).iloc[:0]
        for name in ("totals", "coverage", "runs", "summary", "gaps", "attainment", "ceilings",
                     "paying", "quality")
    }  # fmt: skip
    return dataclasses.replace(
        first, rows=stacked(rows, ROW_COLUMNS), missing=stacked(missing, ROW_COLUMNS), names=names,
        breakeven=[], optimum=[], steps=[], gate=None, self_test=None, environments={}, torn=[],
        sources=[], **empty,
    )  # fmt: skip
