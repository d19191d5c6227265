"""How results went over the folders of a comparison, where these are enough for a history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reports.compare import Folder
from reports.figures_trend import pictures
from reports.parts import Block, Paragraph


def trend_blocks(folders: Sequence[Folder]) -> Iterator[Block]:
    """Yield the history in the folders' order; nothing below four folders with cells.

    Fewer cannot show a step: it wants two folders on each side.
    """
    from bench.change_points import LEAST_RUNS  # scipy.stats takes 0.7 s to load
    from bench.gating.trend import trend
    from bench.trend_forms import sentence

    paths = [folder.path for folder in folders if len(folder.data.rows)]
    if len(paths) < LEAST_RUNS:
        return
    found = trend(paths)
    if not found.histories:
        yield Paragraph(sentence(found))
        return
    yield Paragraph(
        "The folders in the order given, oldest first; machines, suites and settings apart."
    )
    yield from pictures(found, paths, alone=False)
