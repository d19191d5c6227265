"""The ``breakeven`` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bench.breakeven import BreakEven
    from bench.session import Session

USAGE, WRONG, INTERRUPTED = 2, 5, 130


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(breakeven)


def breakeven(
    layer: Annotated[str, typer.Option(help="Of `list layers`.")],
    block: Annotated[int, typer.Option(help="16, 32, 64 or 128.")],
    conv_pass: Annotated[str, typer.Option("--pass", help="fprop, dgrad, wgrad, all.")] = "all",
    dtype: Annotated[str, typer.Option(help="float32, tf32, bfloat16, float16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch: Annotated[int | None, typer.Option(help="Images; 8 on a CPU, 128 on CUDA.")] = None,
    impl: Annotated[str, typer.Option(help="Of `list impls`.")] = "block_sparse",
    points: Annotated[int, typer.Option(help="Densities measured, 5 to 9.")] = 7,
) -> None:
    """Find the sparsity from which on a sparse implementation is faster than dense.
    Exits 0, 2 usage or a point that fails, 5 a wrong result, 130 interrupted.

    Example: python -m bench breakeven --layer conv4_3x3 --block 32 --pass all
    """
    from bench.breakeven import Failed, search, sentence

    try:
        measure, least, most = _measuring(layer, block, conv_pass, dtype, device, batch, impl)
        result = search(measure, least, most, points)
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(
            WRONG if str(error).startswith(("wrong", "impossible")) else USAGE
        ) from error
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(USAGE) from error
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was kept", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    _render(result)
    print(
        sentence(result, f"break-even of {impl} on {layer} ({conv_pass}, {dtype}, blocks {block})")
    )


def _measuring(
    layer: str, block: int, conv_pass: str, dtype: str, device: str, batch: int | None, impl: str
) -> tuple[Any, int, int]:
    """Return (blocks -> Point, least blocks, all blocks)."""
    import tempfile

    from bench import impls
    from bench.clocks import mode_for
    from bench.environment import environment, pick_device
    from bench.session import Session, Settings
    from bench.suites import QUICK, Sweep, find_suite, layer_table, passes_of
    from hrbp_core.shapes import Pass, block_grid

    impls.check([impl])
    suites = {each.name: suite for suite, each in layer_table()}
    if layer not in suites:
        raise ValueError(f"expected a layer of {', '.join(suites)}; got {layer!r}")
    passes = tuple(Pass) if conv_pass == "all" else passes_of((conv_pass,))
    chosen = pick_device(device)
    shape = next(x.shape for x in find_suite(suites[layer]).layers if x.name == layer)
    groups = block_grid(shape, block)
    facts, mode = environment(chosen), mode_for(chosen)
    folder = Path(tempfile.mkdtemp(prefix="breakeven-"))
    session = Session(Settings(chosen, dtype, mode, QUICK, facts, folder))
    total = groups[0] * groups[1]

    def measure(blocks: int) -> Any:
        density = blocks / total
        sweep = Sweep(
            suites[layer], chosen, dtype, passes, (density,), (block,), (layer,), batch=batch
        )
        return _point(session, sweep, impl, blocks, 1 - density)

    return measure, max(groups), total


def _point(session: Session, sweep: Any, impl: str, blocks: int, sparsity: float) -> Any:
    """Measure one density: dense and the implementation in the same rounds, pass by pass."""
    from bench.breakeven import Failed, Point
    from bench.records import REFERENCE_IMPL, Status
    from bench.stats import median, median_interval
    from bench.suites import cases

    wanted, infeasible = cases(sweep)
    if infeasible:
        raise ValueError(infeasible[0].reason)
    sums = {name: [0.0, 0.0, 0.0] for name in (REFERENCE_IMPL, impl)}
    ratios: list[float] = []
    for case in wanted:
        found = {m.cell.impl: m for m in session.measure(case, [REFERENCE_IMPL, impl])}
        for name, measurement in found.items():
            if measurement.status is not Status.OK:
                raise Failed(f"{measurement.status}: {name} {case.conv_pass}: {measurement.reason}")
            each = (median(measurement.samples_s), *median_interval(measurement.samples_s))
            sums[name] = [a + b for a, b in zip(sums[name], each, strict=True)]
        pairs = zip(found[REFERENCE_IMPL].samples_s, found[impl].samples_s, strict=False)
        ratios = [dense / ours for dense, ours in pairs]
    dense, ours = sums[REFERENCE_IMPL], sums[impl]
    if len(wanted) == 1:
        speedup, (low, high) = median(ratios), median_interval(ratios)
    else:  # conservative: each interval's ends taken together
        speedup, low, high = dense[0] / ours[0], dense[1] / ours[2], dense[2] / ours[1]
    return Point(blocks, sparsity, dense[0], ours[0], speedup, low, high)


def _render(result: BreakEven) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table("sparsity", "blocks", "dense µs", "sparse µs", "speed-up", "95 % interval")
    for p in result.points:
        shown.add_row(
            f"{p.sparsity:.3f}", str(p.blocks), f"{p.dense_s * 1e6:.1f}", f"{p.impl_s * 1e6:.1f}",
            f"{p.speedup:.2f}", f"{p.low:.2f} to {p.high:.2f}",
        )  # fmt: skip
    Console().print(shown)
