"""Folders of results side by side: labels, the cells that they share, ratios with intervals.

Nothing is averaged across folders. A cell is shared where every folder has a speed-up over its
own dense reference for the same case; what is then compared is that speed-up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.frames import Record, records, stacked
from bench.records import OURS, Environment
from bench.stats import geometric_mean, mean_interval
from bench.store import StoreError
from bench.table import ALL, PASSES
from reports import data
from reports.data import ReportData
from reports.picture import block_order

SETTINGS = ["dtype", "layout", "mode", "pattern"]  # never mixed in a mean or a figure
CASE = ["shape", "block", "density", "recipe_seed", *SETTINGS]
KEY = [*CASE, "pass"]
NEARLY = ["size", "block", "density", "recipe_seed", "layout", "pattern", "pass"]  # of any batch
COLUMNS = [
    *KEY, "layer", "suite", "device", "environment", "speedup", "speedup_low", "speedup_high",
    "median_s", "low_s", "high_s", "dense_s", "dense_low_s", "dense_high_s", "stored_weights",
]  # fmt: skip
LABEL_LENGTH = 36  # letters; the beginning and the end of a longer name are kept
CPU_FACTS = ("cpu", "threads")  # of the machine too, where the processor is what computes
Span = tuple[float, float, float]  # value, low, high at 95 %


@dataclass(frozen=True)
class Folder:
    """One folder of a comparison.

    Attributes:
        label: its name, told apart from the others'. path: where it lies.
        cells: our speed-ups, one row a case and pass ("all": the three together), :data:`COLUMNS`.
        doubled: cells stored under several environments, suites or layer names; the last counts.
    """

    label: str
    data: ReportData
    cells: pd.DataFrame
    doubled: int
    path: Path

    @property
    def machines(self) -> list[Environment | None]:
        """The environments of our cells, in order; None for one that no file explains."""
        used = set(self.cells["environment"]) or set(self.data.names)
        known = [e for key, e in self.data.environments.items() if key in used]
        return [*known, *([None] if used - set(self.data.environments) else [])]


@dataclass(frozen=True)
class SharedCell:
    """One case and pass in every folder; ``rows`` in the folders' order."""

    rows: tuple[Record, ...]

    def __getitem__(self, name: str) -> Any:
        return self.rows[0][name]

    def speedup(self, place: int) -> Span:
        """Return a folder's speed-up over its dense with its interval."""
        row = self.rows[place]
        return row["speedup"], row["speedup_low"], row["speedup_high"]

    def ratio(self, place: int) -> Span:
        """Return a folder's speed-up over the first folder's; the interval is the corners'."""
        (value, low, high), (first, least, most) = self.speedup(place), self.speedup(0)
        return value / first, low / most, high / least

    def time_ratio(self, place: int, dense: bool = False) -> float:
        """Return a folder's median over the first folder's."""
        name = "dense_s" if dense else "median_s"
        return float(self.rows[place][name] / self.rows[0][name])


def load(paths: Sequence[Path]) -> list[Folder]:
    """Return the folders in this order.

    Raises:
        StoreError: fewer than two, one twice, or one that cannot be read.
    """
    if len(paths) < 2:
        raise StoreError(f"expected two folders or more to compare, got {len(paths)}")
    places = Counter(path.resolve() for path in paths)
    for place, times in places.items():
        if times > 1:
            raise StoreError(f"expected each folder once in a comparison, got {place} {times} ×")
    found = []
    for path, label in zip(paths, labels(paths), strict=True):
        loaded = data.load(path)
        cells, doubled = own_cells(loaded)
        found.append(Folder(label, loaded, cells, doubled, path))
    return found


def labels(paths: Sequence[Path]) -> list[str]:
    """Return the folders' names on one line each, with parents where names are equal."""
    parts = [path.resolve().parts[1:] or ("results",) for path in paths]
    names = [part[-1] for part in parts]
    for depth in range(2, max(map(len, parts)) + 1):
        several = Counter(names)
        names = [
            "/".join(part[-depth:]) if several[name] > 1 else name
            for part, name in zip(parts, names, strict=True)
        ]
    seen: Counter[str] = Counter()
    told = []
    for name in names:
        text = _clipped(" ".join(name.encode("utf-8", "replace").decode().split()) or "results")
        seen[text] += 1
        told.append(text if seen[text] == 1 else f"{text} ({seen[text]})")
    return told


def _clipped(name: str) -> str:
    half = LABEL_LENGTH // 2
    return name if len(name) <= LABEL_LENGTH else f"{name[: half - 1]}…{name[-half:]}"


def own_cells(loaded: ReportData) -> tuple[pd.DataFrame, int]:
    """Return our speed-ups, one row a case and pass, and how many cells were stored again.

    Of a case under several environments the one that was added last counts; under several suites
    or layer names the last by name.
    """
    together = loaded.totals.rename(columns={"total_s": "median_s", "dense_total_s": "dense_s"})
    frames = [loaded.rows, together.assign(**{"pass": ALL})]
    ours = stacked([f[f["impl"] == OURS] for f in frames], COLUMNS).dropna(subset="speedup")
    age = {key: i for i, key in enumerate(loaded.environments)}
    order = ours.assign(_age=[age.get(key, -1) for key in ours["environment"]])
    order = order.sort_values(["_age", "suite", "layer"], kind="stable").drop(columns="_age")
    again = order.duplicated(KEY, keep="last")
    return order[~again], int((again & (order["pass"] != ALL)).sum())


def shared_cells(folders: Sequence[Folder], key: Sequence[str] = tuple(KEY)) -> list[SharedCell]:
    """Return what all folders have, "all" passes too: by settings, layer, block, density, pass."""
    tables: list[dict[tuple[Any, ...], Record]] = [
        {tuple(row[name] for name in key): row for row in records(folder.cells)}
        for folder in folders
    ]
    common = [k for k in tables[0] if all(k in table for table in tables[1:])]
    return sorted((SharedCell(tuple(t[k] for t in tables)) for k in common), key=_place)


def nearly_shared(folders: Sequence[Folder]) -> list[SharedCell]:
    """Return what all have when batch, number format, mode and device are left out of the case.

    ``batch`` and ``size`` are the shape in two. A cell that a folder has in several such settings
    is left out: none stands for the others.
    """
    loose = []
    for folder in folders:
        shapes = folder.cells["shape"].str.split(" ", n=1)
        cells = folder.cells.assign(batch=shapes.str[0], size=shapes.str[1])
        cells = cells.drop_duplicates(NEARLY, keep=False)
        loose.append(replace(folder, cells=cells))
    return shared_cells(loose, NEARLY)


def _place(cell: SharedCell) -> tuple[Any, ...]:
    settings = tuple(cell[name] for name in SETTINGS)
    which = [*PASSES, ALL].index(cell["pass"])
    block, layer = block_order(cell["block"]), (cell["layer"], cell["shape"])
    return settings, layer, block, -cell["density"], cell["recipe_seed"], which


def single(cells: Sequence[SharedCell]) -> list[SharedCell]:
    """Return the cells of one pass, as they were measured, without the sums over passes."""
    return [cell for cell in cells if cell["pass"] != ALL]


def mean_speedup(cells: Sequence[SharedCell], place: int) -> Span:
    """Return a folder's geometric mean; the ends are the means of the cells' ends."""
    spans = [cell.speedup(place) for cell in cells]
    value, low, high = (geometric_mean(ends) for ends in zip(*spans, strict=True))
    return value, low, high


def mean_ratio(cells: Sequence[SharedCell], place: int) -> Span:
    """Return the geometric mean of the cells' ratios to the first folder's speed-ups.

    The interval is Student's over the cells' logarithms; of one cell it is the cell's own.
    """
    if len(cells) == 1:
        return cells[0].ratio(place)
    return _mean([cell.ratio(place)[0] for cell in cells])


def mean_time_ratio(cells: Sequence[SharedCell], place: int, dense: bool) -> Span:
    """Return the geometric mean of the ratios of medians; NaN ends for one cell."""
    return _mean([cell.time_ratio(place, dense) for cell in cells])


def _mean(values: Sequence[float]) -> Span:
    value, low, high = (math.exp(v) for v in mean_interval([math.log(v) for v in values]))
    return value, low, high


def split(
    cells: Sequence[SharedCell], place: int
) -> tuple[list[SharedCell], list[SharedCell], list[SharedCell]]:
    """Return the cells whose speed-up is above the first folder's, undecided, below.

    Above and below: the two intervals do not meet.
    """
    ratios = [(cell, *cell.ratio(place)[1:]) for cell in cells]
    above = [cell for cell, low, _ in ratios if low > 1]
    below = [cell for cell, _, high in ratios if high < 1]
    return above, [cell for cell, low, high in ratios if low <= 1 <= high], below


def fingerprint(environment: Environment) -> dict[str, Any]:
    """Return the facts that must agree before times are compared: the gate's hard facts.

    On a CPU the processor's name and the threads are among them.
    """
    facts = environment.hard
    if environment.device == "cpu":
        facts |= {name: getattr(environment, name) for name in CPU_FACTS}
    return facts


def machine_differences(first: Folder, other: Folder) -> list[str]:
    """Return the facts in which the machines of two folders differ; [] for one machine."""
    found = [*first.machines, *other.machines]
    if not first.machines or not other.machines or None in found:
        return ["a machine that is not described"]
    facts = [fingerprint(e) for e in found if e is not None]
    names = dict.fromkeys(name for fact in facts for name in fact)
    return [n.replace("_", " ") for n in names if len({str(f.get(n)) for f in facts}) > 1]
