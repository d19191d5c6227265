"""When the pattern is updated, and which share of it is dropped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """Steps are counted from 1: step 1 ends with the first ``dst.step()``."""

    def due(self, step: int) -> bool:
        """Return whether the pattern is updated after ``step``."""

    def fraction(self, step: int) -> float:
        """Return the share of the kept units to drop after ``step``; 0 when all is over."""


@dataclass(frozen=True, kw_only=True)
class CosineDrop:
    """``drop / 2 * (1 + cos(pi * step / until))`` every ``every`` steps (RigL, section 3).

    >>> CosineDrop(drop=0.5, every=10, until=40).fraction(20)
    0.25

    Attributes:
        drop: the share at step 0, in (0, 1].
        every: steps from one update to the next.
        until: no update after this step or on it; RigL takes 3/4 of all steps.

    Raises:
        TypeError, ValueError: a number out of range.
    """

    drop: float = 0.3
    every: int = 100
    until: int

    def __post_init__(self) -> None:
        if not (isinstance(self.drop, (int, float)) and 0 < self.drop <= 1):
            raise ValueError(f"expected drop in (0, 1], got {self.drop!r}")
        for name in ("every", "until"):
            number = getattr(self, name)
            if not isinstance(number, int) or isinstance(number, bool):
                raise TypeError(f"expected {name} as an int, got {number!r}")
            if number < 1:
                raise ValueError(f"expected {name} >= 1, got {number}")

    def due(self, step: int) -> bool:
        """Return whether the pattern is updated after ``step``."""
        return step % self.every == 0 and 0 < step < self.until

    def fraction(self, step: int) -> float:
        """Return the share of the kept units to drop after ``step``; 0 from ``until`` on."""
        if step >= self.until:
            return 0.0
        return self.drop / 2 * (1 + math.cos(math.pi * step / self.until))
