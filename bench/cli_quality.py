"""The ``quality`` command."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.progress import bar

USAGE, INTERRUPTED = 2, 130


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(quality)


def quality(
    preset: Annotated[str, typer.Option(help="small, full or exhaustive.")] = "small",
    scores: Annotated[
        str | None, typer.Option(help="Families, networks, .pt or .npy files, by commas.")
    ] = None,
    blocks: Annotated[str | None, typer.Option(help="E.g. 16,32,64.")] = None,
    densities: Annotated[str | None, typer.Option(help="E.g. 0.5,0.25.")] = None,
    methods: Annotated[str | None, typer.Option(help="E.g. hrbp2,hrbp,sorted.")] = None,
    shapes: Annotated[
        str | None, typer.Option(help="Synthetic layers, KxCxRxS: 512x512x3x3,...")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws and the trainings.")] = None,
    out: Annotated[Path, typer.Option(help="Results folder; resumed.")] = Path("results/quality"),
) -> None:
    """Measure how much score each grouping retains, and how long it takes. CPU.
    Exits 0, 2 usage, 130 interrupted.

    Example: python -m bench quality --preset full --out results/quality
    """
    from bench.cli_lists import split

    try:
        if preset == "exhaustive":
            _exhaustive(out, scores, blocks, densities, methods, shapes, seed)
            return
        from bench.quality.plan import make_plan, shape_of
        from bench.quality.run import run_quality

        plan = make_plan(
            preset,
            scores=split(scores, "scores", str),
            blocks=split(blocks, "blocks", int),
            densities=split(densities, "densities", float),
            methods=split(methods, "methods", str),
            shapes=split(shapes, "shapes", shape_of),
            seed=seed,
        )
        with bar("cells") as progress:
            lines = run_quality(plan, out, progress)
        _render(lines)
        print(f"kept in {out}; to draw: python -m bench report {out}")
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(USAGE) from error
    except KeyboardInterrupt:
        print(f"\ninterrupted; what is done is in {out}, the same command goes on")
        raise typer.Exit(INTERRUPTED) from None


def _exhaustive(out: Path, *changes: Any) -> None:
    """Try every grouping of small layers, and print the share of the best that ours reach."""
    if any(change is not None for change in changes):
        raise ValueError("expected --out alone with --preset exhaustive: its layers are fixed")
    from bench.quality.optimum import run_optimum, told

    with bar("layers") as progress:
        lines = run_optimum(out, progress)
    for sentence in told(lines):
        print(sentence)
    print(f"kept in {out}; to draw: python -m bench report {out}")


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"


def _render(lines: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from bench.quality.table import frame, orders, summary

    rows = frame(lines)
    shown = Table("method", "cells", "retained", "of unstructured", "density/asked", "dgrad", "s")
    for row in summary(rows).sort_values("retained", ascending=False).to_dict("records"):
        survives = {True: "dense", False: f"{row['dgrad_fill']:.0%} full"}
        shown.add_row(
            row["method"], str(row["cases"]), f"{row['retained']:.3f}",
            _share(row["of_unstructured"]), f"{row['density_ratio']:.2f}",
            survives.get(row["survives_dgrad"], "no blocks"), f"{row['regroup_s']:.2f}",
        )  # fmt: skip
    Console().print(shown)
    refused = int((rows["status"] != "ok").sum())
    if refused:
        print(f"{refused} of {len(rows)} cells impossible (their reasons are in the lines)")
    for order in orders(rows):
        if order["cases"]:
            print(
                f"{order['method']} at least {order['other']}: "
                f"{order['cases'] - len(order['broken'])} of {order['cases']} cells, "
                f"{100 * order['mean_gain']:+.2f} points on average"
            )
