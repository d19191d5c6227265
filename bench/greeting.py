"""What ``python -m bench`` says when it is asked for nothing: where one is, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bench.store import ACCURACY

WELCOME = "Block-sparse convolution for training: measured against dense and other sparse forms."
MORE = "python -m bench --help lists every command, and COMMAND --help shows an example."
FILES = "*.jsonl"  # whatever was measured
Step = tuple[str, str]  # what for, the command


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Return whether an NVIDIA GPU is visible; asks no driver."""
    return any(devices.glob("nvidia[0-9]*"))


def latest(root: Path) -> Path | None:
    """Return the results folder under ``root``/results that was written last, if any."""
    found = [path for path in (root / "results").glob(f"**/{FILES}") if path.stat().st_size]
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path)).parent if found else None


def next_steps(root: Path, gpu: bool) -> list[Step]:
    """Return the three things to do next, as (what for, command).

    Args:
        root: where the commands will be run: paths are relative to it.
    """
    there = latest(root)
    if there is None:
        return [
            ("see what this machine can do", "python -m bench doctor"),
            ("measure a small suite: minutes", "python -m bench run --suite quick"),
            ("draw it", "python -m bench report results/quick"),
        ]
    return list(_with_results(there, root, gpu))


def _with_results(there: Path, root: Path, gpu: bool) -> Iterator[Step]:
    name, page = there.relative_to(root), there / "report" / "report.html"
    if not page.exists() or page.stat().st_mtime_ns < _newest(there):
        yield "draw what is measured", f"python -m bench report {name}"
    else:
        yield "look at what is measured", f"open {page.relative_to(root)}"
    if not (there / ACCURACY).exists():
        yield (
            "what it costs in accuracy: minutes",
            f"python -m bench accuracy --preset digits --out {name}",
        )
    else:
        batch = "--batch 128" if gpu else "--batch 16"
        yield (
            "a whole network's training step",
            f"python -m bench step --model vgg16 {batch} --out {name}",
        )
    yield "whether a change made it slower", "python -m bench gate --base-rev HEAD"


def _newest(folder: Path) -> int:
    return max(path.stat().st_mtime_ns for path in folder.glob(FILES))


def greet(console: Console, root: Path | None = None, gpu: bool | None = None) -> None:
    """Print it."""
    here = Path.cwd() if root is None else root
    visible = has_gpu() if gpu is None else gpu
    console.print(Text(WELCOME))
    machine = "an NVIDIA GPU is visible" if visible else "no NVIDIA GPU is visible: CPU kernels run"
    console.print(Text(f"On this machine {machine}.\n"))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for number, (purpose, command) in enumerate(next_steps(here, visible), 1):
        table.add_row(f"{number}", Text(purpose), Text(command, style="bold", overflow="fold"))
    console.print(Padding(table, (0, 0, 0, 1)))
    console.print(Text(f"\n{MORE}"))
