"""The commands about stored results over time: ``promote`` and ``trend``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli_errors import sentences

if TYPE_CHECKING:
    from bench.history import Trend


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(promote)
    app.command()(trend)


def promote(
    folder: Annotated[Path, typer.Argument(help="A results folder.", metavar="DIR")],
    name: Annotated[
        str | None, typer.Option(help="Of the base; the results' short commit.")
    ] = None,
    into: Annotated[Path, typer.Option(help="The folder of bases.")] = Path("baselines"),
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Take wrong cells, torn lines, uncommitted changes, no or several commits; "
            "the base says so.",
        ),
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of a base of this name.")
    ] = False,
) -> None:
    """Keep results as a base that the gate compares with: INTO/NAME. Exits 0, 2 refused.

    Example: python -m bench promote results/quick --name v1
    """
    with sentences("no base was made"):
        from bench.gating import promotion

        made = promotion.promote(folder, into, name, force=force, replace=replace)
    cells = ", ".join(f"{n} {status}" for status, n in made.cells.items())
    print(f"{into / made.name}: {cells}; commit {', '.join(made.commits) or 'unknown'}")
    for fault in made.forced:
        print(f"forced: {fault}")
    if made.dirty is None:
        print("note: whether there were uncommitted changes is not known")


def trend(
    folders: Annotated[
        list[Path], typer.Argument(help="Results folders, oldest first.", metavar="DIR...")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("results/trend"),
    impl: Annotated[str, typer.Option(help="Of `list impls`.")] = "block_sparse",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how results went over folders, and where they stepped. Exits 0 no step to slower,
    1 a pass became slower and stayed so, 2 usage, 4 no two folders are comparable.

    Example: python -m bench trend results/monday results/tuesday results/wednesday
    """
    with sentences("the files may be incomplete; run it again"):
        from rich.console import Console

        from bench import trend_forms
        from bench.gating import trend as trending

        found = trending.trend(folders, impl)
        written = _write(found, folders, out) if found.histories else []
    if as_json:
        print(trend_forms.to_json(found), end="")
    else:
        trend_forms.render(found, Console())
        if written:
            print(f"files: {', '.join(map(str, written))}")
    if not found.histories:
        print(f"error: {trend_forms.sentence(found)}", file=sys.stderr)
    raise typer.Exit(found.exit_code)


def _write(found: Trend, folders: list[Path], out: Path) -> list[Path]:
    """Write JSON, CSV, Markdown and the figures; return their paths."""
    from bench import trend_forms
    from bench.jsonl import make_folder, replace_file
    from reports import figures_trend

    make_folder(out)
    pictures = figures_trend.pictures(found, folders)
    drawn = figures_trend.write(pictures, out)
    names = [f"{picture.name}.png" for picture in pictures]
    captions = [picture.caption for picture in pictures]
    texts = {
        "trend.json": trend_forms.to_json(found),
        "trend.csv": trend_forms.to_csv(found),
        "trend.md": trend_forms.to_markdown(found, names, captions),
    }
    for name, text in texts.items():
        replace_file(out / name, text)
    return [*(out / name for name in texts), *drawn]
