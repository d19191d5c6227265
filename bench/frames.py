"""Rows and groups of a table with plain types; pandas calls every label merely hashable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import pandas as pd

Record = dict[str, Any]


def records(frame: pd.DataFrame) -> list[Record]:
    """Return the rows as dicts by column name."""
    return cast(list[Record], frame.to_dict("records"))


def groups(
    frame: pd.DataFrame, columns: list[str], *, sort: bool = True
) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Yield (values of ``columns``, their rows); unsorted, in the order of first rows."""
    for key, group in frame.groupby(columns, dropna=False, sort=sort):
        yield cast(tuple[Any, ...], key), group


def stacked(frames: Iterable[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """Return the rows of all frames, one under another, in ``columns``.

    pd.concat warns, and changes its mind between versions, where a column is empty in one frame.
    """
    return pd.DataFrame([row for frame in frames for row in records(frame)], columns=columns)
