"""Results for other programs: pytest-benchmark's JSON, CSV and Parquet. Floor 1: no torch.

====================  =========================================================================
``pytest-benchmark``  one benchmark a cell that is ok (:mod:`bench.benchmark_json`); the others
                      under ``hrbp_not_measured``, with status and reason
``csv``, ``parquet``  one row a cell (:func:`bench.table.rows`); null where nothing was measured
====================  =========================================================================

pytest-benchmark's file describes one machine, so a folder of several environments asks which one;
the tables have a column for it and take all.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.benchmark_json import to_document
from bench.jsonl import StoreError, encode, make_folder
from bench.records import Status
from bench.store import ENVIRONMENTS, Results, read_results
from bench.table import rows

FILES = {
    "pytest-benchmark": "benchmark.json",
    "csv": "results.csv",
    "parquet": "results.parquet",
}
# what an export must never replace; no .jsonl either
KEPT = (ENVIRONMENTS, "ceilings.json")
# columns that hold a figure only where a cell is ok
MEASURED = [
    "median_s", "low_s", "high_s", "min_s", "p05_s", "p95_s", "iqr_s", "severe", "gflops",
    "attainment", "rounds_rejected",
]  # fmt: skip
WHOLE = ["recipe_seed", "stored_weights", "samples", "severe", "peak_bytes", "rounds_rejected"]
NUMBERS = [
    *(name for name in MEASURED if name not in WHOLE),
    "dense_s", "dense_low_s", "dense_high_s", "speedup", "speedup_low", "speedup_high",
    "flops", "least_bytes", "ceiling_flops_per_s", "ceiling_bytes_per_s", "floor_s", "prep_s",
    "calls_to_pay", "energy_j",
]  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        counts: cells by status. torn: text of a torn last line of the store, left out, if any.
    """

    path: Path
    counts: dict[str, int]
    torn: list[str]


def export(
    folder: Path | str, form: str, out: Path | str | None = None, environment: str | None = None
) -> Exported:
    """Write a results folder in another format, atomically; an earlier export is replaced.

    Args:
        folder: a results folder; its own files are only read. form: one of :data:`FILES`.
        out: the file; in the folder, under the name in :data:`FILES`, when left out.
        environment: id of the only one to take.

    Raises:
        ValueError: an unknown format or environment; several environments where a file describes
            one; a file that is none of ours to replace.
        StoreError: no results, or a store that cannot be read; a file that cannot be written.
        ImportError: pytest-benchmark or pyarrow is not installed, and the format needs it.
    """
    if form not in FILES:
        raise ValueError(f"expected a format of {', '.join(FILES)}; got {form!r}")
    results = read_results(folder)
    chosen = _choose(results, environment, one=form == "pytest-benchmark")
    path = _target(Path(out) if out is not None else results.folder / FILES[form])
    if form == "pytest-benchmark":
        payload = encode(to_document(results, chosen))
    else:
        payload = _table_bytes(to_frame(results, environment), form)
    _replace(path, payload)
    taken = [m for m in results.measurements if environment is None or m.environment == chosen]
    return Exported(path, dict(Counter(str(m.status) for m in taken)), results.torn)


def to_frame(results: Results, environment: str | None = None) -> pd.DataFrame:
    """Return the rows of a folder, of one environment where asked; null where nothing is known.

    Columns are those of :func:`bench.table.rows`. A cell that is not ok has a reason and no
    time, not even one that was found impossible; a cell that is ok has no reason.
    """
    table = rows(results)
    if environment is not None:
        table = table[table["environment"] == environment].reset_index(drop=True)
    for name in (*NUMBERS, *WHOLE):  # a column that no cell fills has no type yet
        table[name] = pd.to_numeric(table[name])
    whole, numbers = dict.fromkeys(WHOLE, "Int64"), dict.fromkeys(NUMBERS, "float64")
    table = table.astype({**whole, **numbers, "paired": "boolean", "reason": "string"})
    table.loc[table["status"] != str(Status.OK), MEASURED] = pd.NA
    table["reason"] = table["reason"].mask(table["reason"] == "")
    return table


def _choose(results: Results, wanted: str | None, *, one: bool) -> str:
    """Return the environment's id; any where none was asked for and a file may hold all."""
    counts = Counter(m.environment for m in results.measurements)
    names = [f"{n} ({results.environments[n].device_name}, {k} cells)" for n, k in counts.items()]
    if wanted is not None and wanted not in counts:
        raise ValueError(f"expected an environment of {', '.join(names)}; got {wanted!r}")
    if wanted is None and one and len(counts) > 1:
        raise ValueError(
            f"expected one environment for a file of pytest-benchmark, got {len(counts)}: "
            f"{', '.join(names)}; choose one with --environment"
        )
    return wanted or next(iter(counts))


def _table_bytes(table: pd.DataFrame, form: str) -> bytes:
    if form == "csv":
        return table.to_csv(index=False, lineterminator="\n").encode("utf-8")
    buffer = io.BytesIO()
    table.to_parquet(buffer, engine="pyarrow", index=False)
    return buffer.getvalue()


def _target(path: Path) -> Path:
    """Return the file behind ``path``, or refuse one that an export must not replace."""
    path = path.resolve()
    if path.suffix == ".jsonl" or path.name in KEPT:
        raise ValueError(f"expected another file than one of a store, got {path}")
    if path.exists() and not path.is_file():
        got = "a folder" if path.is_dir() else "a device or a pipe"
        raise ValueError(f"expected a file to write, got {got} at {path}")
    return path


def _replace(path: Path, payload: bytes) -> None:
    """Write ``payload`` to ``path`` so that a reader sees the old content or the new, whole."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(f"expected to write {path}, got {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
