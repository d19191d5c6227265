"""The ``tune`` command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli_errors import sentences
from bench.cli_lists import split

if TYPE_CHECKING:
    from bench.tune_result import TuneResult


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(tune)


def tune(
    suite: Annotated[str, typer.Option(help="A suite of `list suites`.")] = "targets",
    layers: Annotated[str | None, typer.Option(help="Of `list layers`.")] = None,
    densities: Annotated[str | None, typer.Option(help="E.g. 0.25,0.125.")] = None,
    blocks: Annotated[str | None, typer.Option(help="E.g. 32,64.")] = None,
    dtype: Annotated[str, typer.Option(help="bfloat16, float16, tf32, float32.")] = "bfloat16",
    method: Annotated[
        str | None, typer.Option(help="hrbp2, hrbp2_pp, aligned, ...; the suite's.")
    ] = None,
    balance: Annotated[str | None, typer.Option(help="none, filters, both; the suite's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images; 128 when left out.")] = None,
    passes: Annotated[str, typer.Option(help="Any of fprop,dgrad,wgrad.")] = "fprop,dgrad,wgrad",
    minutes: Annotated[float | None, typer.Option(help="Stop cleanly after these.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of tune.jsonl; resumed.")] = Path(
        "results/tune"
    ),
    jobs: Annotated[int | None, typer.Option(help="Processes that compile; all cores.")] = None,
    merge: Annotated[
        list[Path] | None,
        typer.Option(help="Tune nothing: put a run's winners into the table. Repeatable."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="With --merge: the table; the library's when left out.")
    ] = None,
) -> None:
    """Find the fastest right tile of each problem of a suite on this CUDA device. A tile that the
    compiler spills, or that is wrong against the oracle, is never timed. Exits 0, 5 when a tile
    is wrong, fails or is not repeatable, 2 usage or no device, 130 interrupted.

    To try what was found: HRBP_TUNED=OUT/tuned.json. To keep it: --merge OUT, without a device.

    Example: python -m bench tune --suite targets --batch 256 --minutes 8 --out results/tune

    Example: python -m bench tune --merge results/tune
    """
    with sentences(f"what is tuned is in {out}, the same command goes on"):
        if merge:
            _merge(merge, table)
            return
        if table is not None:
            raise ValueError(f"expected --table with --merge, got it without: {table}")
        if minutes is not None and not minutes > 0:
            raise ValueError(f"expected --minutes above 0, got {minutes:g}")
        if jobs is not None and jobs < 1:
            raise ValueError(f"expected --jobs of at least 1, got {jobs}")
        from bench.suites import Sweep, passes_of

        sweep = Sweep(
            suite, "cuda", dtype, passes_of(split(passes, "passes", str) or ()),
            split(densities, "densities", float), split(blocks, "blocks", int),
            split(layers, "layers", str), method, balance, batch=batch,
        )  # fmt: skip
        result = _tune(sweep, out, minutes, jobs or os.cpu_count() or 1)
    _tell(result, out)
    raise typer.Exit(result.exit_code)


def _tune(sweep: Any, out: Path, minutes: float | None, jobs: int) -> TuneResult:
    from bench.tune_cases import tasks

    wanted, infeasible = tasks(sweep)
    for pattern in infeasible:
        print(f"note: {pattern.layer} left out: {pattern.reason}")

    import torch

    from bench.clocks import CudaClock
    from bench.tune import run_tune
    from bench.tune_device import CudaTuning
    from bench.tune_offline import Objections

    if not torch.cuda.is_available():
        raise ValueError(
            "expected a CUDA device, found none (torch.cuda.is_available() is false): tiles are "
            "tuned on the GPU that they are for"
        )
    clock = CudaClock()
    device = CudaTuning(sweep.dtype, clock.device.cache_bytes)
    objections = Objections(device.capability, jobs)
    return run_tune(
        wanted, device, clock, objections, out, minutes, lambda text: print(text, flush=True)
    )


def _tell(result: TuneResult, out: Path) -> None:
    from bench.tune_result import gain

    with sentences(f"what is tuned is in {out}, the same command goes on"):
        for torn in result.torn:
            print(f"note: a torn last line is left out: {torn[:120]}")
        for complaint in result.bad:
            print(complaint)
        print(f"{out}: {gain(result.records)}; {result.tuned} tuned now")
        if any(record.get("best") for record in result.records):
            from bench.tune_table import NAME, merge
            from hrbp_core.kernels.tuned import TABLE

            merge([out], out / NAME, TABLE)
            print(f"to try them: HRBP_TUNED={out / NAME}; to keep them in the library:")
            print(f"  python -m bench tune --merge {out}")
    if result.left:
        print(f"{result.left} problems left for another call; the same command goes on")


def _merge(folders: list[Path], table: Path | None) -> None:
    from bench.tune_table import merge
    from hrbp_core.kernels.tuned import TABLE

    path = TABLE if table is None else table
    found = merge(folders, path)
    print(
        f"{path}: {found.new} new, {found.changed} changed, {found.same} as they were; "
        f"{found.total} entries"
    )
    for count, words in (
        (found.other_code, "were tuned with other kernels than these"),
        (found.without, "had no right candidate and are left out"),
        (found.torn, "torn last lines are left out"),
    ):
        if count:
            print(f"note: {count} {words}")
