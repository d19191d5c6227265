"""What one trial says of one cell, and what follows from statuses alone. Floor 0: no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from bench.verdict import VerdictKind

Outcome: TypeAlias = tuple[str, str] | None  # (status, reason) of what is not ok
WRONG = ("wrong", "impossible")
# what a cell says that could be timed, and was not, for another process's could not
NO_TURN = "no turn was left for it"
# what a call says to code that is older or newer than itself
NO_API = ("AttributeError", "ImportError", "ModuleNotFoundError", "NameError", "TypeError")


@dataclass(frozen=True)
class Reading:
    """One trial of one cell.

    Attributes:
        d, a: logarithms, see ``evidence``; None when a process has no times.
        base_s, head_s: median seconds a call.
        flags: of any of the three processes. throttled: heat or a brake held one back.
        base, head: what is not ok there.
    """

    d: float | None = None
    a: float | None = None
    base_s: float | None = None
    head_s: float | None = None
    flags: tuple[str, ...] = ()
    throttled: bool = False
    base: Outcome = None
    head: Outcome = None

    @property
    def timed(self) -> bool:
        """Whether it is evidence."""
        return self.d is not None and not self.throttled


Trial: TypeAlias = dict[str, Reading]


def judge_outcomes(base: Outcome, head: Outcome) -> tuple[VerdictKind, str]:
    """Return (kind, reason) of a cell that is not ok on both sides."""
    if head is not None and head[0] in WRONG:
        return VerdictKind.WRONG, f"{_text(head)} in head; {_status(base)} in base"
    if head is not None and head[0] == "crashed":
        return VerdictKind.MISSING, f"{_text(head)} in head; {_status(base)} in base"
    if head is None:
        return VerdictKind.PASS, f"ok in head; {_text(base)} in base, no time to compare with"
    if base is None:
        return VerdictKind.MISSING, f"{_text(head)} in head; ok in base"
    if base == head:
        return VerdictKind.PASS, f"{_text(head)} in both"
    return VerdictKind.INCONCLUSIVE, f"{_text(head)} in head; {_text(base)} in base"


def lacks_api(base: Outcome, head: Outcome) -> bool:
    """Return whether base fails as code does that the suite does not fit."""
    return head is None and base is not None and base[0] == "crashed" and base[1].startswith(NO_API)


def _status(outcome: Outcome) -> str:
    return outcome[0] if outcome else "ok"


def _text(outcome: Outcome) -> str:
    return f"{outcome[0]} ({outcome[1]})" if outcome else "ok"
