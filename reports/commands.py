"""The commands behind the numbers, put together from what the stored results say.

What no file keeps is not told: a preset's name, and options that leave no trace in a line.
DIR is the folder that the report was made of.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from bench.accuracy_table import ACCURACY_CONTEXT
from bench.frames import Record
from bench.table import CONTEXT
from reports.data import Key, ReportData, pick

PROGRAM = "python -m bench"
REPORT = f"{PROGRAM} report DIR"
BREAK_EVEN = f"{PROGRAM} breakeven --layer LAYER --block BLOCK --out DIR"
QUALITY = f"{PROGRAM} quality --out DIR"
STEP = f"{PROGRAM} step --model MODEL --out DIR"
ACCURACY = f"{PROGRAM} accuracy --preset digits --out DIR"
RUN = f"{PROGRAM} run --suite quick --out DIR"
GATE = f"{PROGRAM} gate --base-rev REVISION --out DIR"
TREND = f"{PROGRAM} trend FOLDER FOLDER ..."


def sweep(key: Key) -> str:
    """Return the command of a kernel context."""
    facts = dict(zip(CONTEXT, key, strict=True))
    return _command("run", ((name, facts[name]) for name in ("suite", "device", "dtype", "mode")))


def training(data: ReportData, key: Key) -> str:
    """Return the command of a context of training runs."""
    runs = pick(data.runs, ACCURACY_CONTEXT, key)
    settings = (part.partition(" ") for part in str(key[3]).split(", "))
    told: dict[str, str] = {name: value for name, _, value in settings if value}
    sparse = sorted({float(d) for d in runs["density"]} - {1.0}, reverse=True)
    options: dict[str, Any] = {
        "data": key[1],
        "model": key[2],
        "arms": ",".join(sorted(set(map(_arm, runs["arm"], runs["pattern"])))),
        "densities": ",".join(f"{d:g}" for d in sparse),
        "seeds": runs["seed"].nunique(),
        **{name: told[name] for name in ("epochs", "batch", "lr", "device") if name in told},
    }
    return _command("accuracy", options.items())


def _arm(arm: str, pattern: str) -> str:
    """Return ``hrbp2:rigl`` for an arm whose pattern moves."""
    moves = [p.removeprefix("dst ") for p in pattern.split(", ") if p.startswith("dst ")]
    return f"{arm}:{moves[0]}" if moves and moves[0] != "static" else arm


def first_of(found: Sequence[str]) -> str:
    """Return the first of several commands, and how many others there are."""
    others = len(set(found)) - 1
    return found[0] + (f" and {others} more like it" if others else "")


def step(row: Record) -> str:
    """Return the command of one comparison of whole training steps."""
    names = ("model", "batch", "density", "block", "method", "balance", "scores", "allocation",
             "seed", "mode", "device")  # fmt: skip
    amp = "--amp" if row["precision"] == "bfloat16" else "--no-amp"
    return f"{_command('step', ((name, row[name]) for name in names))} {amp}"


def search(line: Record) -> str:
    """Return the command of a search for the break-even sparsity."""
    names = ("layer", "block", "pass", "dtype", "device", "batch", "impl", "mode")
    return _command("breakeven", ((name, line[name]) for name in names if name in line))


def gate(about: dict[str, Any]) -> str:
    """Return the command of a gate; ``about`` is empty for two stored folders."""
    if not about:
        return f"{PROGRAM} gate --base FOLDER --head FOLDER"
    revision = shlex.quote(str(about["base"]["revision"]))
    return f"{PROGRAM} gate --base-rev {revision} --suite {shlex.quote(str(about['suite']))}"


def _command(name: str, options: Iterable[tuple[str, Any]]) -> str:
    given = [
        f"--{option} {shlex.quote(f'{value:g}' if isinstance(value, float) else str(value))}"
        for option, value in options
        if value not in (None, "")
    ]
    return " ".join([PROGRAM, name, *given, "--out DIR"])
