"""Measures what a break-even search asks for, keeps every point, and keeps the answer.

Points are cells like any others: ``<folder>/breakeven/<implementation>/`` is a results folder
of its own, so that a search resumes and the cells of a sweep stay what they were. The answer is
one line of ``<folder>/breakeven.jsonl``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import impls
from bench.breakeven import ANSWERS, KEY, BreakEven, Failed, Point, search
from bench.clocks import mode_for
from bench.environment import environment, use_all_cores
from bench.jsonl import append_line, read_lines
from bench.records import (
    REFERENCE_IMPL,
    SCHEMA,
    Case,
    Cell,
    Environment,
    Measurement,
    Status,
    digest,
)
from bench.session import Session, Settings
from bench.store import Results, Store, read_results
from bench.suites import QUICK, RECORDED, Sweep, feasible_cases, suite_of
from bench.table import rows, totals
from hrbp_core.shapes import Pass, block_grid

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Question:
    """What is searched: one layer, block and implementation; one pass or all three together.

    Attributes:
        device: "cpu" or "cuda". conv_pass: "fprop", "dgrad", "wgrad" or "all".
        recorded: the recorded suites' precision and cap, instead of the quick one's.

    Raises:
        ValueError: an unknown layer, pass, mode, implementation, dtype, method, balance or
            layout; dense itself; a block that the layer cannot have.
    """

    layer: str
    block: int
    conv_pass: str
    dtype: str
    device: str
    impl: str
    batch: int | None = None
    layout: str = "canonical"
    method: str = "hrbp2"
    balance: str = "none"
    mode: str | None = None
    most_points: int = 7
    recorded: bool = False

    def __post_init__(self) -> None:
        impls.check([self.impl])
        mode_for(self.device, self.mode)
        if self.impl == REFERENCE_IMPL:
            raise ValueError(f"expected an implementation beside {REFERENCE_IMPL}, got it itself")
        choices = [*map(str, Pass), "all"]
        if self.conv_pass not in choices:
            raise ValueError(f"expected a pass of {', '.join(choices)}; got {self.conv_pass!r}")
        self.cases(self.blocks[0])

    @property
    def blocks(self) -> tuple[int, int]:
        """Kept blocks of the sparsest pattern that keeps every group, and of the dense one."""
        layers = suite_of(self.layer).layers
        shape = next(layer.shape for layer in layers if layer.name == self.layer)
        groups = block_grid(shape, self.block)
        return max(groups), math.prod(groups)

    def cases(self, blocks: int) -> list[Case]:
        """Return the cases of a number of kept blocks, one a pass."""
        suite = suite_of(self.layer).name
        passes = tuple(p for p in Pass if self.conv_pass in (str(p), "all"))
        sweep = Sweep(
            suite, self.device, self.dtype, passes, (blocks / self.blocks[1],), (self.block,),
            (self.layer,), self.method, self.balance, self.layout, self.batch,
        )  # fmt: skip
        return feasible_cases(sweep)


def find(question: Question, out: Path, progress: Progress = lambda *_: None) -> BreakEven:
    """Search the break-even sparsity, resuming what ``out`` holds, and keep the answer there.

    Raises:
        Failed: a point that could not be measured; those before it are stored.
        ValueError: points out of range. StoreError: the folder cannot be used.
    """
    use_all_cores()
    with Store(out / "breakeven" / question.impl) as store:
        points = _Points(question, store, progress)
        try:
            result = search(points.point, *question.blocks, question.most_points)
        finally:
            points.close()
    _keep(question, result, points.facts, out)
    return result


class _Points:
    """Points by kept blocks: stored ones are read, others measured and stored."""

    def __init__(self, question: Question, store: Store, progress: Progress) -> None:
        self.question, self.store, self.progress = question, store, progress
        facts = environment(question.device)
        self.facts, self.environment = facts, store.add_environment(facts)
        self.mode = mode_for(question.device, question.mode)
        self._session: Session | None = None
        self._asked = 0

    def point(self, blocks: int) -> Point:
        sparsity = 1 - blocks / self.question.blocks[1]
        self.progress(self._asked, self.question.most_points, f"sparsity {sparsity:.3f}")
        self._asked += 1
        found = [m for case in self.question.cases(blocks) for m in self._case(case)]
        for measurement in found:
            if measurement.status is not Status.OK:
                raise Failed(
                    f"{measurement.cell.impl} {measurement.cell.case.conv_pass} at sparsity "
                    f"{sparsity:.3f}: {measurement.reason}",
                    str(measurement.status),
                )
        return _point(found, self, blocks, sparsity)

    def _case(self, case: Case) -> list[Measurement]:
        names = (REFERENCE_IMPL, self.question.impl)
        wanted = {Cell(case, name, self.mode).cell_id for name in names}
        if not wanted <= self.store.done(self.environment):
            # written together, so that the pair that is stored was timed in the same rounds
            self.store.append_many(self._worker().measure(case, names))
        stored = read_results(self.store.folder).measurements
        return [m for m in stored if m.cell.cell_id in wanted and m.environment == self.environment]

    def _worker(self) -> Session:
        if self._session is None:
            asked = self.question
            rule = RECORDED if asked.recorded else QUICK
            self._session = Session(
                Settings(asked.device, asked.dtype, self.mode, rule, self.facts, self.store.folder)
            )
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()


def _point(found: list[Measurement], points: _Points, blocks: int, sparsity: float) -> Point:
    """Return the implementation's speed-up over dense, as the tables have it."""
    table = rows(Results(found, {points.environment: points.facts}, [], points.store.folder))
    if points.question.conv_pass == "all":
        table = totals(table).rename(columns={"total_s": "median_s", "dense_total_s": "dense_s"})
    row = table[table["impl"] == points.question.impl].iloc[0]
    names = ("dense_s", "median_s", "speedup", "speedup_low", "speedup_high")
    return Point(blocks, sparsity, *(float(row[name]) for name in names))


def _keep(question: Question, result: BreakEven, facts: Environment, out: Path) -> None:
    """Append the answer, unless just this one is there."""
    asked = asdict(question)
    asked["pass"] = asked.pop("conv_pass")
    line = asked | {
        "mode": mode_for(question.device, question.mode),
        "batch": question.cases(question.blocks[0])[0].shape.N,
        "environment": facts.environment_id,
        "device_name": facts.device_name,
        **asdict(result),
    }
    path, name = out / ANSWERS, digest(line)
    stored = read_lines(path).records if path.exists() else []
    if all(each.get(KEY) != name for each in stored):
        append_line(path, {"schema": SCHEMA, KEY: name} | line, KEY)
