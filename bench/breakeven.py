"""The sparsity from which on a sparse implementation is faster than dense. Floor 1: no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

ANSWERS = "breakeven.jsonl"  # one line a finished search, in a results folder
KEY = "search_id"
POINTS = (5, 9)


@dataclass(frozen=True)
class Point:
    """One density measured in pairs with dense.

    Attributes:
        blocks: kept blocks (filter group x channel group). sparsity: 1 - their share.
        speedup, low, high: dense over the implementation, with its 95 % interval.
    """

    blocks: int
    sparsity: float
    dense_s: float
    impl_s: float
    speedup: float
    low: float
    high: float


class Failed(Exception):
    """A point that could not be measured; the text says why.

    Attributes:
        status: of the cell that failed. points: those measured before.
    """

    def __init__(self, reason: str, status: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.points: tuple[Point, ...] = ()


class Answer(StrEnum):
    """How a search ended."""

    FOUND = "found"
    NEVER = "never"
    ALWAYS = "always"


@dataclass(frozen=True)
class BreakEven:
    """Where the two take equally long.

    Attributes:
        sparsity: interpolated; None unless found.
        low: the largest sparsity that is surely slower (its whole interval below 1), or 0.
        high: the least sparsity that is surely faster, or 1. Where points contradict each other
            (``monotone`` false) the interval spans all that are in doubt.
        points: all that were measured, by sparsity.
    """

    answer: Answer
    sparsity: float | None
    low: float
    high: float
    monotone: bool
    points: tuple[Point, ...]


def search(measure: Callable[[int], Point], least: int, most: int, points: int = 7) -> BreakEven:
    """Return the break-even sparsity by bisection over the kept blocks.

    Args:
        measure: blocks -> Point; may raise Failed.
        least, most: blocks of the sparsest and the densest pattern.
        points: measurements, 5 to 9; fewer where the layer has fewer densities.

    Raises:
        ValueError: points out of range. Failed: a point that could not be measured.
    """
    if not POINTS[0] <= points <= POINTS[1]:
        raise ValueError(f"expected {POINTS[0]} to {POINTS[1]} points, got {points}")
    found: list[Point] = []
    try:
        return _bisect(measure, least, most, points, found)
    except Failed as error:
        error.points = _ordered(found)
        raise


def _bisect(
    measure: Callable[[int], Point], least: int, most: int, points: int, found: list[Point]
) -> BreakEven:
    """Search, noting each point in ``found``."""
    found.append(measure(least))
    if found[0].speedup <= 1:
        return _result(Answer.NEVER, None, found)
    if most > least:
        found.append(measure(most))
    if found[-1].speedup >= 1:
        return _result(Answer.ALWAYS, None, found)
    faster, slower = found
    while len(found) < points and slower.blocks - faster.blocks > 1:
        point = measure((faster.blocks + slower.blocks) // 2)
        found.append(point)
        if point.speedup > 1:
            faster = point
        else:
            slower = point
    return _result(Answer.FOUND, _crossing(slower, faster), found)


def _crossing(slower: Point, faster: Point) -> float:
    """Return where the logarithm of the speed-up is 0 on the line between two points."""
    low, high = math.log(slower.speedup), math.log(faster.speedup)
    return slower.sparsity + (faster.sparsity - slower.sparsity) * low / (low - high)


def _result(answer: Answer, sparsity: float | None, found: list[Point]) -> BreakEven:
    low = max((p.sparsity for p in found if p.high < 1), default=0.0)
    high = min((p.sparsity for p in found if p.low > 1), default=1.0)
    monotone = low <= high
    low, high = min(low, high), max(low, high)
    return BreakEven(answer, sparsity, low, high, monotone, _ordered(found))


def _ordered(found: list[Point]) -> tuple[Point, ...]:
    return tuple(sorted(found, key=lambda p: p.sparsity))


def sentence(result: BreakEven, what: str) -> str:
    """Return the result in words."""
    last, first = result.points[-1], result.points[0]
    match result.answer:
        case Answer.NEVER:
            return f"{what}: never; {_told(last)}{_surely(last.high < 1)}"
        case Answer.ALWAYS:
            return f"{what}: always; {_told(first)}{_surely(first.low > 1)}"
    doubt = "" if result.monotone else "; points contradict each other"
    return f"{what}: sparsity {result.sparsity:.2f} ({result.low:.2f} to {result.high:.2f}){doubt}"


def _told(point: Point) -> str:
    interval = f"({point.low:.2f} to {point.high:.2f})"
    return f"{point.speedup:.2f}x {interval} at sparsity {point.sparsity:.2f}"


def _surely(sure: bool) -> str:
    return "" if sure else ", which is not sure"
