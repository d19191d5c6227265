"""The ``breakeven`` command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.progress import bar

if TYPE_CHECKING:
    from bench.breakeven import Point

USAGE, WRONG, INTERRUPTED = 2, 5, 130


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(breakeven)


def breakeven(
    layer: Annotated[str, typer.Option(help="Of `list layers`.")],
    block: Annotated[int, typer.Option(help="16, 32, 64 or 128 on a GPU.")],
    conv_pass: Annotated[str, typer.Option("--pass", help="fprop, dgrad, wgrad, all.")] = "all",
    dtype: Annotated[str, typer.Option(help="float32, tf32, bfloat16, float16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch: Annotated[int | None, typer.Option(help="Images; 8 on a CPU, 128 on CUDA.")] = None,
    impl: Annotated[str, typer.Option(help="Of `list impls`.")] = "block_sparse",
    method: Annotated[str, typer.Option(help="hrbp2, hrbp, hrbp2_pp, aligned, ...")] = "hrbp2",
    balance: Annotated[str, typer.Option(help="none, filters, both.")] = "none",
    layout: Annotated[str, typer.Option(help="canonical or standalone.")] = "canonical",
    mode: Annotated[
        str | None, typer.Option(help="CPU: hot, cold. CUDA: cold, hot, sustained, host.")
    ] = None,
    points: Annotated[int, typer.Option(help="Densities measured, 5 to 9.")] = 7,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="To ±0.5 %, 10 s an implementation, not ±2 %.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Results folder; resumed.")] = Path("results/breakeven"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find the sparsity from which on a sparse implementation is faster than dense.
    Exits 0, 2 usage or a point that fails, 5 a wrong result, 130 interrupted.

    Example: python -m bench breakeven --layer conv4_3x3 --block 32 --pass all
    """
    from bench.breakeven import sentence

    with _sentences(out):
        from bench.breakeven_run import Question, find
        from bench.environment import pick_device

        question = Question(
            layer, block, conv_pass, dtype, pick_device(device), impl, batch, layout, method,
            balance, mode, points, recorded,
        )  # fmt: skip
        with bar("points") as progress:
            result = find(question, out, progress)
    if as_json:
        from dataclasses import asdict

        print(json.dumps(asdict(question) | asdict(result), indent=1))
        return
    _render(result.points)
    what = f"break-even of {impl} on {layer} ({conv_pass}, {dtype}, blocks {block})"
    print(sentence(result, what))
    print(f"kept in {out}")


@contextmanager
def _sentences(out: Path) -> Iterator[None]:
    """Turn what goes wrong into a sentence and an exit code; show the points before it."""
    from bench.breakeven import Failed

    try:
        yield
    except Failed as error:
        _render(error.points)
        print(f"error: {error}; the points before it are in {out}", file=sys.stderr)
        wrong = error.status in ("wrong", "impossible")
        raise typer.Exit(WRONG if wrong else USAGE) from error
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(USAGE) from error
    except KeyboardInterrupt:
        told = f"interrupted; the points before it are in {out}, the same command goes on"
        print(f"\n{told}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _render(points: tuple[Point, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not points:
        return
    shown = Table("sparsity", "blocks", "dense µs", "sparse µs", "speed-up", "95 % interval")
    for p in points:
        cells: tuple[Any, ...] = (
            f"{p.sparsity:.3f}", str(p.blocks), f"{p.dense_s * 1e6:.1f}", f"{p.impl_s * 1e6:.1f}",
            f"{p.speedup:.2f}", f"{p.low:.2f} to {p.high:.2f}",
        )  # fmt: skip
        shown.add_row(*cells)
    Console().print(shown)
