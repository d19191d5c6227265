"""The ``convert`` command."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bench.conversion import Converted
    from bench.timing import Timed

USAGE, INTERRUPTED = 2, 130


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(convert)


def convert(
    model: Annotated[str, typer.Option(help="resnet18, resnet50, vgg16, wrn28_10, ...")],
    density: Annotated[float, typer.Option(help="Of the layers that become sparse.")] = 0.25,
    block: Annotated[int, typer.Option(help="16, 32, 64 or 128 on a GPU.")] = 32,
    method: Annotated[str, typer.Option(help="hrbp2, hrbp, hrbp2_pp, aligned, ...")] = "hrbp2",
    balance: Annotated[str, typer.Option(help="none, filters, both.")] = "none",
    scores: Annotated[str, typer.Option(help="magnitude, random, snip.")] = "magnitude",
    allocation: Annotated[str, typer.Option(help="uniform, erk, global.")] = "uniform",
    batch: Annotated[int, typer.Option(help="Images of a step.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the weights and the searches.")] = 0,
    separately: Annotated[
        bool, typer.Option("--separately", help="Regroup each layer for itself.")
    ] = False,
    policy: Annotated[
        str, typer.Option(help="sparse, dense, auto: the faster way, layer by layer.")
    ] = "sparse",
    time: Annotated[
        bool, typer.Option("--time", help="Time forward + backward against the dense network.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a whole network sparse, absorb its channel orders, check that its function stays.
    Exits 0, 2 usage, 130 interrupted.

    Example: python -m bench convert --model vgg16 --density 0.25 --block 32 --time
    """
    try:
        from bench.conversion import Wish, run, speedups, step_times
        from bench.environment import pick_device

        where = pick_device(device)
        wish = Wish(
            model, density, block, method, balance, scores, allocation, batch, seed,
            not separately, policy,
        )  # fmt: skip
        converted = run(wish, where)
        times = step_times(converted, where) if time else {}
        ratios = speedups(times) if time else {}
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(USAGE) from error
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        from bench.environment import environment

        facts = {"environment": asdict(environment(where)), "wish": asdict(wish)}
        print(json.dumps(facts | _facts(converted, times, ratios), indent=1))
        return
    print(converted.report)
    print(converted.absorption)
    for name, calibration in converted.calibrations.items():
        print(f"{name}: {calibration}")
    for line in _told(converted, times, ratios, batch):
        print(line)


def _facts(converted: Converted, times: dict[str, Timed], ratios: dict[str, Any]) -> dict[str, Any]:
    return {
        "report": converted.report.to_dict(),
        "canonical": list(converted.absorption.canonical),
        "standalone": dict(converted.absorption.standalone),
        "seconds": converted.seconds,
        "difference": converted.difference,
        "calibrations": {n: c.to_dict() for n, c in converted.calibrations.items()},
        "samples_s": {name: timed.samples_s for name, timed in times.items()},
        "flags": {name: [str(f) for f in timed.flags] for name, timed in times.items()},
        "rounds_rejected": {n: timed.detail["rounds_rejected"] for n, timed in times.items()},
        "speedups": ratios,
    }


def _told(
    converted: Converted, times: dict[str, Timed], ratios: dict[str, Any], batch: int
) -> list[str]:
    from bench.stats import median

    seconds, change = converted.seconds, converted.difference
    spent = seconds["convert"] + seconds["absorb"]
    lines = [
        f"convert {seconds['convert']:.1f} s + absorb {seconds['absorb']:.1f} s = {spent:.1f} s",
        f"absorbed against not: |y - y'| / |y| = {change['train']:.1e} in train mode, "
        f"{change['eval']:.1e} in eval mode",
    ]
    for name, timed in times.items():
        ratio, low, high = ratios[name]
        flags = "".join(f" [{flag}]" for flag in timed.flags)
        lines.append(
            f"forward + backward, batch {batch}, {name}: {median(timed.samples_s) * 1e3:.1f} ms, "
            f"{ratio:.2f}x dense ({low:.2f} to {high:.2f}), {len(timed.samples_s)} rounds{flags}"
        )
    return lines
