"""Which of the known layouts a folder holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.accuracy.data.facts import DataError, Spec

BATCHES = "python batches"
PARQUET = "parquet"
FOLDERS = "class folders"
TEST_FOLDERS = ("test", "val")
SHOWN = 8


class Found(NamedTuple):
    """A layout, and the folder that it lies in."""

    layout: str
    folder: Path


def batch_names(spec: Spec) -> tuple[list[str], list[str]]:
    """Return the (training, test) files of the official python batches."""
    if spec.classes == 100:
        return ["train"], ["test"]
    return [f"data_batch_{n}" for n in range(1, 6)], ["test_batch"]


def find(spec: Spec, root: str | Path) -> Found:
    """Return the one layout that ``root`` holds.

    Raises:
        DataError: no such folder; none of the known layouts, or two of them.
    """
    folder = Path(root)
    if not folder.is_dir():
        kind = "a file" if folder.exists() else "nothing"
        raise DataError(f"expected a folder that holds {spec.title}, got {kind} at {folder}")
    found = list(_present(spec, folder))
    if not found:
        raise DataError(
            f"expected {spec.title} in {folder} as {_expected(spec)}; got {_contents(folder)}"
        )
    if len(found) > 1:
        told = " and ".join(f"{each.layout} ({each.folder})" for each in found)
        raise DataError(f"expected one layout of {spec.title} in {folder}, got {told}")
    return found[0]


def _present(spec: Spec, root: Path) -> Iterator[Found]:
    if spec.folder:
        train, test = batch_names(spec)
        for folder in (root, root / spec.folder):
            if any((folder / name).is_file() for name in train + test):
                yield Found(BATCHES, folder)
    if spec.label_columns:
        for folder in (root, root / "data", root / "plain_text", root / "cifar100"):
            if any(shards(folder, "train")) or any(shards(folder, "test")):
                yield Found(PARQUET, folder)
    if (root / "train").is_dir():
        yield Found(FOLDERS, root)


def shards(folder: Path, part: str) -> list[Path]:
    """Return the parquet files of "train" or "test" in a folder, by name."""
    return sorted(path for path in folder.glob(f"{part}*.parquet") if path.is_file())


def _expected(spec: Spec) -> str:
    folders = "class folders (train/<class>/*.png or .jpg, and test/ or val/ alike)"
    if not spec.folder:
        return "class folders (train/<class>/*.jpg and val/<class>/*.jpg)"
    train, test = batch_names(spec)
    listed = train + test if len(train) == 1 else [f"{train[0]} ... {train[-1][-1]}", *test]
    return (
        f"python batches ({spec.folder}/ with {', '.join(listed)}), "
        f"parquet (train*.parquet and test*.parquet, here or in data/) or {folders}"
    )


def _contents(folder: Path) -> str:
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    if not names:
        return "an empty folder"
    more = f", ... ({len(names):,} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
