"""Folders of a comparison: what each is, what some lack, and in what their machines differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

from bench.frames import records
from bench.records import OURS, Environment
from bench.step_table import step_rows
from bench.table import ALL
from reports import style
from reports.compare import KEY, SETTINGS, Folder
from reports.compare_networks import ARM, STEP
from reports.findings import machine
from reports.parts import Block, Paragraph, Table

WORDS = {"dirty": "uncommitted changes"}
SAME, DIFFERS, UNKNOWN = "", "≠", "—"
Held = dict[tuple[Any, ...], tuple[str, str]]  # what tells a thing apart -> its kind and name


def folder_lines(folders: Sequence[Folder]) -> list[str]:
    """Return what each folder holds and where it was made, a line a folder."""
    lines = []
    for folder in folders:
        data = folder.data
        held = [
            style.counted(number, noun)
            for number, noun in (
                (len(data.rows), "cell"),
                (len(data.runs), "training run"),
                (len(data.steps), "step timing"),
            )
            if number
        ]
        where = [machine(data.environments.get(key), name) for key, name in data.names.items()]
        if len(where) == 1:
            where = [where[0].partition(": ")[2]]
        told = style.listed(held or ["no cell and no training run"])
        lines.append(f"{folder.label} holds {told}. {'; '.join(where) or 'No machine is named'}.")
    return lines


def lacking_blocks(folders: Sequence[Folder]) -> Iterator[Block]:
    """Yield a table of what some folders have and others lack."""
    rows = [
        row
        for held in (_cells, _failed, _impls, _arms, _steps, _files)
        for row in _lacking(folders, [held(folder) for folder in folders])
    ]
    if not rows:
        yield Paragraph("Every folder has what the others have.")
        return
    columns = ("what", "count", "in", "not in", "which")
    yield Table(columns, tuple(rows), (2.2, 0.6, 1.2, 1.2, 3.2))


def _lacking(folders: Sequence[Folder], held: Sequence[Held]) -> Iterator[tuple[str, ...]]:
    """Yield (what, count, has, lacks, which), one row a kind of thing and set of folders."""
    named = {key: line for part in held for key, line in part.items()}
    found: dict[tuple[str, tuple[int, ...]], Counter[str]] = {}
    for key, (kind, which) in named.items():
        there = tuple(i for i, part in enumerate(held) if key in part)
        if len(there) < len(folders):
            found.setdefault((kind, there), Counter())[which] += 1
    for (kind, there), counts in found.items():
        has = [folders[i].label for i in there]
        lacks = [f.label for i, f in enumerate(folders) if i not in there]
        which = ", ".join(name if n == 1 else f"{name} ({n})" for name, n in counts.items())
        yield kind, str(counts.total()), ", ".join(has), ", ".join(lacks), which


def _cells(folder: Folder) -> Held:
    rows = folder.cells[folder.cells["pass"] != ALL]
    return {
        tuple(r[n] for n in KEY): (
            f"cells of {OURS}: {r['dtype']} · {r['layout']} · {r['mode']} · {r['pattern']}",
            f"{r['layer']} {r['shape'].split(' ')[0]}",
        )
        for r in records(rows.sort_values([*SETTINGS, "layer", "shape"], kind="stable"))
    }


def _failed(folder: Folder) -> Held:
    rows = folder.data.rows
    failed = rows[(rows["impl"] == OURS) & rows["speedup"].isna()]
    return {
        (folder.label, r["cell_id"], r["environment"]): (
            f"cells of {OURS} without a speed-up: "
            + (r["status"] if r["status"] != "ok" else "no dense time"),
            r["layer"],
        )
        for r in records(failed)
    }


def _impls(folder: Folder) -> Held:
    return {(name,): ("implementations", name) for name in sorted(set(folder.data.rows["impl"]))}


def _arms(folder: Folder) -> Held:
    return {
        tuple(r[n] for n in ARM): (
            f"arms of training: {r['data']}, {r['model']}",
            r["arm"] if r["density"] == 1 else f"{r['arm']} {style.percent(1 - r['density'])}",
        )
        for r in records(folder.data.summary)
    }


def _steps(folder: Folder) -> Held:
    return {
        tuple(r[n] for n in STEP): (
            "whole training steps",
            f"{r['model']} N {r['batch']}, {style.percent(1 - r['density'])}, block {r['block']}, "
            f"{r['method']}, {r['mode']}, {r['precision']}",
        )
        for r in records(step_rows(folder.data.steps))
    }


def _files(folder: Folder) -> Held:
    return {(name,): ("files", name) for name, _ in folder.data.sources}


def environment_blocks(folders: Sequence[Folder]) -> Iterator[Block]:
    """Yield a table of every fact, a column a folder; rows that differ are marked."""
    rows, differ = [], []
    machines = [folder.machines for folder in folders]
    for fact in (field.name for field in fields(Environment)):
        texts = tuple(_fact(found, fact) for found in machines)
        if set(texts) == {UNKNOWN}:
            continue
        mark = DIFFERS if len(set(texts)) > 1 else SAME
        name = WORDS.get(fact, fact.replace("_", " "))
        rows.append((mark, name, *texts))
        differ += [name] if mark else []
    told = f"They differ in {style.listed(differ)}." if differ else "No fact differs."
    yield Paragraph(
        f"{told} A row that differs is marked {DIFFERS}; {UNKNOWN} is a fact not known; what no "
        "folder knows is left out. Several values of one folder are of several environments."
    )
    labels = tuple(folder.label for folder in folders)
    yield Table(("", "fact", *labels), tuple(rows), (0.25, 1.2, *(2.0 for _ in labels)))


def _fact(machines: Sequence[Environment | None], name: str) -> str:
    """Return a fact; of several environments in one folder each value, in order."""
    words = {None: UNKNOWN, True: "yes", False: "no"}
    values = []
    for found in machines:
        value = None if found is None else asdict(found)[name]
        plain = value is None or isinstance(value, bool)
        values.append(words[value] if plain else str(value)[: 12 if name == "commit" else None])
    return " / ".join(dict.fromkeys(values)) or UNKNOWN


def source_blocks(folders: Sequence[Folder]) -> Iterator[Block]:
    """Yield the files that the comparison was made from, with their hashes."""
    for folder in folders:
        for text in folder.data.torn:
            yield Paragraph(
                f"{folder.label}: a torn line could not be read and was left out: {text[:300]}"
            )
    rows = [
        (folder.label, name, digest) for folder in folders for name, digest in folder.data.sources
    ]
    yield Table(("folder", "file", "SHA-256"), tuple(rows), (1.2, 1.0, 4.6))
