"""What the gate says of a cell. Floor 0: no torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class VerdictKind(StrEnum):
    """What the gate says of one cell."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    INCOMPARABLE = "incomparable"
    MISSING = "missing"
    WRONG = "wrong"


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one cell, and why."""

    cell_id: str
    label: str
    kind: VerdictKind
    reason: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
