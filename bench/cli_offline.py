"""What ``profile --offline`` compiles, prints and writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from bench.offline_table import Job
    from bench.profile import Outcome, Row
    from bench.records import Case

WIDTH = 190  # columns of a table that goes to a file
COLUMNS = (
    "pass", "dtype", "math", "block", "tile", "variant", "arch", "regs", "stack", "shared", "warps",
    "progs", "matrix", "async", "loads", "2-byte", "loop", "instrs", "",
)  # fmt: skip
LEGEND = (
    "regs and stack (bytes) a thread; shared: bytes a program; progs: programs a multiprocessor; "
    "async, loads: copies to shared memory and loads from global memory, bits a thread:count; "
    "loop: instructions of the innermost loop with the most matrix instructions"
)


@dataclass(frozen=True)
class Request:
    """What was asked for, as it was typed."""

    layer: str | None
    block: int | None
    density: float | None
    passes: str | None
    dtype: str | None
    batch: int | None
    tile: str | None
    arch: str
    gpu_sms: int
    rate_tflops: float | None
    bandwidth_tbs: float | None


def split(text: str, name: str) -> tuple[str, ...]:
    """Return a comma-separated option's parts, each once."""
    parts = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not parts:
        raise ValueError(f"expected --{name} as a comma-separated list, got {text!r}")
    return parts


def profile_offline(asked: Request, processes: int) -> tuple[Outcome, list[dict[str, Any]]]:
    """Compile what was asked for; return what came of it and each case's floor.

    Raises:
        ValueError: anything unknown. RuntimeError: the kernels are interpreted here.
    """
    from bench.occupancy import arch_of
    from bench.suites import passes_of, suite_of
    from hrbp_core.shapes import Pass

    archs = [arch_of(name).name for name in split(asked.arch, "arch")]
    passes = tuple(Pass) if asked.passes is None else passes_of(split(asked.passes, "pass"))
    suite = None if asked.layer is None else suite_of(asked.layer).name

    from bench import offline_table  # from here on with torch: what is misspelt is told at once
    from bench import profile as profiling
    from bench.offline_table import DTYPES

    dtypes = split(asked.dtype or ("bfloat16" if asked.layer else ",".join(DTYPES)), "dtype")
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise ValueError(f"expected a dtype of {', '.join(DTYPES)}; got {dtype!r}")
    jobs: list[Job] = []
    cases: list[Case] = []
    missing: list[str] = []
    if asked.layer is None or suite is None:
        jobs, missing = offline_table.all_tiles(archs, passes, dtypes)
    else:
        cases = _cases(asked, asked.layer, suite, dtypes, passes)
    for case in cases:
        jobs += offline_table.layer_jobs(case, archs, asked.gpu_sms, asked.tile)
    with _bar() as progress:
        outcome = profiling.profile_jobs(jobs, processes, progress)
    return profiling.Outcome(outcome.rows, missing, outcome.compiled), [
        _floor(each, asked) for each in cases
    ]


def _cases(
    asked: Request, layer: str, suite: str, dtypes: tuple[str, ...], passes: tuple[Any, ...]
) -> list[Case]:
    """Return the layer's cases, as a sweep on a GPU would have them."""
    from bench.suites import Sweep, feasible_cases
    from hrbp_core.kernels.tiles import check_block

    block, density = asked.block, asked.density
    if block is None or density is None:
        raise ValueError("expected --block and --density with --layer")
    check_block((block, block))
    found: list[Case] = []
    for dtype in dtypes:
        sweep = Sweep(
            suite, "cuda", dtype=dtype, passes=passes, densities=(density,),
            blocks=(block,), layers=(layer,), batch=asked.batch,
        )  # fmt: skip
        found += feasible_cases(sweep)
    return found


def _floor(case: Case, asked: Request) -> dict[str, Any]:
    from bench import profile as profiling

    rate = asked.rate_tflops or profiling.RATE_TFLOPS.get(case.dtype)
    return profiling.floor(case, rate, asked.bandwidth_tbs or profiling.BANDWIDTH_TBS)


def _line(done: int, total: int, label: str) -> None:
    if done % 50 == 0 or done == total:
        print(f"[{done}/{total}] {label}", file=sys.stderr)


@contextmanager
def _bar() -> Iterator[Callable[[int, int, str], None]]:
    """Offer a progress callback (done, total, label): a bar, or a line in fifty."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, label: bar.update(
            task, completed=done, total=total, description=label
        )


def write(
    files: list[Path], outcome: Outcome, asked: Request, all_tiles: bool, floors: list[Any]
) -> None:
    """Write the report as JSON into each of the files."""
    from bench.profile import document

    request = {"all_tiles": all_tiles, **asdict(asked)}
    text = json.dumps(document(outcome, request, floors), indent=1, allow_nan=False) + "\n"
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def render(outcome: Outcome, floors: list[dict[str, Any]]) -> None:
    """Print a row a launch, each case's floor, and what offends."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, no_wrap=column != "")
    for row in outcome.rows:
        table.add_row(*_cells(row), style="red" if row.offences else None)
    console.print(table)
    console.print(LEGEND, highlight=False)
    for model in floors:
        console.print(_sentence(model), highlight=False)
    offenders = outcome.offenders
    counts = ", ".join(f"{len(names)} {offence}" for offence, names in offenders.items())
    console.print(
        f"{len(outcome.rows)} launches, {outcome.compiled} compiled: {counts}", highlight=False
    )
    for offence, names in offenders.items():
        for name in names:
            print(f"{offence.upper()}: {name}")


def _cells(row: Row) -> tuple[str, ...]:
    job, facts = row.job, row.facts
    tile = "sum_parts" if job.summing else job.tile.name
    block = "x".join(map(str, job.problem.block))
    named = (str(job.conv_pass), job.dtype, job.arithmetic, block, tile, job.variant, job.arch)
    if facts is None:
        return (*named, *[""] * 11, f"FAILED {row.reason}")
    counts = (facts.matrix, facts.async_loads, facts.loads)
    return (
        *named, str(facts.registers), str(facts.stack_bytes), str(facts.shared_bytes),
        str(facts.warps), str(facts.programs),
        *(" ".join(f"{key}:{n}" for key, n in each.items()) or "-" for each in counts),
        str(facts.two_byte_loads), str(facts.hot_loop or "-"), str(facts.instructions),
        ", ".join(row.offences),
    )  # fmt: skip


def _sentence(model: dict[str, Any]) -> str:
    rate, floor_s = model["assumed_rate_tflops"], model["floor_s"]
    ceilings = f"{model['assumed_bandwidth_tbs']:g} TB/s"
    if rate is None:
        told = f"bytes alone {model['memory_s'] * 1e6:.1f} µs; no rate is assumed for this dtype"
    else:
        bound = "matrix rate" if model["compute_s"] >= model["memory_s"] else "bytes"
        told = f"floor time {floor_s * 1e6:.1f} µs, bound by {bound}"
        ceilings += f" and {rate:g} TFLOP/s"
    return f"{model['pass']}: {told} (a model, no measurement; assumed ceilings: {ceilings})"
