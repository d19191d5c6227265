"""The commands. Heavy imports wait inside them: ``--help`` needs neither torch nor pandas."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench import (
    cli_accuracy,
    cli_breakeven,
    cli_completion,
    cli_convert,
    cli_device,
    cli_export,
    cli_gate,
    cli_history,
    cli_profile,
    cli_quality,
    cli_report,
    cli_step,
    cli_tune,
)
from bench.cli_lists import split
from bench.progress import bar
from bench.records import WorkerError

app = typer.Typer(
    help="Measure block-sparse convolution against dense and against other sparse forms.",
    add_completion=False,  # typer's completes programs, not modules
    pretty_exceptions_enable=False,
)
cli_device.register(app)
cli_profile.register(app)
cli_export.register(app)
cli_gate.register(app)
cli_breakeven.register(app)
cli_quality.register(app)
cli_accuracy.register(app)
cli_convert.register(app)
cli_step.register(app)
cli_tune.register(app)
cli_history.register(app)
cli_completion.register(app)
cli_report.register(app)


PANELS = {  # how --help shows them
    "Begin": ("doctor", "list", "run", "report"),
    "Decide": ("accuracy", "step", "breakeven", "convert", "quality"),
    "Guard": ("gate", "promote", "trend", "export"),
    "Look closer": ("profile", "ceilings", "check", "tune"),
    "Shell": ("completion",),
}


class Exit:
    """Exit codes; the gate's are in ``bench.gate_result``."""

    USAGE = 2
    INTERRUPTED = 130


class Listing(StrEnum):
    """What ``list`` can show."""

    SUITES = "suites"
    LAYERS = "layers"
    IMPLS = "impls"


Out = Annotated[Path, typer.Option(help="Results folder; resumed when it is there.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


def main() -> None:
    """Run the command line."""
    cli_completion.answer_shells()
    app(complete_var=cli_completion.VARIABLE)


@app.callback(invoke_without_command=True)
def greet(context: typer.Context) -> None:
    """Measure block-sparse convolution against dense and against other sparse forms."""
    if context.invoked_subcommand is None:
        from bench import greeting

        greeting.greet(Console())


@contextmanager
def sentences() -> Iterator[None]:
    """Turn errors a user can cause into one sentence and exit code 2."""
    try:
        yield
    except (ValueError, OSError, ImportError, WorkerError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(Exit.USAGE) from error


@app.command("list")
def list_(
    what: Annotated[Listing, typer.Argument(help="What to list.")] = Listing.SUITES,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what can be measured.

    Example: python -m bench list layers --json
    """
    from bench import listing

    rows = listing.ROWS[what.value]()
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        Console().print(listing.table(what.value, rows))


@app.command()
def run(
    suite: Annotated[str, typer.Option(help="A suite of `list suites`.")] = "quick",
    out: Out = Path("results/quick"),
    device: Device = "auto",
    dtype: Annotated[
        str, typer.Option(help="float32, tf32, bfloat16, float16, float64.")
    ] = "float32",
    passes: Annotated[str, typer.Option(help="Any of fprop,dgrad,wgrad.")] = "fprop,dgrad,wgrad",
    impl_names: Annotated[
        str | None, typer.Option("--impls", help="Of `list impls`; the suite's when left out.")
    ] = None,
    densities: Annotated[str | None, typer.Option(help="E.g. 0.5,0.25.")] = None,
    blocks: Annotated[str | None, typer.Option(help="E.g. 16,32,64.")] = None,
    layers: Annotated[str | None, typer.Option(help="Of `list layers`.")] = None,
    method: Annotated[
        str | None, typer.Option(help="hrbp2, hrbp, hrbp2_pp, aligned, ...; the suite's.")
    ] = None,
    balance: Annotated[str | None, typer.Option(help="none, filters, both; the suite's.")] = None,
    layout: Annotated[
        str | None, typer.Option(help="canonical or standalone; the suite's.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images; 8 on a CPU, 128 on CUDA.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="CPU: hot, cold. CUDA: cold, hot, sustained, host.")
    ] = None,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Measure in a process of its own.")
    ] = False,
    limit: Annotated[
        float, typer.Option(help="With --isolate: seconds that one step may take.")
    ] = 120.0,
    energy: Annotated[
        bool, typer.Option("--energy", help="Joules a call, of dense and of ours.")
    ] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Keep a trace a cell.")] = False,
    lock_clocks: Annotated[
        int | None, typer.Option(help="Lock the GPU's clocks at these MHz meanwhile.")
    ] = None,
) -> None:
    """Measure the missing cells of a suite. Exits 0, or 5 when a cell is wrong or impossible,
    2 for usage or infrastructure, 130 when interrupted.

    Example: python -m bench run --suite quick --device cpu --out results/quick
    """
    with sentences():
        from bench import impls
        from bench.environment import pick_device
        from bench.suites import Sweep, find_suite, passes_of
        from bench.sweep import Options, run_sweep

        if not limit > 0:
            raise ValueError(f"expected --limit above 0 s, got {limit:g}")
        options = Options(mode, isolate, limit, energy, trace, lock_clocks)
        sweep = Sweep(
            suite=suite,
            device=pick_device(device),
            dtype=dtype,
            passes=passes_of(split(passes, "passes", str) or ()),
            densities=split(densities, "densities", float),
            blocks=split(blocks, "blocks", int),
            layers=split(layers, "layers", str),
            method=method,
            balance=balance,
            layout=layout,
            batch=batch,
        )
        own = find_suite(suite).impls or tuple(impls.available())
        names = split(impl_names, "impls", str) or own
        try:
            with bar("cases") as progress:
                result = run_sweep(sweep, names, out, progress, options)
        except KeyboardInterrupt:
            print(f"\ninterrupted; what is measured is in {out}; to go on:\n  {_command()}")
            raise typer.Exit(Exit.INTERRUPTED) from None
    _tell_run(result, out)
    raise typer.Exit(result.exit_code)


def _tell_run(result: Any, out: Path) -> None:
    for torn in result.torn:
        print(f"note: a torn last line was set aside in {out / 'results.torn'}: {torn[:120]}")
    for pattern in result.infeasible:
        print(f"note: {pattern.layer} left out: {pattern.reason}")
    for complaint in result.wrong:
        print(f"WRONG: {complaint}")
    counts = ", ".join(f"{n} {status}" for status, n in sorted(result.counts.items()))
    print(f"{out}: {counts}; {result.measured} measured now, {result.resumed} were there")
    for death in result.deaths:
        print(f"note: {death}")
    if result.measured:
        parts = sorted(result.seconds.items(), key=lambda item: -item[1])
        spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in parts if seconds >= 0.5)
        print(f"time neither warming up nor sampling: {result.overhead:.0%} ({spent})")


def _command() -> str:
    """Return the command line that is running, to be typed again."""
    return shlex.join(["python", "-m", "bench", *sys.argv[1:]])


@app.command()
def doctor() -> None:
    """Say what is here, what is missing and what to do about it. Exits 2 when something must be.

    Example: python -m bench doctor
    """
    from bench import doctor as examining

    found = examining.findings()
    examining.render(found, Console())
    raise typer.Exit(examining.exit_code(found))


def _arrange() -> None:
    """Order the commands as a user meets them, under the names of ``PANELS``."""
    places = {name: (panel, at) for panel, names in PANELS.items() for at, name in enumerate(names)}
    order = list(PANELS)
    for command in app.registered_commands:
        command.name = command.name or command.callback.__name__  # type: ignore[union-attr]
        command.rich_help_panel = places[command.name][0]
        told = " ".join(str(command.callback.__doc__).split())  # a sentence here, all of it there
        command.short_help = told.split(". ")[0].split(": ")[0].rstrip(".") + "."
    app.registered_commands.sort(
        key=lambda each: (order.index(places[str(each.name)][0]), places[str(each.name)][1])
    )


_arrange()
