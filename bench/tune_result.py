"""What tuning found, in words: the lines of ``tune.jsonl`` read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.stats import geometric_mean

DONE, LOST, UNABLE = "done", "lost", "skipped"  # of a line
TIMED, DROPPED, PRUNED = "timed", "dropped", "pruned"  # of a candidate, beside tile_judge's
FINE = (TIMED, DROPPED, PRUNED)
Record = dict[str, Any]


@dataclass
class TuneResult:
    """What is known of the tasks asked for, earlier calls included.

    Attributes:
        records: lines of these tasks. bad: a sentence for each candidate that is wrong, fails or
            is not repeatable. tuned: tasks tuned now. left: those that there was no time for.
        torn: what was torn in the file; the next line sets it aside.
    """

    records: list[Record] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    tuned: int = 0
    left: int = 0
    torn: list[str] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Count a line."""
        self.records.append(record)
        for each in record.get("candidates", ()):
            if each["status"] not in FINE:
                name = f"{each['tile']}" + (f" in {each['parts']}" if each["parts"] else "")
                words = f"{each['status'].upper()}: {record['label']} tile {name}"
                self.bad.append(f"{words}: {each['reason']}")

    @property
    def exit_code(self) -> int:
        """0, or 5 when a candidate is wrong, fails or is not repeatable."""
        return 5 if self.bad else 0


def describe(record: Record) -> str:
    """Return one line about a task for people."""
    if record["status"] != DONE:
        return f"{record['label']}: {record['status']}: {record['reason']}"
    counts = Counter(each["status"] for each in record["candidates"])
    told = ", ".join(f"{n} {status}" for status, n in counts.items())
    best, default = record["best"], record["default"]
    if best is None:
        return f"{record['label']}: no candidate is right; {told}"
    name = best["tile"] + (f" in {best['parts']}" if best["parts"] else "")
    text = f"{record['label']}: {name} {best['median_us']:.1f} us"
    if default.get("median_us"):
        ratio = default["median_us"] / best["median_us"]
        text += f", {ratio:.2f}x the default ({default['from']})"
    return f"{text}; {told}"


def gain(records: Sequence[Record]) -> str:
    """Return in words how much faster than their defaults the winners are."""
    pairs = [
        (r["default"]["median_us"], r["best"]["median_us"])
        for r in records
        if r["status"] == DONE and r["best"] and r["default"].get("median_us")
    ]
    text = f"{len(records)} problems known"
    if not pairs:
        return text
    ratios = [default / best for default, best in pairs]
    faster = sum(ratio > 1 for ratio in ratios)
    return (
        f"{text}, another tile than the default in {faster} of {len(pairs)}; "
        f"{geometric_mean(ratios):.3f}x in the geometric mean, {max(ratios):.2f}x at most"
    )
