"""What was measured: the fastest right tile of a problem on a GPU of this name.

``tuned.json`` holds what ``python -m bench tune`` found. HRBP_TUNED names another file, or says
``off``. A file is read once a process, when the first problem is looked up; what is found for a
problem is kept with it, so that a launch costs no more than without a table.

An entry serves its exact geometry, batch and block, and densities of its bucket; those of the
buckets beside it where there is no nearer entry.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from hrbp_core.kernels.choice import kind_of, legal_tiles, parts_limit
from hrbp_core.kernels.problem import Problem
from hrbp_core.kernels.tile_types import RowWgradTile, Tile, WgradTile
from hrbp_core.shapes import Pass

TABLE = Path(__file__).with_name("tuned.json")
VARIABLE, OFF = "HRBP_TUNED", "off"
SCHEMA = 1
BUCKETS_A_HALVING = 3  # 1, 0.79, 0.63, 0.5, ... 0.25, ... 0.125, 0.1: 26 % between neighbours
FARTHEST = 1  # buckets away at which a measured tile still goes before a predicted one
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Entry:
    """What one line of the table says of its problem.

    Attributes:
        bucket: of ``density_bucket``. tile: its name. parts: of wgrad, else None.
    """

    bucket: int
    tile: str
    parts: int | None


Table = dict[Key, tuple[Entry, ...]]


def lookup(
    conv_pass: Pass, problem: Problem, dtype: torch.dtype, gpu: str, capability: int
) -> tuple[Tile, int | None] | None:
    """Return (tile, parts) of the nearest entry whose tile is legal, or None.

    Args:
        gpu: the device's name. capability: its compute capability, 90 for an H100.

    Raises:
        ValueError: a table that cannot be read.
    """
    entries = present().get(_key(identity(conv_pass, problem, dtype, gpu)), ())
    if not entries:
        return None
    place, own = _place(problem), density_bucket(problem)
    legal = {tile.name: tile for tile in legal_tiles(conv_pass, problem, dtype, capability)}
    near = [e for e in entries if abs(e.bucket - own) <= FARTHEST and e.tile in legal]
    if not near:
        return None
    entry = min(near, key=lambda e: abs(e.bucket - place))
    tile, parts = legal[entry.tile], entry.parts
    if parts is not None and isinstance(tile, WgradTile | RowWgradTile):
        parts = min(parts, parts_limit(problem, tile, dtype.itemsize))  # more entries, more memory
    return tile, parts


def density_bucket(problem: Problem) -> int:
    """Return the bucket of a problem's density: 0 for 1, 3 for a half, 6 for a quarter."""
    return math.floor(_place(problem) + 0.5)


def _place(problem: Problem) -> float:
    groups, (_, _, r, s) = problem.groups, problem.shape
    density = max(1, problem.entries) / (groups[0] * groups[1] * r * s)
    return -BUCKETS_A_HALVING * math.log2(density)


def identity(conv_pass: Pass, problem: Problem, dtype: torch.dtype, gpu: str) -> dict[str, Any]:
    """Return the fields of an entry that say which problem it is of, the bucket left out."""
    stride, padding, dilation = problem.geometry
    return {
        "gpu": gpu, "pass": str(conv_pass), "kind": kind_of(dtype, problem.precision),
        "shape": list(problem.shape), "size": list(problem.size), "stride": list(stride),
        "padding": list(padding), "dilation": list(dilation), "batch": problem.batch,
        "block": list(problem.block), "whole": problem.whole,
    }  # fmt: skip


def _key(fields: dict[str, Any]) -> Key:
    found = (fields[name] for name in IDENTITY)
    return tuple(tuple(v) if isinstance(v, list) else v for v in found)


def present() -> Table:
    """Return the table in use: empty when HRBP_TUNED says off."""
    said = os.environ.get(VARIABLE, "")
    return {} if said == OFF else load(Path(said) if said else TABLE)


@lru_cache(maxsize=8)
def load(path: Path) -> Table:
    """Return the entries of a table by problem.

    Raises:
        ValueError: no such file, no table, an entry that is not one, a problem twice.
    """
    found: dict[Key, dict[int, Entry]] = {}
    for number, fields in enumerate(read(path), 1):
        entry = Entry(fields["density_bucket"], fields["tile"], fields["parts"])
        buckets = found.setdefault(_key(fields), {})
        if entry.bucket in buckets:
            raise ValueError(f"{path} entry {number}: expected each problem once, got it again")
        buckets[entry.bucket] = entry
    return {key: tuple(buckets.values()) for key, buckets in found.items()}


def read(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a table as they are stored, each checked.

    Raises:
        ValueError: no such file, no table, or an entry that is not one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"expected a table of tiles at {path}, got {error}") from error
    try:
        table = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: expected a table of tiles in JSON, got {error}") from error
    if not isinstance(table, dict) or not isinstance(table.get("entries"), list):
        got = sorted(table) if isinstance(table, dict) else f"a {type(table).__name__}"
        raise ValueError(f"{path}: expected an object with schema and entries, got {got}")
    if table.get("schema") != SCHEMA:
        raise ValueError(f"{path}: expected schema {SCHEMA}, got {table.get('schema')!r}")
    for number, fields in enumerate(table["entries"], 1):
        check_entry(fields, f"{path} entry {number}")
    return list(table["entries"])


def check_entry(fields: Any, where: str) -> None:
    """Raise a ValueError unless ``fields`` is an entry of a table; ``where`` it stands."""
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: expected an object, got a {type(fields).__name__}")
    for name, (words, right) in FIELDS.items():
        if name not in fields:
            raise ValueError(f"{where}: expected {name}, {words}; got {', '.join(fields)}")
        if not right(fields[name]):
            raise ValueError(f"{where}: expected {name} as {words}, got {fields[name]!r}")
    if (fields["pass"] == Pass.WGRAD) != (fields["parts"] is not None):
        raise ValueError(f"{where}: expected parts with wgrad alone, got {fields['parts']!r}")


def _int(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _ints(count: int, least: int) -> Callable[[Any], bool]:
    def right(value: Any) -> bool:
        return (
            isinstance(value, list) and len(value) == count and all(_int(v, least) for v in value)
        )

    return right


def _name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _us(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0


FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "gpu": ("a name", _name),
    "pass": (f"one of {', '.join(Pass)}", lambda v: v in tuple(map(str, Pass))),
    "kind": ("one of half, tf32, ieee", lambda v: v in ("half", "tf32", "ieee")),
    "shape": ("K, C, R, S", _ints(4, 1)),
    "size": ("H, W", _ints(2, 1)),
    "stride": ("two ints from 1 on", _ints(2, 1)),
    "padding": ("two ints from 0 on", _ints(2, 0)),
    "dilation": ("two ints from 1 on", _ints(2, 1)),
    "batch": ("an int from 1 on", lambda v: _int(v, 1)),
    "block": ("block_k, block_c", _ints(2, 1)),
    "whole": ("true or false", lambda v: isinstance(v, bool)),
    "density_bucket": ("an int from 0 on", lambda v: _int(v, 0)),
    "tile": ("a name", _name),
    "parts": ("an int from 1 on, or null", lambda v: v is None or _int(v, 1)),
    "median_us": ("microseconds above 0", _us),
    "default_us": ("microseconds above 0, or null", lambda v: v is None or _us(v)),
    "versions": ("an object", lambda v: isinstance(v, dict)),
    "date": ("a date", _name),
}
IDENTITY = tuple(FIELDS)[: tuple(FIELDS).index("density_bucket")]
