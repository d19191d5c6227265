"""From lines of ``tune.jsonl`` to the table that hrbp_core looks tiles up in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.jsonl import Lines, read_lines, replace_file
from bench.tune import FILE
from bench.tune_cases import kernels_digest
from bench.tune_result import DONE
from hrbp_core.kernels import tuned

NAME = "tuned.json"  # in a results folder: the library's table and what was tuned there


@dataclass(frozen=True)
class Merged:
    """What a merge did.

    Attributes:
        new, changed, same: entries of the runs by what the table said before.
        total: entries of the table now. without: problems for which no candidate was right.
        other_code: entries tuned with other kernels than these.
        torn: torn last lines that were left out.
    """

    new: int
    changed: int
    same: int
    total: int
    without: int
    other_code: int
    torn: int


def merge(folders: Sequence[Path], table: Path, base: Path | None = None) -> Merged:
    """Put the winners of tuning runs into a table; of two for one problem the later one counts.

    Args:
        folders: with a ``tune.jsonl`` each. table: the file to write; made when missing.
        base: the table that they are added to; ``table`` itself when left out.

    Raises:
        ValueError: a folder without lines, a table or a line that cannot be read.
    """
    base = table if base is None else base
    entries = {key_of(e): e for e in tuned.read(base)} if base.exists() else {}
    before, lines = dict(entries), [_lines(folder) for folder in folders]
    done = [r for each in lines for r in each.records if r.get("status") == DONE]
    found: dict[str, dict[str, Any]] = {}
    for record in sorted((r for r in done if r.get("best")), key=lambda r: str(r.get("date"))):
        entry = entry_of(record)
        found[key_of(entry)] = entry
    entries |= found
    write(table, [entries[key] for key in sorted(entries)])
    return Merged(
        new=sum(key not in before for key in found),
        changed=sum(key in before and before[key] != entry for key, entry in found.items()),
        same=sum(before.get(key) == entry for key, entry in found.items()),
        total=len(entries),
        without=sum(not r.get("best") for r in done),
        other_code=sum(entry["code"] != kernels_digest() for entry in found.values()),
        torn=sum(len(each.torn) for each in lines),
    )


def _lines(folder: Path) -> Lines:
    path = folder / FILE
    if not path.exists():
        raise ValueError(f"expected {path}, as `python -m bench tune --out` writes it; got none")
    return read_lines(path, key="key")


def entry_of(record: dict[str, Any]) -> dict[str, Any]:
    """Return a finished line as an entry of the table.

    Raises:
        ValueError: it lacks something that an entry has, or has it in another form.
    """
    best, default = record["best"], record.get("default", {})
    entry = {name: record.get(name) for name in (*tuned.IDENTITY, "density_bucket")} | {
        "tile": best.get("tile"), "parts": best.get("parts"),
        "median_us": best.get("median_us"), "default_us": default.get("median_us"),
        "default_tile": default.get("tile"), "default_parts": default.get("parts"),
        "versions": record.get("versions"), "code": record.get("code"), "date": record.get("date"),
    }  # fmt: skip
    tuned.check_entry(entry, f"{FILE}, the line of {record.get('label', record['key'])}")
    return entry


def key_of(entry: dict[str, Any]) -> str:
    """Return what two entries of one problem share, in an order for people: by GPU first."""
    return json.dumps([entry[name] for name in (*tuned.IDENTITY, "density_bucket")])


def write(table: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Write a table, an entry a line: what changed is seen in a diff."""
    lines = ",\n".join(json.dumps(entry, allow_nan=False) for entry in entries)
    inner = f"\n{lines}\n" if lines else ""
    replace_file(table, f'{{"schema": {tuned.SCHEMA}, "entries": [{inner}]}}\n')
