"""The command that hands results to other programs: ``export``."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

USAGE = 2


class Form(StrEnum):
    """What ``export`` can write; ``bench.export.FILES`` has the same names."""

    PYTEST_BENCHMARK = "pytest-benchmark"
    CSV = "csv"
    PARQUET = "parquet"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(export)


def export(
    folder: Annotated[Path, typer.Argument(help="A results folder.")],
    form: Annotated[Form, typer.Option("--format", help="What to write.")] = Form.PYTEST_BENCHMARK,
    out: Annotated[
        Path | None, typer.Option(help="The file; benchmark.json or results.* in the folder.")
    ] = None,
    environment: Annotated[
        str | None, typer.Option(help="Id of the only environment to take.")
    ] = None,
) -> None:
    """Write results for pytest-benchmark, or as a table. Needs no torch.

    `pytest-benchmark compare A/benchmark.json B/benchmark.json` then sets two folders side by
    side; cells without a time are in the file too, with their reasons.

    Example: python -m bench export results/quick --format csv
    """
    try:
        from bench import export as exporting

        done = exporting.export(folder, form.value, out, environment)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(USAGE) from error
    for torn in done.torn:
        print(f"note: a torn last line was left out: {torn[:120]}")
    counts = ", ".join(f"{n} {status}" for status, n in sorted(done.counts.items()))
    print(f"{done.path}: {counts}")
    if form is Form.PYTEST_BENCHMARK and not done.counts.get("ok"):
        print("note: no cell is ok, so the file has no benchmark to compare")
