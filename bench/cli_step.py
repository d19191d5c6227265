"""The ``step`` command."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.progress import bar

if TYPE_CHECKING:
    from bench.stepping.asked import Asked

USAGE, WRONG, INTERRUPTED = 2, 5, 130
MS, MIB = 1e3, 2**20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(step)


def step(
    model: Annotated[str, typer.Option(help="resnet18, resnet50, vgg16, wrn28_10, ...")],
    batch: Annotated[int | None, typer.Option(help="Images; 16 on a CPU, 128 on CUDA.")] = None,
    density: Annotated[
        str, typer.Option(help="Of the sparse layers; several: 0.25,0.125.")
    ] = "0.25",
    block: Annotated[int, typer.Option(help="16, 32, 64 or 128 on a GPU.")] = 32,
    method: Annotated[str, typer.Option(help="hrbp2, hrbp, hrbp2_pp, aligned, ...")] = "hrbp2",
    balance: Annotated[str, typer.Option(help="none, filters, both.")] = "none",
    scores: Annotated[str, typer.Option(help="random, snip, magnitude.")] = "random",
    allocation: Annotated[str, typer.Option(help="uniform, erk, global.")] = "uniform",
    seed: Annotated[int, typer.Option(help="Of weights, batch and searches.")] = 0,
    mode: Annotated[
        str, typer.Option(help="eager; compile; graph, on CUDA; several: graph,eager.")
    ] = "eager",
    amp: Annotated[
        bool | None, typer.Option("--amp/--no-amp", help="bfloat16 autocast; on CUDA by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    trials: Annotated[int, typer.Option(help="At most; each is two fresh processes.")] = 5,
    budget: Annotated[float, typer.Option(help="Minutes, after which no trial begins.")] = 10.0,
    energy: Annotated[
        bool, typer.Option("--energy/--no-energy", help="Joules a step, where they can be read.")
    ] = True,
    out: Annotated[Path, typer.Option(help="Results folder; resumed.")] = Path("results/steps"),
) -> None:
    """Time whole training steps of a network, dense against block-sparse.
    Exits 0, 5 a wrong step, 2 usage or a run that failed, 130 interrupted.

    Example: python -m bench step --model vgg16 --batch 16 --density 0.25 --block 32
    """
    try:
        from bench.cli_lists import split
        from bench.environment import pick_device
        from bench.stepping.asked import Asked

        where = pick_device(device)
        cuda = where == "cuda"
        images = batch if batch is not None else (128 if cuda else 16)
        wanted = [
            Asked(
                model, images, each, block, method, balance, scores, allocation, seed, way,
                cuda if amp is None else amp, where,
            )
            for way in split(mode, "mode", str) or ()
            for each in split(density, "density", float) or ()
        ]  # fmt: skip
        code = _compare(wanted, out, budget * 60, trials, energy)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(USAGE) from error
    except KeyboardInterrupt:
        told = f"interrupted; finished comparisons are in {out}, the same command goes on"
        print(f"\n{told}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    print(f"kept in {out}; to draw: python -m bench report {out}")
    raise typer.Exit(code)


def _compare(wanted: list[Asked], out: Path, budget_s: float, trials: int, energy: bool) -> int:
    """Make the comparisons, each with its share of the time that is left; return the exit code."""
    from bench.stepping.run import run

    code = 0
    until = time.monotonic() + budget_s
    for number, asked in enumerate(wanted):
        share = (until - time.monotonic()) / (len(wanted) - number)
        if number and share <= 0:
            print(f"{len(wanted) - number} comparisons left for another call of the same command")
            break
        with bar("trials") as progress:
            line, stored = run(
                asked, out, share, most_trials=trials, energy=energy, progress=progress
            )
        code = max(code, _tell(line, stored, out))
    return code


def _tell(line: dict[str, Any], stored: bool, out: Path) -> int:
    """Print a comparison; return the exit code."""
    if stored:
        print(f"stored in {out} before; another --out measures it again")
    if line["status"] != "ok":
        print(f"{line['status'].upper()}: {_title(line)}: {line['reason']}", file=sys.stderr)
        return WRONG if line["status"] == "wrong" else USAGE
    from bench.frames import records
    from bench.step_table import step_rows

    row = records(step_rows([line]))[0]
    _render(line, row)
    for sentence in _sentences(line, row):
        print(sentence)
    return 0


def _render(line: dict[str, Any], row: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from bench.frames import records
    from bench.step_table import SIDES, share_rows

    shown = Table("", *SIDES, title=_title(line))
    shown.add_row("step, ms", *(f"{row[f'{side}_step_s'] * MS:.4g}" for side in SIDES))
    shares = {(r["side"], r["kind"]): r for r in records(share_rows([line]))}
    for kind in dict.fromkeys(kind for _, kind in shares):
        cells = [shares[side, kind] for side in SIDES]
        if any(cell["share"] > 0 for cell in cells):
            texts = (f"{c['seconds'] * MS:.4g} ({c['share']:.0%})" for c in cells)
            shown.add_row(f"  {kind}", *texts)
    for name, unit, scale in (("peak_bytes", "MiB", 1 / MIB), ("energy_j", "J a step", 1.0)):
        values = [row[f"{side}_{name}"] for side in SIDES]
        if not all(map(math.isnan, values)):
            label = {"peak_bytes": "memory"}.get(name, "energy")
            texts = ("-" if math.isnan(v) else f"{v * scale:,.4g}" for v in values)
            shown.add_row(f"{label}, {unit}", *texts)
    Console().print(shown)


def _title(line: dict[str, Any]) -> str:
    return (
        f"{line['model']}, batch {line['batch']}, {line['mode']}, {line['precision']}, density "
        f"{line['density']:g}, blocks {line['block']}, {line['method']}, balance {line['balance']}"
    )


def _sentences(line: dict[str, Any], row: dict[str, Any]) -> list[str]:
    interval = "one trial: no interval"
    if not math.isnan(row["speedup_low"]):
        interval = f"95 %: {row['speedup_low']:.3f} to {row['speedup_high']:.3f}"
    flags = "".join(f" [{flag}]" for flag in line["flags"])
    facts = line["facts"]
    told = [
        f"speed-up of a whole step {row['speedup']:.3f}x ({interval}; "
        f"{row['trials']} trials){flags}",
        f"{facts['canonical']} of {facts['sparse_layers']} sparse layers permute nothing; their "
        f"density {row['real_density']:.4g}; multiply-adds of a step {row['flops_ratio']:.1%}",
        f"memory: {row['memory']}",
    ]
    if not math.isnan(row["amdahl_bound"]):
        told.append(
            f"convolutions that became sparse take {row['amdahl_share']:.0%} of the dense step: "
            f"shrinking them to their density alone would give {row['amdahl_bound']:.2f}x"
        )
    lifted = facts["lifted"]
    if lifted:
        told.append(f"{len(lifted)} layers lifted to their least density: {', '.join(lifted)}")
    return told
