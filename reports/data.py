"""What a report is made from: every table of one folder, and names for machines and contexts."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench import accuracy_table, store, summary, table
from bench.breakeven import ANSWERS, KEY
from bench.frames import stacked
from bench.gate_result import GATE, SELF_TEST, read_json
from bench.quality import plan as quality_plan
from bench.quality.plan import OPTIMUM, OPTIMUM_KEY
from bench.quality.table import frame
from bench.records import Environment, RecordError
from bench.step_table import STEPS, read_steps

INPUTS = (
    "results.jsonl", "environment.json", "accuracy.jsonl", STEPS, ANSWERS, quality_plan.FILE,
    OPTIMUM, GATE, SELF_TEST,
)  # fmt: skip
Key = tuple[Any, ...]


@dataclass(frozen=True)
class ReportData:
    """Every table of one folder, as :mod:`bench.table` and :mod:`bench.accuracy_table` make them.

    Attributes:
        attainment, ceilings, paying, swept: as :mod:`bench.summary` makes them, the last by
            its ``break_evens``.
        breakeven: the lines of breakeven.jsonl, one a search.
        quality: one row a line of quality.jsonl. optimum: the lines of optimum.jsonl.
        steps: the lines of steps.jsonl, one a comparison of whole training steps.
        gate, self_test: what gate.json and self_test.json say, or None.
        environments: by id; an id that no file explains is absent.
        names: environment id -> E1, E2, ... in order of device name.
        torn: reports of unreadable last lines.
        sources: (file name, SHA-256) of the files that were read.
    """

    rows: pd.DataFrame
    totals: pd.DataFrame
    coverage: pd.DataFrame
    missing: pd.DataFrame
    runs: pd.DataFrame
    summary: pd.DataFrame
    gaps: pd.DataFrame
    attainment: pd.DataFrame
    ceilings: pd.DataFrame
    paying: pd.DataFrame
    swept: pd.DataFrame
    breakeven: list[dict[str, Any]]
    quality: pd.DataFrame
    optimum: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    gate: dict[str, Any] | None
    self_test: dict[str, Any] | None
    environments: dict[str, Environment]
    names: dict[str, str]
    torn: list[str]
    sources: list[tuple[str, str]]

    @property
    def failed(self) -> pd.DataFrame:
        """Every cell that is not ok, the missing ones at the end."""
        frames = [self.rows[self.rows["status"] != "ok"], self.missing]
        return stacked(frames, table.ROW_COLUMNS)

    @property
    def nothing_timed(self) -> bool:
        """True when no cell was timed and no network trained: something else was done here."""
        return not len(self.rows) and not len(self.runs) and not self.breakeven

    def contexts(self) -> list[Key]:
        """Return the kernel contexts in reading order: canonical layouts before standalone."""
        keys = self.rows[table.CONTEXT].drop_duplicates().itertuples(index=False, name=None)
        place = table.CONTEXT.index
        return sorted(keys, key=lambda k: (self.names[k[0]], k[place("layout")], k))

    def arm_contexts(self) -> list[Key]:
        """Return the contexts of the accuracy runs."""
        columns = accuracy_table.ACCURACY_CONTEXT
        keys = self.runs[columns].drop_duplicates().itertuples(index=False, name=None)
        return sorted(keys, key=lambda k: (self.names[k[0]], k))

    def images(self, key: Key) -> str:
        """Return what the images of an accuracy context are: "CIFAR-10 (JPEG-75)"."""
        told = [p for p in key[3].split(", ") if p.startswith("images ") and p != "images null"]
        return told[0].removeprefix("images ") if told else str(key[1])

    def label(self, key: Key, *, short: bool = False) -> str:
        """Return a context in words; ``short`` keeps what differs between contexts, maybe ''."""
        keys = self.contexts() if len(key) == len(table.CONTEXT) else self.arm_contexts()
        parts = []
        for place, value in enumerate(key):
            text = self.names[value] if place == 0 else str(value)
            values = {str(k[place]) for k in keys}
            if place and short:
                text = own_settings(text, values)
            if not short or len(values) > 1:
                parts.append(text)
        return " · ".join(p for p in parts if p)


def own_settings(text: str, others: Collection[str]) -> str:
    """Return those of the settings ``a, b, c`` that not all ``others`` have; all if they do."""
    common = set.intersection(*(set(o.split(", ")) for o in others)) if others else set()
    own = [part for part in text.split(", ") if part not in common]
    return ", ".join(own) or text


def own_pattern(pattern: str, patterns: Collection[str]) -> str:
    """Return what a pattern has of its own among an arm's: "dst static" where others move.

    How a pattern moves is told by its method alone, unless that leaves two patterns alike.
    """
    full = {p: p for p in patterns}
    if any("dst " in p for p in patterns):
        full = {p: p if "dst " in p else f"dst static, {p}" for p in patterns}
        brief = {
            p: ", ".join(part for part in text.split(", ") if not part.startswith("dst_"))
            for p, text in full.items()
        }
        full = brief if len(set(brief.values())) == len(brief) else full
    return own_settings(full[pattern], full.values())


def pick(frame: pd.DataFrame, columns: list[str], key: Key) -> pd.DataFrame:
    """Return the rows whose ``columns`` are ``key``."""
    chosen = pd.Series(True, index=frame.index)
    for column, value in zip(columns, key, strict=True):
        chosen &= frame[column] == value
    return frame[chosen]


def named_arms(arms: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a column ``name``: the arm, and what is its own among several."""
    several = arms.groupby("arm")["pattern"].nunique() > 1
    names = []
    for arm, pattern in zip(arms["arm"], arms["pattern"], strict=True):
        twins = set(arms.loc[arms["arm"] == arm, "pattern"])
        names.append(f"{arm}, {own_pattern(pattern, twins)}" if several[arm] else arm)
    return arms.assign(name=names)


def load(folder: Path) -> ReportData:
    """Return the tables of ``folder``.

    Raises:
        StoreError: files that cannot be read, or neither results nor accuracy there.
    """
    if not folder.is_dir():
        raise store.StoreError(f"expected a folder of results at {folder}, got none")
    names = [name for name in INPUTS if name != "environment.json"]
    if not any((folder / name).exists() for name in names):
        raise store.StoreError(
            f"expected {', '.join(names)} in {folder}, got none of them; {store.MEASURE} {folder}"
        )
    results = _results(folder)
    searches = _lines(folder / ANSWERS, KEY)
    quality = _lines(folder / quality_plan.FILE, quality_plan.KEY)
    optimum = _lines(folder / OPTIMUM, OPTIMUM_KEY)
    rows = table.rows(results)
    totals = table.totals(rows)
    with warnings.catch_warnings(record=True) as torn:
        warnings.simplefilter("always")
        runs = accuracy_table.accuracy_rows(store.read_accuracy(folder))
    with warnings.catch_warnings(record=True) as torn_steps:
        warnings.simplefilter("always")
        steps = read_steps(folder)
    return ReportData(
        rows=rows,
        totals=totals,
        coverage=table.coverage(rows),
        missing=table.missing(rows),
        runs=runs,
        summary=accuracy_table.accuracy_summary(runs),
        gaps=accuracy_table.accuracy_gaps(runs),
        attainment=summary.attainments(rows),
        ceilings=summary.ceilings(rows),
        paying=summary.paying(rows),
        swept=summary.break_evens(totals),
        breakeven=searches.records,
        quality=frame(quality.records),
        optimum=optimum.records,
        steps=steps,
        gate=read_json(folder / GATE),
        self_test=read_json(folder / SELF_TEST),
        environments=results.environments,
        names=_names(results.environments, _used(rows, runs, steps)),
        torn=[
            *results.torn,
            *("accuracy.jsonl, a torn last line" for _ in torn),
            *(f"{STEPS}, a torn last line" for _ in torn_steps),
            *(f"{ANSWERS}, a torn last line" for _ in searches.torn),
            *(f"{quality_plan.FILE}, a torn last line" for _ in quality.torn),
            *(f"{OPTIMUM}, a torn last line" for _ in optimum.torn),
        ],
        sources=list(_sources(folder)),
    )


def _used(rows: pd.DataFrame, runs: pd.DataFrame, steps: list[dict[str, Any]]) -> set[str]:
    return {*rows["environment"], *runs["environment"], *(line["environment"] for line in steps)}


def _lines(path: Path, key: str) -> store.Lines:
    return store.read_lines(path, key) if path.exists() else store.Lines([], [])


def _results(folder: Path) -> store.Results:
    """Return the results; with none stored, an empty sweep and the environments that are known."""
    if (folder / "results.jsonl").exists():
        return store.read_results(folder)
    path = folder / "environment.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        environments = {name: Environment.from_dict(f) for name, f in facts.items()}
    except (json.JSONDecodeError, RecordError, AttributeError) as error:
        raise store.StoreError(f"expected environments in {path}, got {error}") from error
    return store.Results([], environments, [], folder)


def _names(environments: dict[str, Environment], used: set[str]) -> dict[str, str]:
    def order(key: str) -> tuple[str, str]:
        found = environments.get(key)
        return (found.device_name if found else "~", key)

    return {key: f"E{i}" for i, key in enumerate(sorted(used, key=order), 1)}


def _sources(folder: Path) -> Iterator[tuple[str, str]]:
    for name in INPUTS:
        if (folder / name).exists():
            yield name, hashlib.sha256((folder / name).read_bytes()).hexdigest()
