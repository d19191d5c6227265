"""A base is promoted explicitly: a copy of results under a name, and who it is. No torch.

``INTO/NAME/`` holds the files that the gate reads and ``promoted.json``, which names them by
content. It appears whole or not at all: it is made beside, and renamed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.jsonl import replace_file
from bench.records import SCHEMA, Environment, Measurement, Status
from bench.store import ENVIRONMENTS, RESULTS, Results, StoreError, read_results
from bench.whole_folder import TakenError, sync, whole_folder

FILE = "promoted.json"
CEILINGS = "ceilings.json"
FILES = (RESULTS, ENVIRONMENTS, CEILINGS)  # the last where it is there
SHORT = 10  # digits of a commit that a name has
NAMED = 3  # cells that a refusal names
_BAD = (Status.WRONG, Status.IMPOSSIBLE)


class PromotionError(ValueError):
    """A base that cannot be made, or that is not what it says; the text says why."""


@dataclass(frozen=True)
class Promotion:
    """What ``promoted.json`` says.

    Attributes:
        name: of the base. when: in UTC, ISO 8601. source: the results folder, as given.
        commits: of its cells, in order; none where no commit is known.
        dirty: with uncommitted changes; None where that is not known.
        cells: their number, by status.
        machines: hard and soft facts of each environment that has cells.
        forced: what was wrong with the results, where ``--force`` was given.
        files: SHA-256 by file name.
    """

    name: str
    when: str
    source: str
    commits: tuple[str, ...]
    dirty: bool | None
    cells: dict[str, int]
    machines: tuple[dict[str, Any], ...]
    forced: tuple[str, ...]
    files: dict[str, str]


def promote(
    source: Path | str,
    into: Path | str,
    name: str | None = None,
    *,
    force: bool = False,
    replace: bool = False,
) -> Promotion:
    """Copy results to ``into/name`` as a base, whole or not at all.

    Args:
        source: a results folder. name: the short commit when left out.
        force: take results that are wrong, not from one clean commit, or torn at the end; what
            was forced is written down. replace: take the place of a base of this name.

    Raises:
        PromotionError: results that are refused, a name that is taken or none.
        StoreError: a folder that cannot be read or written.
    """
    results, into = read_results(source), Path(into)
    if not _count(results).get(Status.OK):
        raise PromotionError(f"expected an ok cell in {source}, got {_counted(results)}")
    faults = _faults(results)
    if faults and not force:
        more = " (--force promotes nevertheless, and writes that down)"
        raise PromotionError(f"{'; '.join(faults)}{more}")
    name = _checked_name(_default_name(results) if name is None else name)
    try:
        with whole_folder(into / name, replace=replace) as folder:
            return _fill(folder, results, name, str(source), tuple(faults))
    except TakenError as error:
        raise PromotionError(f"{error}: choose another name, or --replace it") from error
    except OSError as error:
        raise StoreError(f"expected to write a base into {into}, got: {error}") from error


def promoted(folder: Path | str) -> Promotion:
    """Return who the base in ``folder`` is; its files are what was promoted, byte for byte.

    Raises:
        PromotionError: no base there, another schema, fields or files that are missing or
            changed.
    """
    path = Path(folder) / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PromotionError(f"expected a promoted base with {path}, got: {error}") from error
    promotion = _parsed(data, path)
    for name, digest in promotion.files.items():
        found = _sha256(path.with_name(name))
        if found != digest:
            raise PromotionError(
                f"expected {path.with_name(name)} as it was promoted, got "
                f"{'other content' if found else 'none'}: promote the base again"
            )
    return promotion


def commit_of_base(into: Path, name: str) -> str:
    """Return the commit that the base ``into/name`` was measured at, for measuring it again.

    Raises:
        PromotionError: no such base; a forced one of no commit, several, or uncommitted changes.
    """
    promotion = promoted(Path(into) / _checked_name(name))
    if len(promotion.commits) != 1 or promotion.dirty:
        got = ", ".join(promotion.commits) or "no commit"
        changes = " with uncommitted changes" if promotion.dirty else ""
        raise PromotionError(
            f"expected a base of one commit to measure again, got {name!r} of {got}{changes}"
        )
    return promotion.commits[0]


def _count(results: Results) -> dict[str, int]:
    """Return the number of cells by status."""
    found = Counter(str(m.status) for m in results.latest().values())
    return {str(status): found[status] for status in Status if found[status]}


def _counted(results: Results) -> str:
    return ", ".join(f"{n} {status}" for status, n in _count(results).items())


def _faults(results: Results) -> list[str]:
    """Return what speaks against results as a base, one "expected ..., got ..." each."""
    found = []
    bad = [m for m in results.latest().values() if m.status in _BAD]
    if bad:
        names = ", ".join(_named(m) for m in bad[:NAMED]) + (", ..." if len(bad) > NAMED else "")
        found.append(f"expected no wrong or impossible cell, got {len(bad)}: {names}")
    used = _used(results)
    commits = _commits(used)
    if any(e.commit is None for e in used):
        found.append("expected results of a known commit, got results without one")
    if len(commits) > 1:
        found.append(f"expected results of one commit, got {len(commits)}: {', '.join(commits)}")
    if any(e.dirty for e in used):
        found.append("expected results of a commit, got uncommitted changes beside it")
    if results.torn:
        found.append(f"expected whole lines in {RESULTS}, got a torn last one")
    return found


def _named(measurement: Measurement) -> str:
    case = measurement.cell.case
    block = "x".join(map(str, case.recipe.block))
    place = f"{case.layer} {block} {case.recipe.density:g} {case.conv_pass}"
    return f"{place} {measurement.cell.impl} ({measurement.status})"


def _used(results: Results) -> list[Environment]:
    """Return the environments that have cells, in order."""
    names = dict.fromkeys(m.environment for m in results.measurements)
    return [results.environments[name] for name in names]


def _commits(used: Sequence[Environment]) -> list[str]:
    return list(dict.fromkeys(e.commit for e in used if e.commit is not None))


def _default_name(results: Results) -> str:
    commits = _commits(_used(results))
    if len(commits) != 1:
        raise PromotionError(f"expected --name for results of {len(commits)} commits, got none")
    return commits[0][:SHORT]


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[^/\\\x00-\x1f.\s][^/\\\x00-\x1f]*", name):
        raise PromotionError(
            f"expected a name without path separators that starts with no dot or blank, got "
            f"{name!r}"
        )
    return name


def _fill(
    folder: Path, results: Results, name: str, source: str, forced: tuple[str, ...]
) -> Promotion:
    """Make the base in ``folder`` and return what its promoted.json says."""
    files = [file for file in FILES if (results.folder / file).exists()]
    for file in files:
        shutil.copyfile(results.folder / file, folder / file)
        sync(folder / file)
    copied = read_results(folder)
    if copied.measurements != results.measurements:
        raise PromotionError(f"expected {source} to stay as it is, got a writer at work there")
    used = _used(results)
    dirty = [e.dirty for e in used]
    promotion = Promotion(
        name=name,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        source=source,
        commits=tuple(_commits(used)),
        dirty=True if any(dirty) else None if None in dirty else False,
        cells=_count(results),
        machines=_distinct(used),
        forced=forced,
        files={file: _sha256(folder / file) or "" for file in files},
    )
    text = json.dumps({"schema": SCHEMA, **asdict(promotion)}, indent=1, allow_nan=False)
    replace_file(folder / FILE, text + "\n")
    return promotion


def _distinct(used: Sequence[Environment]) -> tuple[dict[str, Any], ...]:
    """Return hard and soft facts, each machine once."""
    facts = [{**e.hard, **e.soft} for e in used]
    return tuple(each for i, each in enumerate(facts) if each not in facts[:i])


def _sha256(path: Path) -> str | None:
    """Return a file's digest; None for no file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def _parsed(data: Any, path: Path) -> Promotion:
    """Return the promotion that ``data`` describes, its types checked."""
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        got = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise PromotionError(f"expected schema {SCHEMA} in {path}, got {got!r}")
    kinds: dict[str, Any] = {
        "name": str, "when": str, "source": str, "commits": list, "dirty": bool | None,
        "cells": dict, "machines": list, "forced": list, "files": dict,
    }  # fmt: skip
    for field, kind in kinds.items():
        if field not in data or not isinstance(data[field], kind):
            raise PromotionError(f"expected {field} in {path}, got {data.get(field)!r}")
    if RESULTS not in data["files"] or not set(data["files"]) <= set(FILES):
        raise PromotionError(f"expected files of {FILES} in {path}, got {list(data['files'])}")
    fields = {field: data[field] for field in kinds}
    for field in ("commits", "machines", "forced"):
        fields[field] = tuple(fields[field])
    return Promotion(**fields)
