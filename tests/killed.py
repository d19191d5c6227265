"""Kills ``python -m bench run`` again and again, and resumes: no cell lost, none stored twice.

::

    python -m tests.killed --times 50 [--isolate]

Half of the kills fall at a moment drawn at random, half right after the store has grown. After
each one what was stored before must still be there, byte for byte, and every process that the
run had started must be gone. Exits 1 when any of it does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench.clocks import mode_for
from bench.records import Cell
from bench.store import read_results
from bench.suites import Sweep, cases

ROOT = Path(__file__).parents[1]
IMPLS = ("dense", "block_sparse")
SWEEP = Sweep("quick", "cpu", layers=("conv5_3x3",), batch=1, densities=(0.25, 0.125), blocks=(64,))
WORDS = (
    "--suite", "quick", "--device", "cpu", "--layers", "conv5_3x3", "--batch", "1",
    "--densities", "0.25,0.125", "--blocks", "64", "--impls", ",".join(IMPLS),
)  # fmt: skip
LONGEST_S = 14.0  # a run that goes through takes about this long
LAST_S = 20.0  # for the processes of a killed run to end
DONE_S = 240.0


class Lost(AssertionError):
    """A cell that is gone, twice there or broken; the text says which."""


def wanted() -> set[str]:
    """Return the ids of the cells that a whole run stores."""
    mode = mode_for("cpu")
    return {Cell(case, name, mode).cell_id for case in cases(SWEEP)[0] for name in IMPLS}


def whole_lines(folder: Path, before: bytes) -> bytes:
    """Return the store's whole lines.

    Args:
        before: whole lines of an earlier moment.

    Raises:
        Lost: ``before`` is no longer there; a line that is broken; a cell twice.
    """
    path = folder / "results.jsonl"
    data = path.read_bytes() if path.exists() else b""
    data = data[: data.rfind(b"\n") + 1]
    if not data.startswith(before):
        raise Lost(f"expected the {len(before)} bytes stored before, got others")
    try:
        lines = [json.loads(line) for line in data.splitlines()]
    except ValueError as error:
        raise Lost(f"expected whole lines, got {error}") from error
    counts = Counter((line["cell_id"], line["environment"]) for line in lines)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        raise Lost(f"expected each cell once, got {twice[0][0]} {counts[twice[0]]} times")
    return data


def check_whole(folder: Path) -> int:
    """Return the number of cells of a folder whose run has ended.

    Raises:
        Lost: a cell that is missing, or one that was not asked for.
    """
    whole_lines(folder, b"")
    found = {m.cell.cell_id for m in read_results(folder).measurements}
    if found != wanted():
        missing, more = len(wanted() - found), len(found - wanted())
        raise Lost(f"expected {len(wanted())} cells, got {missing} missing and {more} others")
    return len(found)


def command(folder: Path, isolate: bool) -> list[str]:
    """Return the command that is killed."""
    words = [sys.executable, "-m", "bench", "run", *WORDS, "--out", str(folder)]
    return [*words, "--isolate"] if isolate else words


def start(folder: Path, isolate: bool) -> subprocess.Popen[str]:
    """Start the run."""
    return subprocess.Popen(
        command(folder, isolate), cwd=ROOT, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kill_at(process: subprocess.Popen[str], folder: Path, moment_s: float | None) -> bool:
    """Kill the run after some seconds, or (None) when its store grows; return whether it lived."""
    path = folder / "results.jsonl"
    size = path.stat().st_size if path.exists() else 0
    end = time.monotonic() + (DONE_S if moment_s is None else moment_s)
    while time.monotonic() < end and process.poll() is None:
        if moment_s is None and path.exists() and path.stat().st_size > size:
            break
        time.sleep(0.0002 if moment_s is None else 0.01)
    lived = process.poll() is None
    children = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until_gone(children)
    return lived


def descendants(pid: int) -> list[int]:
    """Return the processes that ``pid`` has started, and those that they have."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        parents.setdefault(parent, []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        mine = parents.get(todo.pop(), [])
        found += mine
        todo += mine
    return found


def wait_until_gone(pids: list[int]) -> None:
    """Raise Lost when a process outlives its parent for long."""
    end = time.monotonic() + LAST_S
    while left := [pid for pid in pids if _runs(pid)]:
        if time.monotonic() > end:
            raise Lost(f"expected process {left[0]} to end with its parent, it is still there")
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@dataclass
class Tally:
    """What a campaign came to."""

    kills: int = 0
    after_growth: int = 0
    folders: int = 0
    cells: int = 0
    torn: list[str] = field(default_factory=list)


def campaign(times: int, base: Path, isolate: bool, rng: random.Random) -> Tally:
    """Kill runs ``times`` times in as many folders as it takes; let each folder finish.

    Raises:
        Lost: something was.
    """
    tally = Tally()
    while tally.kills < times:
        folder = base / str(tally.folders)
        before = b""
        while tally.kills < times:
            moment_s = rng.uniform(0, LONGEST_S) if rng.random() < 0.5 else None
            lived = kill_at(start(folder, isolate), folder, moment_s)
            before = whole_lines(folder, before)
            if not lived:
                break
            tally.kills += 1
            tally.after_growth += moment_s is None
        last = start(folder, isolate)
        _, told = last.communicate(timeout=DONE_S)
        if last.returncode:
            raise Lost(f"expected the last run to exit 0, got {last.returncode}: {told[-500:]}")
        whole_lines(folder, before)
        tally.cells += check_whole(folder)
        tally.folders += 1
        if (folder / "results.torn").exists():
            tally.torn.append(str(folder))
    return tally


def main() -> int:
    """Run a campaign and print what it came to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--isolate", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        try:
            tally = campaign(asked.times, Path(base), asked.isolate, random.Random(asked.seed))
        except Lost as error:
            print(f"LOST (seed {asked.seed}): {error}")
            return 1
    print(
        f"{tally.kills} kills ({tally.after_growth} right after the store grew) in "
        f"{tally.folders} folders, {tally.cells} cells: none lost, none twice; "
        f"{len(tally.torn)} torn lines set aside; seed {asked.seed}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
