"""``ceilings.json``: every size that was measured, and the best of each name."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.ceilings import Ceiling, best
from bench.jsonl import make_folder, replace_file
from bench.records import SCHEMA, Environment

FILE = "ceilings.json"


def to_dict(found: list[Ceiling], facts: Environment) -> dict[str, Any]:
    """Return plain JSON types: the best of each name first, then every size with its samples."""
    top = best(found)
    return {
        "schema": SCHEMA,
        "environment": asdict(facts),
        "copy_bytes_per_s": top["copy"].rate,
        "launch_s": top["launch"].rate,
        "graph_launch_s": top["graph_launch"].rate,
        "matrix_flops_per_s": {
            name: each.rate
            for name, each in top.items()
            if name not in ("copy", "launch", "graph_launch")
        },
        "measured": [asdict(each) for each in found],
    }


def write(found: list[Ceiling], facts: Environment, out: Path) -> Path:
    """Write ``ceilings.json`` into a folder and return its path.

    Raises:
        StoreError: the folder cannot be used.
    """
    make_folder(out)
    path = out / FILE
    replace_file(path, json.dumps(to_dict(found, facts), indent=1, allow_nan=False) + "\n")
    return path
