"""The kinds of thing that a section is made of; a picture is the fourth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from reports.picture import Picture


@dataclass(frozen=True)
class Paragraph:
    """Running text; ``strong`` for a heading within a section."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Cells of text; ``widths`` are relative, one a column."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    widths: tuple[float, ...]


Block: TypeAlias = Paragraph | Bullets | Table | Picture
