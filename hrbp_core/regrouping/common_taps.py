"""HRBP++: every block keeps one common set of taps, and the budget is spent entry by entry.

A block of all taps costs R * S entries; blocks of fewer taps are more blocks. Free (``taps``
None), the entries are those of the greatest total score, chosen exactly under coverage and
balance; with a fixed count every block has its best ``taps`` taps, and the last block what is
left.
"""

from __future__ import annotations

import numpy as np

from hrbp_core.regrouping.problem import Flags, Integers, Limits, Problem
from hrbp_core.regrouping.selection import choose_blocks, choose_entries


def entry_limits(problem: Problem) -> Limits:
    """Return the limits in entries: coverage by entries, balance as of all-tap blocks."""
    return Limits.of(
        problem.grid,
        problem.entries,
        coverage=problem.coverage,
        balance=problem.balance,
        taps=problem.tap_scores.shape[2],
    )


def best_entries(problem: Problem, scores: Integers, limits: Limits | None = None) -> Flags:
    """Return bool [Gk, Gc, R * S]: the entries to keep.

    Args:
        scores: int64 [Gk, Gc, R * S], of each entry.
        limits: of free entries; the problem's own when left out.
    """
    if problem.taps is None:
        return choose_entries(scores, limits or entry_limits(problem))
    taps, blocks = problem.taps, -(-problem.entries // problem.taps)
    order = np.argsort(-scores, axis=2, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=2)
    block_limits = Limits.of(
        scores.shape[:2],  # type: ignore[arg-type]
        blocks,
        coverage=problem.coverage,
        balance=problem.balance,
    )
    kept = choose_blocks(ordered[:, :, :taps].sum(axis=2), block_limits)
    counts = np.where(kept, taps, 0)
    left = problem.entries - (blocks - 1) * taps
    loss = ordered[:, :, left:taps].sum(axis=2)
    counts.reshape(-1)[np.where(kept, loss, np.iinfo(np.int64).max).argmin()] = left
    entries = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(entries, order, np.arange(scores.shape[2]) < counts[:, :, None], axis=2)
    return entries
