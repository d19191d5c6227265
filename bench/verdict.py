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
    """What the gate says of one cell, and why.

    Attributes:
        ratio, low, high: head / base and its interval; None without times.
        margin: the smallest slow-down, as a share, that would have shown.
        p, p_wilcoxon: of no slow-down above the tolerance. trials: those it was judged by.
        base_s, head_s: median seconds a call.
    """

    cell_id: str
    label: str
    kind: VerdictKind
    reason: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    p: float | None = None
    p_wilcoxon: float | None = None
    trials: int | None = None
    base_s: float | None = None
    head_s: float | None = None
