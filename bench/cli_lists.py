"""Options that are lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def split(text: str | None, name: str, kind: Callable[[str], T]) -> tuple[T, ...] | None:
    """Return a comma-separated option as a tuple; None when it was left out."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError(f"expected --{name} as a comma-separated list, got {text!r}")
    try:
        return tuple(kind(part) for part in parts)
    except ValueError as error:
        raise ValueError(
            f"expected --{name} as a list of {kind.__name__}, got {text!r} ({error})"
        ) from error
