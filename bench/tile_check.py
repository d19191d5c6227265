"""Every legal tile of the GPU kernels against the oracle: one line a tile, as it goes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from bench import tile_judge, tile_pool
from bench.jsonl import encode, make_folder, mend, read_lines, write_lines
from bench.tile_cases import (
    KINDS,
    Kind,
    TileBatch,
    Wanted,
    code_digest,
    key_of,
    parse_blocks,
    tile_batches,
)
from bench.tile_judge import OK, SKIPPED

FILE = "check.jsonl"
DEVICES = ("cuda", "interpreter")
MOST_JOBS = 14  # each holds a CUDA context of half a gigabyte
Record = dict[str, Any]
Tell = Callable[[str], None]


@dataclass
class CheckResult:
    """What is known of the tiles asked for, earlier calls included.

    Attributes:
        counts: tiles by status. bad: records that are neither ok nor skipped.
        checked: tiles checked now. left: tiles that there was no time for.
    """

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[Record] = field(default_factory=list)
    checked: int = 0
    left: int = 0

    def add(self, record: Record) -> None:
        """Count a record."""
        self.counts[record["status"]] += 1
        if record["status"] not in (OK, SKIPPED):
            self.bad.append(record)

    @property
    def exit_code(self) -> int:
        """0, or 5 when a tile is wrong, failed or not repeatable."""
        return 5 if self.bad else 0


def run_check(
    wanted: Wanted,
    device: str,
    out: Path,
    minutes: float | None = None,
    jobs: int | None = None,
    tell: Tell = lambda text: None,
    check: tile_pool.Check | None = None,
) -> CheckResult:
    """Check the tiles that ``out`` does not know of yet, and append a line for each.

    Args:
        device: "cuda", or "interpreter" for Triton's interpreter on the CPU.
        minutes: stop cleanly after these.
        jobs: processes; 0 stays in this one, where a broken CUDA context ends it all.
        tell: called with a line of progress now and then.
        check: what checks a batch; ``tile_judge.check_batch`` when left out.

    Raises ValueError for bad input, StoreError, and PoolError or DeviceLost when nothing works.
    """
    deadline = monotonic() + 60 * (1e9 if minutes is None else minutes)
    path, mine = out / FILE, {"code": code_digest(), "device": device_name(device)}
    make_folder(out)
    mend(path)
    with _interpreting(device == "interpreter"):
        batches = tile_batches(wanted, 0 if device == "cuda" else -1)
        stored = _stored(path, mine)
        result, todo, total = _resume(batches, stored)
        tell(
            f"{mine['device']}: {total} tiles to check, {sum(result.counts.values())} known already"
        )
        check = check or tile_judge.check_batch
        for record in _records(todo, check, device, jobs, lambda: monotonic() >= deadline):
            write_lines(path, encode({**record, **mine}), len(stored) + result.checked)
            result.checked += 1
            result.add(record)
            if record["status"] != OK or result.checked % 50 == 0:
                tell(f"[{result.checked}/{total}] {describe(record)}")
    result.left = total - result.checked
    return result


def _resume(
    batches: list[TileBatch], stored: dict[tuple[Any, ...], Record]
) -> tuple[CheckResult, list[TileBatch], int]:
    """Return what is known, what is to do, and how many tiles that is."""
    result = CheckResult()
    for batch in batches:
        for item in batch.items:
            known = stored.get(key_of(batch.record(item, "", None)))
            if known:
                result.add(known)
    todo = [left for b in batches if (left := b.without(set(stored))).items]
    return result, todo, sum(len(b.items) for b in todo)


def _records(
    batches: list[TileBatch],
    check: tile_pool.Check,
    device: str,
    jobs: int | None,
    stop: Callable[[], bool],
) -> Iterator[Record]:
    device = "cuda" if device == "cuda" else "cpu"
    if jobs is None:
        affinity = getattr(os, "sched_getaffinity", None)
        jobs = min(MOST_JOBS, len(affinity(0)) if affinity else os.cpu_count() or 1)
    if jobs:
        yield from tile_pool.pooled(batches, check, device, jobs, stop)
        return
    for batch in batches:
        if stop():
            return
        for record in check(batch, device):
            yield record
            if stop():
                return


def _stored(path: Path, mine: dict[str, str]) -> dict[tuple[Any, ...], Record]:
    """Return the last record of each tile on this device with this code."""
    if not path.exists():
        return {}
    records = read_lines(path).records
    return {key_of(r): r for r in records if all(r.get(k) == v for k, v in mine.items())}


def device_name(device: str) -> str:
    """Return what a stored line was checked on.

    Raises:
        ValueError: an unknown device, or cuda where there is none.
    """
    if device not in DEVICES:
        raise ValueError(f"expected a device of {', '.join(DEVICES)}; got {device!r}")
    try:
        triton = f"triton {metadata.version('triton')}"
    except metadata.PackageNotFoundError:
        raise ValueError("expected Triton beside torch: pip install triton") from None
    if device == "interpreter":
        return f"interpreter, {triton}"
    if not torch.cuda.is_available():
        raise ValueError(
            "expected a CUDA device, found none (torch.cuda.is_available() is false); "
            "use --device interpreter to check on the CPU"
        )
    return f"{torch.cuda.get_device_name(0)}, {triton}"


@contextmanager
def _interpreting(yes: bool) -> Iterator[None]:
    """Let processes started meanwhile interpret the kernels (or not, whatever was set)."""
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1" if yes else "0"
    try:
        yield
    finally:
        del os.environ["TRITON_INTERPRET"]
        if before is not None:
            os.environ["TRITON_INTERPRET"] = before


def wanted_of(
    device: str,
    dtypes: Iterable[str] | None,
    blocks: Iterable[str] | None,
    passes: tuple[Any, ...],
    quick: bool,
) -> Wanted:
    """Return what is asked for by name.

    Raises:
        ValueError: an unknown name, or bfloat16 under the interpreter.
    """
    names = list(dtypes or (n for n in KINDS if device != "interpreter" or n != "bfloat16"))
    for name in names:
        if name not in KINDS:
            raise ValueError(f"expected dtypes of {', '.join(KINDS)}; got {name!r}")
        if device == "interpreter" and name == "bfloat16":
            raise ValueError("expected another dtype: the interpreter multiplies bfloat16 wrongly")
    kinds: tuple[Kind, ...] = tuple(KINDS[name] for name in dict.fromkeys(names))
    return Wanted(kinds, parse_blocks(list(blocks or ())), passes, quick)


def describe(record: Record) -> str:
    """Return one line about a tile for people."""
    block = "x".join(map(str, record["block"]))
    dtype = "tf32" if record["precision"] == "tf32" else record["dtype"]
    return (
        f"{record['status'].upper()}: {record['pass']} {dtype} block {block} tile {record['tile']} "
        f"({record['case']}): {record['reason'] or 'right'}"
    )
