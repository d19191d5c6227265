"""The commands that look at a device itself: ``check`` and ``ceilings``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

USAGE = 2


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(check)
    app.command()(ceilings)


@contextmanager
def _sentences() -> Iterator[None]:
    """Turn errors a user can cause, or a device that is gone, into a sentence and exit code 2."""
    try:
        yield
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(USAGE) from error


def _words(text: str | None, name: str) -> list[str] | None:
    if text is None:
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ValueError(f"expected --{name} as a comma-separated list, got {text!r}")
    return words


def check(
    out: Annotated[Path, typer.Option(help="Folder of check.jsonl; resumed when it is there.")],
    device: Annotated[str, typer.Option(help="cuda or interpreter.")] = "cuda",
    dtypes: Annotated[str | None, typer.Option(help="bfloat16,float16,tf32,float32.")] = None,
    blocks: Annotated[str | None, typer.Option(help="E.g. 64,32x16; all when left out.")] = None,
    passes: Annotated[str, typer.Option(help="Any of fprop,dgrad,wgrad.")] = "fprop,dgrad,wgrad",
    minutes: Annotated[float | None, typer.Option(help="Stop cleanly after these.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Default tiles, whole blocks.")] = False,
    jobs: Annotated[int | None, typer.Option(help="Processes; 0 stays in this one.")] = None,
) -> None:
    """Check every legal tile of the GPU kernels against the oracle. Exits 0, or 5 when one is
    wrong, crashes or gives other bits in a second run.

    Example: python -m bench check --device cuda --quick --out results/gpu
    """
    with _sentences():
        from bench.suites import passes_of
        from bench.tile_check import describe, run_check, wanted_of

        if minutes is not None and not minutes > 0:
            raise ValueError(f"expected --minutes above 0, got {minutes:g}")
        if jobs is not None and jobs < 0:
            raise ValueError(f"expected --jobs of at least 0, got {jobs}")
        chosen = passes_of(tuple(_words(passes, "passes") or ()))
        names, sizes = _words(dtypes, "dtypes"), _words(blocks, "blocks")
        wanted = wanted_of(device, names, sizes, chosen, quick)
        result = run_check(wanted, device, out, minutes, jobs, lambda text: print(text, flush=True))
    print(", ".join(f"{n} {status}" for status, n in sorted(result.counts.items())) or "no tiles")
    for record in result.bad:
        print(describe(record))
    if result.left:
        print(f"{result.left} tiles left for another call; the same command goes on")
    raise typer.Exit(result.exit_code)


def ceilings(
    out: Annotated[Path, typer.Option(help="Folder of ceilings.json.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and smaller sizes.")] = False,
) -> None:
    """Measure what this machine can do at most: copy bandwidth, matrix rates, launch cost.

    Example: python -m bench ceilings --device cuda --out results/gpu
    """
    with _sentences():
        from rich.console import Console

        from bench.allocator import keep_freed_memory
        from bench.ceilings import clock_for, measure_ceilings
        from bench.ceilings_file import write
        from bench.ceilings_view import table
        from bench.environment import environment, pick_device, use_all_cores

        chosen = pick_device(device)
        use_all_cores()
        keep_freed_memory()
        found = measure_ceilings(chosen, clock_for(chosen), quick=quick)
        path = write(found, environment(chosen), out)
    Console().print(table(found))
    print(path)
