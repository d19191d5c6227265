"""What a comparison of folders says, in plain words; every figure comes from the shared cells."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence

from bench.table import ALL
from reports import style
from reports.compare import (
    CASE,
    Folder,
    SharedCell,
    Span,
    machine_differences,
    mean_ratio,
    mean_time_ratio,
    nearly_shared,
    shared_cells,
    single,
    split,
)
from reports.figures_compare import case_text
from reports.picture import PANELS

MOST_NAMED = 6  # cells that a sentence names
LINE_LENGTH = 100
CAUTION = (
    "Caution: these runs were made apart from each other. On machines that are shared, two runs of "
    "one and the same revision lie 10 to 20 % apart, which no interval of a single run shows. What "
    "is said here is where to look; whether a revision is slower is decided by: "
    "python -m bench gate"
)
ASIDE = {"batch": "images a batch", "dtype": "number format", "mode": "mode", "device": "device"}


def headline(folders: Sequence[Folder], cells: Sequence[SharedCell]) -> list[str]:
    """Return the findings as lines of at most 100 characters, for a terminal."""
    told = [shared_text(folders, cells), *_nearly(folders, cells), *speedups(folders, cells)]
    told += [CAUTION] if cells else []
    return [line for text in told for line in textwrap.wrap(text, LINE_LENGTH)]


def findings(folders: Sequence[Folder], cells: Sequence[SharedCell]) -> Iterator[str]:
    """Yield the sentences, the counts of what is shared first."""
    yield shared_text(folders, cells)
    yield from _nearly(folders, cells)
    yield from speedups(folders, cells)
    yield from times(folders, cells)
    yield from _notes(folders, cells)


def shared_text(folders: Sequence[Folder], cells: Sequence[SharedCell]) -> str:
    """Return how many cells all folders share."""
    names = style.listed(folder.label for folder in folders)
    alone = single(cells)
    if not alone:
        return f"{names} share no cell with a speed-up: nothing is compared cell by cell."
    layers = {(cell["layer"], cell["shape"]) for cell in alone}
    cases = {tuple(cell[n] for n in CASE) for cell in alone}
    text = (
        f"{names} share {style.counted(len(alone), 'cell')} of {style.counted(len(cases), 'case')} "
        f"and {style.counted(len(layers), 'layer')}."
    )
    if len(folders) > 2:
        pairs = [
            f"{other.label} {len(single(shared_cells([folders[0], other])))}"
            for other in folders[1:]
        ]
        text += f" With {folders[0].label} alone share: {', '.join(pairs)}."
    return text


def _nearly(folders: Sequence[Folder], cells: Sequence[SharedCell]) -> Iterator[str]:
    near = [] if cells else nearly_shared(folders)
    if near:
        yield (
            f"{nearly_text(near)} They are shown beside each other, and no ratio is made of them: "
            "measured with equal settings they would be compared (options of python -m bench run)."
        )


def speedups(folders: Sequence[Folder], cells: Sequence[SharedCell]) -> Iterator[str]:
    """Yield, for each folder after the first and each pass, how its speed-ups compare."""
    for number, folder in enumerate(folders[1:], 1):
        for name in PANELS:
            part = [cell for cell in cells if cell["pass"] == name]
            if part:
                yield _speedup_text(folders[0].label, folder.label, name, part, number)


def _speedup_text(
    first: str, other: str, name: str, cells: Sequence[SharedCell], number: int
) -> str:
    above, rest, below = split(cells, number)
    which, noun = ("fprop + dgrad + wgrad", "case") if name == ALL else (name, "cell")
    return (
        f"{which}: the speed-ups over dense of {other} are {_ratio(mean_ratio(cells, number))} "
        f"those of {first}. Of {style.counted(len(cells), f'shared {noun}')}, {other} is faster "
        f"over dense on {len(above)} beyond both intervals, {first} on {len(below)}; {len(rest)} "
        "undecided."
    )


def _ratio(span: Span) -> str:
    value, low, high = span
    known = "" if math.isnan(low) else f" (95 %: {style.interval(low, high)})"
    return style.times(value) + known


def differing(folders: Sequence[Folder], cells: Sequence[SharedCell]) -> Iterator[str]:
    """Yield the cells whose intervals do not meet, the largest differences first."""
    for number, folder in enumerate(folders[1:], 1):
        above, _, below = split(single(cells), number)
        order = sorted([*above, *below], key=lambda c: -abs(math.log(c.ratio(number)[0])))
        start = f"{folder.label} against {folders[0].label}: "
        if not order:
            yield start + "no shared cell differs by more than the two intervals."
            continue
        left = len(order) - MOST_NAMED
        more = f"; the {MOST_NAMED} furthest apart" if left > 0 else ""
        yield f"{start}{style.counted(len(order), 'cell')} of {len(single(cells))}{more}:"
        yield from (f"{cell_text(c)}: {_ratio(c.ratio(number))}" for c in order[:MOST_NAMED])


def cell_text(cell: SharedCell) -> str:
    """Return case and pass."""
    return f"{case_text(cell)}, {cell['pass']}"


def times(folders: Sequence[Folder], cells: Sequence[SharedCell]) -> Iterator[str]:
    """Yield how absolute times compare, or in what the machines differ."""
    alone = single(cells)
    for number, folder in enumerate(folders[1:], 1) if alone else ():
        first = folders[0].label
        differences = machine_differences(folders[0], folder)
        if differences:
            yield (
                f"{folder.label} and {first} are different machines ({style.listed(differences)}): "
                "their times are shown, and no ratio is made of them."
            )
            continue
        ours, dense = (mean_time_ratio(alone, number, dense=d) for d in (False, True))
        yield (
            f"{folder.label} and {first} name the same machine. Over the shared cells ours took "
            f"{_ratio(ours)} the time in {folder.label}, dense {_ratio(dense)}: where dense moved "
            "too, the machine did, or its software. Two machines of one name look alike here."
        )


def _notes(folders: Sequence[Folder], cells: Sequence[SharedCell]) -> Iterator[str]:
    for folder in folders:
        if folder.doubled:
            yield (
                f"{folder.label}: {style.counted(folder.doubled, 'cell')} stored again under "
                "another environment, suite or layer name; the last one counts."
            )
    other = [c for c in single(cells) if len({r["stored_weights"] for r in c.rows}) > 1]
    if other:
        yield (
            f"In {style.counted(len(other), 'shared cell')} the recipe gave another number of "
            f"stored weights; the first is {cell_text(other[0])}."
        )


def nearly_text(cells: Sequence[SharedCell]) -> str:
    """Return in what the cells differ that agree in all but batch, number format and mode."""
    told = []
    for name, words in ASIDE.items():
        values = [
            sorted({str(row[name]) for row in rows})
            for rows in zip(*(cell.rows for cell in cells), strict=True)
        ]
        if len({tuple(v) for v in values}) > 1:
            told.append(f"{words} ({' against '.join('/'.join(v) for v in values)})")
    return (
        f"{style.counted(len(single(cells)), 'cell')} agree in layer, block, sparsity, pattern, "
        f"layout and pass, but differ in {style.listed(told or ['their settings'])}."
    )
