"""The ``gate`` command."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from bench.cli_errors import sentences
from bench.cli_lists import split
from bench.progress import bar

if TYPE_CHECKING:
    from bench.gate_result import GateResult
    from bench.gating.live import Question

KEPT = "nothing is left behind but the trials in --out"
TERMINATED = 143
USUAL = "python -m bench gate --base-rev HEAD"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(gate)


def gate(
    base_rev: Annotated[
        str | None, typer.Option(help="Measure this git revision against the working tree.")
    ] = None,
    promoted: Annotated[
        str | None, typer.Option(help="The same with the commit of a promoted base's results.")
    ] = None,
    base: Annotated[Path | None, typer.Option(help="Stored results to compare with.")] = None,
    head: Annotated[Path | None, typer.Option(help="Stored results to judge.")] = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="How often the gate errs on this machine.")
    ] = False,
    pool: Annotated[
        str | None,
        typer.Option(help="With --self-test: folders of earlier ones; nothing is measured."),
    ] = None,
    suite: Annotated[str, typer.Option(help="A suite of `list suites`.")] = "quick",
    layers: Annotated[str | None, typer.Option(help="Of `list layers`.")] = None,
    passes: Annotated[str, typer.Option(help="Any of fprop,dgrad,wgrad.")] = "fprop,dgrad,wgrad",
    densities: Annotated[str | None, typer.Option(help="E.g. 0.5,0.25.")] = None,
    blocks: Annotated[str | None, typer.Option(help="E.g. 16,32,64.")] = None,
    layout: Annotated[
        str | None, typer.Option(help="canonical or standalone; the suite's.")
    ] = None,
    impl_names: Annotated[str, typer.Option("--impls", help="Of `list impls`.")] = "block_sparse",
    dtype: Annotated[str, typer.Option(help="float32, tf32, bfloat16, float16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch: Annotated[int | None, typer.Option(help="Images; 8 on a CPU, 128 on CUDA.")] = None,
    mode: Annotated[str | None, typer.Option(help="As in `run`.")] = None,
    budget: Annotated[float, typer.Option(help="Minutes for all trials.")] = 12.0,
    see: Annotated[
        float | None,
        typer.Option(help="Go on until a slow-down of so many percent would show (5; GPU 3)."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for verdicts and trials.")] = Path(
        "results/gate"
    ),
    into: Annotated[Path, typer.Option(help="Where bases were promoted to.")] = Path("baselines"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Write a Markdown summary here.")] = None,
) -> None:
    """Judge a change. Exits 0 pass, 1 confirmed regression, 2 usage, 3 inconclusive,
    4 incomparable or no base, 5 wrong or missing cells; 130, 143 interrupted.

    Example: python -m bench gate --base-rev main --budget 12
    """
    _check_ways(base_rev, promoted, base, head, self_test)
    telling = _Telling(as_json, markdown)
    with sentences(KEPT), terminable():
        if base is not None and head is not None:
            code = _stored(base, head, telling)
        else:
            wanted = _Wanted(
                suite, layers, passes, densities, blocks, layout, impl_names, dtype, device, batch
            )
            revision = _revision(base_rev, promoted, into)
            question = _question(wanted, revision, budget, out, mode, see)
            if self_test:
                code = _self_test(question, telling, split(pool, "pool", Path) or ())
            else:
                code = _revisions(question, telling)
    raise typer.Exit(code)


@dataclass(frozen=True)
class _Telling:
    """How a result is told."""

    as_json: bool
    markdown: Path | None


@dataclass(frozen=True)
class _Wanted:
    """Which cells, as they were asked for."""

    suite: str
    layers: str | None
    passes: str
    densities: str | None
    blocks: str | None
    layout: str | None
    impls: str
    dtype: str
    device: str
    batch: int | None


def _question(
    wanted: _Wanted, revision: str, budget: float, out: Path, mode: str | None, see: float | None
) -> Question:
    from bench.environment import pick_device
    from bench.gating.live import Question
    from bench.suites import Sweep, passes_of

    if not budget > 0:
        raise ValueError(f"expected --budget above 0 minutes, got {budget:g}")
    sweep = Sweep(
        wanted.suite, pick_device(wanted.device), wanted.dtype,
        passes_of(split(wanted.passes, "passes", str) or ()),
        split(wanted.densities, "densities", float), split(wanted.blocks, "blocks", int),
        split(wanted.layers, "layers", str), layout=wanted.layout, batch=wanted.batch,
    )  # fmt: skip
    names = split(wanted.impls, "impls", str) or ()
    return Question(
        revision, sweep, names, 60 * budget, out, mode, None if see is None else see / 100
    )


def _stored(base: Path, head: Path, telling: _Telling) -> int:
    from bench.gate import compare

    return _tell(compare(base, head), telling, None)


def _check_ways(
    base_rev: str | None, promoted: str | None, base: Path | None, head: Path | None, trial: bool
) -> None:
    stored = [n for n, v in (("--base", base), ("--head", head)) if v is not None]
    ways = [
        *(["--base-rev"] if base_rev is not None else []),
        *(["--promoted"] if promoted is not None else []),
        *([" and ".join(stored)] if stored else []),
        *(["--self-test"] if trial else []),
    ]
    if len(ways) != 1 or len(stored) == 1:
        print(
            "error: expected --base-rev REV, --promoted NAME, --base DIR and --head DIR, or "
            f"--self-test; got {', '.join(ways) or 'none of them'}",
            file=sys.stderr,
        )
        if not ways:
            print(f"the working tree against the last commit: {USUAL}", file=sys.stderr)
        raise typer.Exit(2)


def _revision(base_rev: str | None, promoted: str | None, into: Path) -> str:
    if promoted is None:
        return base_rev or "HEAD"
    from bench.gating.promotion import commit_of_base

    return commit_of_base(into, promoted)


def _revisions(question: Question, telling: _Telling) -> int:
    from bench.gate_result import to_json
    from bench.gating.live import gate_revisions, write

    with bar("trials") as progress:
        result = gate_revisions(question, progress)
    write(to_json(result), question.out)
    return _tell(result, telling, question.out)


def _tell(result: GateResult, telling: _Telling, out: Path | None) -> int:
    from bench import gate_result

    if telling.markdown is not None:
        telling.markdown.write_text(gate_result.to_markdown(result))
    if telling.as_json:
        print(gate_result.to_json(result))
    else:
        gate_result.render(result, Console())
        if out is not None:
            print(f"{out}: gate.json, gate_trials.jsonl; pages: python -m bench report {out}")
    return result.exit_code


def _self_test(question: Question, telling: _Telling, pool: tuple[Path, ...]) -> int:
    import json

    from bench.gate_result import SELF_TEST
    from bench.gating.pooled import rehearse_again
    from bench.gating.self_test_page import render, to_markdown
    from bench.gating.selftest import self_test
    from bench.jsonl import make_folder, replace_file

    with bar("trials") as progress:
        if pool:
            found = rehearse_again(pool, question, progress)
        else:
            found = self_test(question, progress)
    text = json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n"
    make_folder(question.out)
    replace_file(question.out / SELF_TEST, text)
    replace_file(question.out / "self_test.md", to_markdown(found))
    if telling.markdown is not None:
        telling.markdown.write_text(to_markdown(found))
    if telling.as_json:
        print(text)
    else:
        render(found, Console())
        print(f"{question.out}: self_test.json, self_test.md")
    return 0 if found.found else 3


@contextmanager
def terminable() -> Iterator[None]:
    """Let a SIGTERM, as a cancelled job gets, unwind as an interrupt does."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(TERMINATED)  # a SystemExit: no handler of errors takes it for one

    before: Any = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
