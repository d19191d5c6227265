"""What ``profile`` on a live device prints and writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.live_profile import LiveProfile, Seen
    from bench.ncu import Report
    from bench.records import Case

CALLS = 20
LEAST_SHARE = 0.005  # kernels under this share of a call are summed up in one line
NAME_LENGTH = 70


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    layer: str
    block: int
    density: float
    device: str
    impls: tuple[str, ...]
    passes: tuple[str, ...] | None
    dtype: str | None
    batch: int | None
    method: str
    layout: str
    calls: int
    ncu: bool
    out: Path | None


def profile_live(asked: Request, files: list[Path]) -> int:
    """Check, time and profile; print and write what was seen; return the exit code.

    Raises:
        ValueError: anything unknown; a pattern that the layer cannot have.
    """
    from bench import impls
    from bench.environment import pick_device
    from bench.live_profile import document, look

    impls.check(asked.impls)
    device = pick_device(asked.device)
    if asked.ncu and device != "cuda":
        raise ValueError(f"expected --ncu with a GPU, got it on {device}")
    found = look(_cases(asked, device), asked.impls, asked.calls, asked.out, asked.ncu)
    request = asdict(asked) | {"device": device, "out": str(asked.out) if asked.out else None}
    text = json.dumps(document(found, request), indent=1, allow_nan=False) + "\n"
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    _render(found, asked.calls)
    return found.exit_code


def _cases(asked: Request, device: str) -> list[Case]:
    from bench.suites import Sweep, feasible_cases, passes_of, suite_of
    from hrbp_core.shapes import Pass

    suite = suite_of(asked.layer).name
    passes = tuple(Pass) if asked.passes is None else passes_of(asked.passes)
    dtype = asked.dtype or ("bfloat16" if device == "cuda" else "float32")
    sweep = Sweep(
        suite, device, dtype, passes, (asked.density,), (asked.block,),
        (asked.layer,), asked.method, layout=asked.layout, batch=asked.batch,
    )  # fmt: skip
    return feasible_cases(sweep)


def _render(found: LiveProfile, calls: int) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for each in found.seen:
        console.print(_heading(each), highlight=False, soft_wrap=True, style="bold")
        if each.profiled is None:
            why = each.measurement.reason or each.measurement.detail.get("not_looked")
            console.print(f"  {why}", highlight=False, soft_wrap=True)
            continue
        shown = Table(box=None, pad_edge=False)
        for name, side in (("  µs", "right"), ("share", "right"), ("calls", "right"), ("", "left")):
            shown.add_column(name, justify=side)  # type: ignore[arg-type]
        for line in _lines(each):
            shown.add_row(*line)
        console.print(shown)
        console.print(f"  {_gaps(each)}", highlight=False, soft_wrap=True)
        for told in _counters(each.counters):
            console.print(f"  {told}", highlight=False, soft_wrap=True)
    kind = (
        "GPU kernels" if found.environment.device == "cuda" else "operators without those they call"
    )
    console.print(
        f"Below each: {kind} under the profiler, means of {calls} calls.",
        highlight=False,
        soft_wrap=True,
    )


def _heading(each: Seen) -> str:
    cell, row = each.measurement.cell, each.row
    name = f"{cell.case.layer} {cell.case.conv_pass} {cell.impl}"
    if each.measurement.status != "ok":
        return f"{name}: {each.measurement.status}"
    told = f"{name}: {row['median_s'] * 1e6:.1f} µs"
    told += f" ({row['low_s'] * 1e6:.1f} to {row['high_s'] * 1e6:.1f})"
    if row["speedup"] == row["speedup"]:
        told += f", {row['speedup']:.2f}x dense"
    if row["attainment"] == row["attainment"]:
        told += f", attainment {row['attainment']:.0%}"
    return told + (f", {row['flags']}" if row["flags"] else "")


def _lines(each: Seen) -> Iterator[tuple[str, str, str, str]]:
    """Yield (µs, share, launches, name) for each kernel that matters, and for the rest."""
    if each.profiled is None:
        return
    kernels = each.profiled.kernels
    total = sum(kernel.seconds for kernel in kernels)
    rest = [0.0, 0.0]
    for kernel in kernels:
        if kernel.seconds < LEAST_SHARE * total:
            rest = [rest[0] + kernel.seconds, rest[1] + kernel.launches]
            continue
        name = kernel.name
        if len(name) > NAME_LENGTH:
            name = f"{name[: NAME_LENGTH - 1]}…"
        yield _line(kernel.seconds, total, kernel.launches, name)
    if rest[1]:
        yield _line(rest[0], total, rest[1], "others")


def _line(seconds: float, total: float, launches: float, name: str) -> tuple[str, str, str, str]:
    share = f"{seconds / total:.1%}" if total else "-"
    return f"{seconds * 1e6:.2f}", share, f"{launches:g}", name


def _gaps(each: Seen) -> str:
    if each.profiled is None or each.gaps_s is None:
        return "nothing was profiled"
    detail: dict[str, Any] = each.measurement.detail
    if each.measurement.cell.case.device == "cuda":
        enqueue = detail.get("enqueue_s")
        told = f"host and gaps: {each.gaps_s * 1e6:.2f} µs of the call have no kernel"
        return told + (f"; the host enqueues it in {enqueue * 1e6:.1f} µs" if enqueue else "")
    span = each.profiled.span_s
    return (
        f"host and gaps: {each.gaps_s * 1e6:.2f} µs of {span * 1e6:.1f} µs under the profiler "
        f"are outside of operators"
    )


def _counters(report: Report | None) -> Iterator[str]:
    """Yield lines about Nsight Compute's counters, or the reason why there are none."""
    if report is None:
        return
    if report.reason:
        yield f"ncu: {report.reason}"
    for kernel in report.kernels:
        told = [
            f"{name} {value:.4g}" for name, value in kernel.metrics.items() if value is not None
        ]
        took = "" if kernel.duration_s is None else f" {kernel.duration_s * 1e6:.2f} µs,"
        yield f"ncu: {kernel.name[:NAME_LENGTH]} x{kernel.launches}:{took} {', '.join(told)}"
