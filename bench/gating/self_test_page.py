"""The self-test's table, for people and for a job's summary."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.gating.rehearsal import CELLS
from bench.gating.selftest import SelfTest

COLUMNS = ("", "measured", "must", "aim")


def rows(found: SelfTest) -> list[tuple[str, str, str, str]]:
    """Return the table's rows: what, measured, must, aim."""
    cpu = found.environment["device"] == "cpu"
    name = "CPU" if cpu else "GPU"
    quiet = found.quiet
    main = max(found.planted)
    cells = min(CELLS, found.pool_cells)
    lines = [
        (
            f"false alarms, equal code, runs of {cells} cells",
            _share(quiet.alarms),
            "<= 5 %",
            "<= 1 %",
        ),
        (
            "runs of equal code that end inconclusive",
            _share(quiet.inconclusive),
            "<= 10 %",
            "<= 2 %",
        ),
    ]
    for effect, rates in sorted(found.planted.items()):
        goal = (">= 80 %", ">= 95 %") if effect == main else ("", "")
        lines.append((f"{effect:+.0%} in one cell found, {name}", _share(rates.found), *goal))
    lines += [
        ("smallest visible slow-down, worst cell, median run", f"{quiet.visible:.1%}",
         "<= 8 %" if cpu else "", "<= 5 %" if cpu else ""),
        (f"wall time, {cells} cells: median of virtual runs (95th percentile)",
         f"{quiet.seconds[0] / 60:.1f} min ({quiet.seconds[1] / 60:.1f})", "<= 12 min", "<= 6 min"),
        ("wall time of a real screen, first use of every cell included",
         f"{found.screen_s / 60:.1f} min", "", ""),
        (f"a real {found.effect:+.0%} in one of {len(found.real)} cells",
         f"{'found, alone' if found.found else 'NOT FOUND ALONE'}, {found.real_s / 60:.1f} min",
         "found", ""),
        ("equal code in head's place is slower by (0 lies in a fair harness's interval)",
         "{:+.2%} ({:+.2%} to {:+.2%})".format(*found.favoured), "", ""),
    ]  # fmt: skip
    return lines


def about(found: SelfTest) -> str:
    """Return one sentence on what it is drawn from."""
    facts = found.environment
    return (
        f"{found.quiet.runs} virtual runs each, from {found.pool_trials} real trials of "
        f"{found.pool_cells} cells ({found.trial_s[0]:.0f} s a trial of all, "
        f"{found.trial_s[1]:.0f} s of {len(found.real)}); shares with 95 % intervals over "
        f"redrawn pools. "
        f"{facts['device_name']}, torch {facts['torch']}, commit {found.commit[:10]}"
        f"{' with uncommitted changes' if found.dirty else ''}."
    )


def render(found: SelfTest, console: Console) -> None:
    """Print the table, and the real run's verdicts."""
    table = Table(*COLUMNS)
    for row in rows(found):
        table.add_row(*map(Text, row))
    console.print(table)
    console.print(Text(about(found)))
    for each in found.real:
        console.print(Text(f"{each.kind.upper()}: {each.label}: {each.reason}"))


def to_markdown(found: SelfTest) -> str:
    """Return the same as Markdown."""
    lines = ["## Gate, self-test", "", "| | measured | must | aim |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in rows(found)]
    lines += ["", about(found), ""]
    lines += [f"- {v.kind.upper()}: {v.label}: {v.reason}" for v in found.real]
    return "\n".join(lines) + "\n"


def _share(share: tuple[float, float, float]) -> str:
    value, low, high = share
    return f"{value:.1%} ({low:.1%} to {high:.1%})"
