"""The ``profile`` command: its options, and which of them go together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import cli_live, cli_offline
from bench.cli_errors import sentences

ARCH, GPU_SMS = "sm_90", 132
OFFLINE_ONLY = ("all_tiles", "tile", "arch", "gpu_sms", "rate_tflops", "bandwidth_tbs", "jobs")
LIVE_ONLY = ("device", "impls", "layout", "method", "calls", "ncu")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(profile)


def profile(
    layer: Annotated[str | None, typer.Option(help="Of `list layers`.")] = None,
    block: Annotated[int | None, typer.Option(help="16, 32, 64 or 128 on a GPU.")] = None,
    density: Annotated[float | None, typer.Option(help="E.g. 0.25.")] = None,
    passes: Annotated[
        str | None, typer.Option("--pass", help="Any of fprop,dgrad,wgrad; all when left out.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="bfloat16 on a GPU, float32 on a CPU, when left out.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images; 8 on a CPU, 128 on CUDA.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    impls: Annotated[str | None, typer.Option(help="dense,block_sparse when left out.")] = None,
    method: Annotated[str | None, typer.Option(help="hrbp2, hrbp, hrbp2_pp, aligned, ...")] = None,
    layout: Annotated[str | None, typer.Option(help="canonical or standalone.")] = None,
    calls: Annotated[int | None, typer.Option(help="Calls under the profiler; 20.")] = None,
    ncu: Annotated[bool, typer.Option("--ncu", help="Ask Nsight Compute, too.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Compile; needs no GPU.")] = False,
    all_tiles: Annotated[bool, typer.Option("--all-tiles", help="Offline: every tile.")] = False,
    tile: Annotated[str | None, typer.Option(help="Offline: name of a legal tile.")] = None,
    arch: Annotated[str | None, typer.Option(help="Offline: of sm_80,sm_90,sm_100.")] = None,
    gpu_sms: Annotated[int | None, typer.Option(help="Offline: multiprocessors; 132.")] = None,
    rate_tflops: Annotated[float | None, typer.Option(help="Offline: assumed rate.")] = None,
    bandwidth_tbs: Annotated[float | None, typer.Option(help="Offline: assumed copy.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Offline: processes; all cores.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write JSON here.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write profile.json, and live traces, into this folder.")
    ] = None,
) -> None:
    """Show where the time of a layer goes: each implementation is checked, timed and taken
    apart. Exits 0, 5 when one is wrong or impossible, 2 usage or nothing to profile.

    With --offline: what the compiler makes of the GPU kernels. Exits 0, 1 when a launch spills,
    lacks wgmma on sm_90, asks for too much shared memory, fails or has no tile, 2 usage.

    Example: python -m bench profile --layer conv4_3x3 --block 32 --density 0.25

    Example: python -m bench profile --offline --all-tiles --arch sm_90
    """
    given = dict(locals())
    kept = "what is compiled is kept: the same command goes on" if offline else "nothing is kept"
    with sentences(kept):
        _check(given)
        files = [json_file] if json_file else []
        files += [out / "profile.json"] if out else []
        code = (_offline if offline else _live)(given, files)
    for file in files:
        print(f"written: {file}")
    raise typer.Exit(code)


def _check(given: dict[str, Any]) -> None:
    """Raise a ValueError unless the options go together."""
    offline, all_tiles = given["offline"], given["all_tiles"]
    for name in LIVE_ONLY if offline else OFFLINE_ONLY:
        if given[name] not in (None, False):
            wanted = "without --offline" if offline else "with --offline"
            got = "with it" if offline else "without it"
            raise ValueError(f"expected {_option(name)} {wanted}, got it {got}")
    if all_tiles == (given["layer"] is not None):
        choices = "either --all-tiles or --layer" if offline else "--layer, or --offline"
        raise ValueError(f"expected {choices}")
    for name in ("block", "density", "batch", "tile", "rate_tflops", "bandwidth_tbs"):
        if all_tiles and given[name] is not None:
            raise ValueError(f"expected {_option(name)} with --layer, got it with --all-tiles")
    if not all_tiles and (given["block"] is None or given["density"] is None):
        raise ValueError("expected --block and --density with --layer")
    for name in ("gpu_sms", "rate_tflops", "bandwidth_tbs"):
        if given[name] is not None and not given[name] > 0:
            raise ValueError(f"expected {_option(name)} above 0, got {given[name]:g}")
    for name in ("jobs", "calls"):
        if given[name] is not None and given[name] < 1:
            raise ValueError(f"expected {_option(name)} of at least 1, got {given[name]}")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _offline(given: dict[str, Any], files: list[Path]) -> int:
    asked = cli_offline.Request(
        **{
            name: given[name]
            for name in ("layer", "block", "density", "passes", "dtype", "batch", "tile")
        },
        arch=given["arch"] or ARCH,
        gpu_sms=given["gpu_sms"] or GPU_SMS,
        rate_tflops=given["rate_tflops"],
        bandwidth_tbs=given["bandwidth_tbs"],
    )
    outcome, floors = cli_offline.profile_offline(asked, given["jobs"] or os.cpu_count() or 1)
    cli_offline.write(files, outcome, asked, given["all_tiles"], floors)
    cli_offline.render(outcome, floors)
    return outcome.exit_code


def _live(given: dict[str, Any], files: list[Path]) -> int:
    passes = given["passes"]
    names = cli_offline.split(given["impls"] or "dense,block_sparse", "impls")
    asked = cli_live.Request(
        given["layer"], given["block"], given["density"], given["device"] or "auto", names,
        None if passes is None else cli_offline.split(passes, "pass"), given["dtype"],
        given["batch"], given["method"] or "hrbp2", given["layout"] or "canonical",
        given["calls"] or cli_live.CALLS, given["ncu"], given["out"],
    )  # fmt: skip
    return cli_live.profile_live(asked, files)
