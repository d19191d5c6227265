"""A history of stored results: series over folders, and their steps. No torch.

Only what is alike is compared: one machine (hard facts), suite, dtype, layout, mode and pattern
make one history. A cell's series is its speed-up over dense in the same rounds, where every
folder has one: what the machine did that day is in both, and falls out. Else it is its time.
How steps are found: :mod:`bench.change_points`.

====  =====================================================================
exit  meaning
====  =====================================================================
0     no step to slower, or each was undone
1     a pass is slower than before a step, by 3 % at least, and stays so
2     usage; a folder that cannot be read
4     no two folders can be compared
====  =====================================================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from bench.change_points import LEAST_STEP, Segmented, segmented, shifted
from bench.frames import groups, records
from bench.history import History, Revision, Series, Trend, TrendStep
from bench.records import OURS, Environment
from bench.store import Results, read_results
from bench.table import ALL, PASSES
from bench.trend_points import GROUP, points, repeated
from bench.trend_series import cell_series, mean_series

SHORT = 7  # digits of a commit
PANELS = (*PASSES, ALL)


def trend(folders: Sequence[Path | str], impl: str = OURS) -> Trend:
    """Return the histories of ``impl`` over folders of results, in the order given.

    Raises:
        StoreError: a folder that cannot be read. ValueError: no folder, or one twice.
        ImportError: ``ruptures`` is not installed, and a series is long enough for steps.
    """
    read = _read(folders)
    table = points(read, impl)
    found = [_history(key, group, read) for key, group in groups(table, GROUP, sort=False)]
    found = [history for history in found if history.cells]
    found.sort(key=lambda history: (-len(history.revisions), -len(history.cells)))
    means = sum(len(history.passes) for history in found)
    cells = sum(len(history.cells) for history in found)
    judged = tuple(_judged(history, means, cells) for history in found)
    return Trend(impl, judged, _notes(read, judged, impl))


def _read(folders: Sequence[Path | str]) -> list[Results]:
    paths = [Path(folder) for folder in folders]
    if not paths:
        raise ValueError("expected folders of results, got none")
    seen: dict[Path, Path] = {}
    for path in paths:
        if path.resolve() in seen:
            raise ValueError(f"expected each folder once, got {path} again")
        seen[path.resolve()] = path
    return [read_results(path) for path in paths]


def _history(key: tuple[str, ...], group: pd.DataFrame, read: Sequence[Results]) -> History:
    """Return one machine's and context's series, no steps looked for yet."""
    folders = sorted(set(group["folder"]))
    cells, single = cell_series(group, folders)
    by_pass = {name: [s for s in cells if s.conv_pass == name] for name in PANELS}
    last = records(group.drop_duplicates("folder", keep="last").sort_values("folder"))
    environments = [read[row["folder"]].environments[row["environment"]] for row in last]
    return History(
        machine=environments[-1].hard,
        context=dict(zip(GROUP[1:], key[1:], strict=True)),
        revisions=_revisions(group, folders, read, environments),
        passes={name: mean_series(name, found) for name, found in by_pass.items() if found},
        cells=tuple(cells),
        single=single,
    )


def _revisions(
    group: pd.DataFrame,
    folders: Sequence[int],
    read: Sequence[Results],
    environments: Sequence[Environment],
) -> tuple[Revision, ...]:
    commits: list[tuple[str, ...]] = []
    shorts: list[str] = []
    for folder in folders:
        facts = read[folder].environments
        names = dict.fromkeys(group.loc[group["folder"] == folder, "environment"])
        commits.append(tuple(dict.fromkeys(facts[name].commit or "" for name in names)))
        dirty = any(facts[name].dirty for name in names)
        short = _short(commits[-1][0]) if len(commits[-1]) == 1 else ""
        shorts.append(short and short + ("+" if dirty else ""))
    paths = [read[folder].folder for folder in folders]
    labels = shorts if all(shorts) and len(set(shorts)) == len(shorts) else _tails(paths)
    before = [environments[0], *environments]
    return tuple(
        Revision(str(path), each, label, _software(old, new))
        for path, each, label, old, new in zip(
            paths, commits, labels, before, environments, strict=False
        )
    )


def _short(commit: str) -> str:
    return commit[:SHORT] if re.fullmatch("[0-9a-f]{8,}", commit) else commit


def _tails(paths: Sequence[Path]) -> list[str]:
    """Return the last parts of each path, as many as tell all of them apart."""
    whole = [path.resolve() for path in paths]
    for count in range(1, max(len(path.parts) for path in whole) + 1):
        tails = ["/".join(path.parts[-count:]) for path in whole]
        if len(set(tails)) == len(tails):
            break
    return tails


def _software(before: Environment, after: Environment) -> str:
    old, new = before.soft, after.soft
    return ", ".join(f"{n} {old[n]} -> {new[n]}" for n in old if old[n] != new[n])


def _judged(history: History, means: int, cells: int) -> History:
    """Return the history with its steps, where so many means and cells are judged together."""
    own = tuple(_with_steps(series, cells) for series in history.cells)
    passes = {}
    for name, series in history.passes.items():
        stepped = _with_steps(series, means)
        members = [s for s in own if s.conv_pass == name and s.kind == series.kind]
        steps = tuple(
            replace(step, cells=_moved(stepped, number, members))
            for number, step in enumerate(stepped.steps)
        )
        passes[name] = replace(stepped, steps=steps)
    return replace(history, passes=passes, cells=own)


def _with_steps(series: Series, together: int) -> Series:
    places, logs = series.places, series.logs
    found = segmented([logs[place] for place in places], together)
    steps = tuple(
        TrendStep(
            position=places[step.first],
            last_before=places[step.first - 1],
            size=step.size,
            low=step.size - step.half,
            high=step.size + step.half,
            standing=step.size > 0 and _remains(step.before, found),
        )
        for step in found.steps
    )
    return replace(series, found=found, steps=steps)


def _remains(before: float, found: Segmented) -> bool:
    return found.levels[-1] - before >= math.log1p(LEAST_STEP)


def _moved(mean: Series, number: int, members: Sequence[Series]) -> tuple[tuple[str, float], ...]:
    """Return (label, size) of the cells that moved with a step of their mean, largest first.

    Where is known from the mean, so each cell is asked for that place alone.
    """
    step = mean.steps[number]
    start = mean.steps[number - 1].position if number else 0
    end = mean.steps[number + 1].position if number + 1 < len(mean.steps) else len(mean.values)
    moved = []
    for series in members:
        logs, places = series.logs, series.places
        before = [logs[i] for i in places if start <= i <= step.last_before]
        after = [logs[i] for i in places if step.position <= i < end]
        size = shifted(before, after, series.found, len(places), len(members))
        if size * step.size > 0:
            moved.append((series.name, size))
    return tuple(sorted(moved, key=lambda item: -abs(item[1])))


def _notes(read: Sequence[Results], histories: Sequence[History], impl: str) -> list[str]:
    notes = []
    used = {revision.folder for history in histories for revision in history.revisions}
    for results in read:
        if results.torn:
            notes.append(f"{results.folder}: the torn last line was left out")
        again = repeated(results)
        if again:
            notes.append(f"{results.folder}: {again} cells were measured again; the last counts")
        if str(results.folder) not in used:
            notes.append(f"{results.folder}: no cell of {impl} that another folder has, too")
    return notes
