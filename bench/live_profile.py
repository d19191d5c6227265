"""Where the time of a layer goes on a live device: checked, timed, and taken apart."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import ncu, trace
from bench.clocks import Run
from bench.environment import environment, use_all_cores
from bench.frames import records
from bench.records import Case, Environment, Measurement, Status
from bench.session import Session, Settings
from bench.store import Results
from bench.suites import QUICK
from bench.table import rows
from bench.trace import Profiled

MODE = "hot"  # what the profiler sees is calls back to back
NCU_CALLS = 2


@dataclass(frozen=True)
class Seen:
    """One implementation of one case.

    Attributes:
        row: of ``bench.table``: median, interval, speed-up over dense, attainment.
        profiled: None unless it was timed; then ``measurement`` has the reason.
        counters: Nsight Compute's, where they were asked for.
    """

    measurement: Measurement
    row: dict[str, Any]
    profiled: Profiled | None
    counters: ncu.Report | None = None

    @property
    def gaps_s(self) -> float | None:
        """Seconds of a call in which no kernel (on a CPU: no operator) ran.

        On CUDA of the call as it was timed; on a CPU of the profiled call, because the profiler
        slows operators.
        """
        if self.profiled is None:
            return None
        cuda = self.measurement.cell.case.device == "cuda"
        span = self.row["median_s"] if cuda else self.profiled.span_s
        return float(span - sum(kernel.seconds for kernel in self.profiled.kernels))


@dataclass(frozen=True)
class LiveProfile:
    """All that was looked at, where."""

    environment: Environment
    seen: tuple[Seen, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """0; 5 when one is wrong or impossible; 2 when none could be timed."""
        statuses = {each.measurement.status for each in self.seen}
        if statuses & {Status.WRONG, Status.IMPOSSIBLE}:
            return 5
        return 0 if Status.OK in statuses else 2


class _Session(Session):
    """A session that keeps what the profiler saw instead of a trace alone."""

    def __init__(self, settings: Settings, calls: int, traces: Path | None) -> None:
        self.calls, self.traces = calls, traces
        self.profiles: dict[str, Profiled] = {}
        super().__init__(settings)

    def _trace(self, cell_id: str, run: Run) -> Path:
        found = trace.profiled(run, self.settings.device, self.calls)
        self.profiles[cell_id] = found
        path = (self.traces or self.settings.folder) / f"{cell_id}.json.gz"
        return trace.write(found, path) if self.traces else path


def look(
    cases: Sequence[Case], names: Sequence[str], calls: int, out: Path | None, counters: bool
) -> LiveProfile:
    """Check and time each implementation of each case, then profile it.

    Args:
        cases: of one device and dtype. calls: under the profiler.
        out: a folder for traces; none are kept when None.
        counters: ask Nsight Compute for each that was timed.
    """
    device, dtype = cases[0].device, cases[0].dtype
    use_all_cores()
    facts = environment(device)
    seen: list[Seen] = []
    with TemporaryDirectory() as folder:
        settings = Settings(device, dtype, MODE, QUICK, facts, Path(folder), traces=True)
        session = _Session(settings, calls, out / "traces" if out else None)
        try:
            for case in cases:
                found = session.measure(case, names)
                table = rows(Results(found, {facts.environment_id: facts}, [], Path(folder)))
                by_cell = {str(row["cell_id"]): row for row in records(table)}
                seen += [
                    Seen(m, by_cell[m.cell.cell_id], session.profiles.get(m.cell.cell_id))
                    for m in found
                ]
        finally:
            session.close()
    if counters:
        seen = [replace(each, counters=_count(each.measurement)) for each in seen]
    return LiveProfile(facts, tuple(seen))


def _count(measurement: Measurement) -> ncu.Report | None:
    """Ask Nsight Compute about an implementation that was timed."""
    if measurement.status is not Status.OK:
        return None
    cell = json.dumps(measurement.cell.to_dict())
    command = [sys.executable, "-m", "bench.repeat", cell, str(NCU_CALLS)]
    return ncu.collect(command, nvtx_range=ncu.RANGE)


def document(found: LiveProfile, request: dict[str, Any]) -> dict[str, Any]:
    """Return the profile as plain JSON types."""
    return {
        "schema": 1,
        "what": "live profile",
        "request": request,
        "environment": asdict(found.environment),
        "seen": [_plain(each) for each in found.seen],
    }


def _plain(each: Seen) -> dict[str, Any]:
    profiled, counters = each.profiled, each.counters
    return {
        "measurement": each.measurement.to_dict(),
        "attainment": _number(each.row["attainment"]),
        "speedup": _number(each.row["speedup"]),
        "kernels": None if profiled is None else [asdict(kernel) for kernel in profiled.kernels],
        "span_s": None if profiled is None else profiled.span_s,
        "gaps_s": each.gaps_s,
        "counters": None if counters is None else asdict(counters),
    }


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)
