"""``load`` and ``stream``: a name and a folder become a data set."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.accuracy.data import batches, folders, parquet
from bench.accuracy.data.bundled import digits
from bench.accuracy.data.facts import DataError, Spec, known
from bench.accuracy.data.images import Tally
from bench.accuracy.data.layouts import BATCHES, FOLDERS, PARQUET, find
from bench.accuracy.data.parts import Part, assemble
from bench.accuracy.data.split import Split
from bench.accuracy.data.stream import Stream, open_stream

MOST_WORKERS = 16
STREAMED = ("imagenet",)
READERS: Mapping[str, Callable[[Spec, Path, Tally], tuple[Part, Part]]] = {
    BATCHES: batches.read,
    PARQUET: parquet.read,
    FOLDERS: folders.read,
}


def load(name: str, root: str | Path | None = None, *, skip_unreadable: bool = False) -> Split:
    """Return a data set that fits memory.

    Args:
        name: "digits", "cifar10" or "cifar100".
        root: the folder that holds it, in one of the layouts of ``READERS``; None for digits.
        skip_unreadable: leave images out that cannot be decoded, and count them in the facts.

    Raises:
        DataError: an unknown name; a root that is missing, needless, or holds anything but one
            whole data set in one layout; images or labels that are unfit. The text says what
            was expected, and names the file.
    """
    spec = known(name)
    if name == "digits":
        if root is not None:
            raise DataError(f"expected no root for digits, which come bundled; got {root}")
        return digits()
    if name in STREAMED:
        raise DataError(f"expected data that fits memory, got {name}: stream() reads it")
    layout, folder = find(spec, _given(spec, root))
    tally = Tally()
    train, test = READERS[layout](spec, folder, tally)
    tally.check(skip_unreadable)
    return assemble(name, spec, layout, train, test, tally)


def stream(
    name: str,
    root: str | Path | None,
    *,
    workers: int | None = None,
    skip_unreadable: bool = False,
    size: int | None = None,
) -> Stream:
    """Return a data set that does not fit memory: "imagenet", as class folders.

    Args:
        root: holds ``train/<class>/*`` and ``val/<class>/*``.
        workers: processes that decode; 0: this one does; None: one a core, 16 at most.
        skip_unreadable: leave images out that cannot be decoded, and count them.
        size: height and width of a batch's images; None: 224.

    Raises:
        DataError: as :func:`load`.
    """
    spec = known(name)
    if name not in STREAMED:
        raise DataError(f"expected one of {', '.join(STREAMED)} to stream, got {name}: load() it")
    for told, value, least in (("workers", workers, 0), ("size", size, 1)):
        if value is not None and (isinstance(value, bool) or value < least):
            raise DataError(f"expected {told} as an int >= {least}, got {value!r}")
    _, folder = find(spec, _given(spec, root))
    return open_stream(
        name,
        spec,
        folder,
        workers=decoders() if workers is None else workers,
        skip_unreadable=skip_unreadable,
        size=size,
    )


def decoders() -> int:
    """Return how many processes decode a stream: one a core, 16 at most."""
    affinity = getattr(os, "sched_getaffinity", None)
    return min(len(affinity(0)) if affinity else os.cpu_count() or 1, MOST_WORKERS)


def _given(spec: Spec, root: str | Path | None) -> str | Path:
    if root is None:
        raise DataError(f"expected a folder that holds {spec.title} as root, got none")
    return root
