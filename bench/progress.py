"""A bar with the time left on a terminal; lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console


@contextmanager
def bar(unit: str) -> Iterator[Callable[[int, int, str], None]]:
    """Offer a progress callback (done, total, label): a bar with the time left, or lines."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total, text: print(f"[{done}/{total}] {text}", file=sys.stderr)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        Left(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, text: bar.update(
            task, completed=done, total=total, description=text
        )
