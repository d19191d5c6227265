"""The command ``report``: a folder of results as pages, or several folders side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli_errors import sentences

COMPARISON = Path("results/compare")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="A results folder; several with --compare.", metavar="DIR..."),
    ],
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Lay the folders side by side, against the first; before, between or after them.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the files; DIR/report, with --compare results/compare.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Draw PDF, HTML, Markdown and PNG from a results folder, or from several compared. Needs no
    torch. Exits 0, 2 for usage or folders that cannot be read or written.

    Example: python -m bench report results/quick

    Example: python -m bench report results/monday results/tuesday --compare
    """
    with sentences("the files may be incomplete; run it again"):
        if len(folders) > 1 and not compare:
            raise ValueError(f"expected one folder, or --compare with several; got {len(folders)}")
        from reports import build_comparison, build_report

        if compare:
            files = build_comparison(folders, out or COMPARISON)
        else:
            files = build_report(folders[0], out)
    for line in files.headline:
        print(line)
    print(f"report: {files.pdf}")
    print(f"        {files.html}")
    if not compare and (folders[0] / "results.jsonl").exists():
        print(f"gate against this run: python -m bench gate --base {folders[0]} --head OTHER")
