"""A gate of two revisions on this machine, from the question to the verdicts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from bench import impls
from bench.clocks import mode_for
from bench.gate import cell_label
from bench.gate_result import GATE, NO_BASE, USAGE, GateResult, exit_code, worst_code
from bench.gating.child import Died, check_loads
from bench.gating.decide import BudgetTooSmall, Finding, decide
from bench.gating.evidence import wilcoxon_p
from bench.gating.readings import Trial
from bench.gating.rule import Rule, rule_for
from bench.gating.sides import NoRevision, Side, checkout, laid_out
from bench.gating.trials import Machine
from bench.jsonl import append_line, make_folder, replace_file
from bench.records import SCHEMA, Cell
from bench.suites import Sweep, cases
from bench.verdict import Verdict, VerdictKind

TRIALS, PROCESS_KEY = "gate_trials.jsonl", "process_id"
FIXED = 0.4  # of a trial's time: what does not shrink with its cells
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Question:
    """What is gated.

    Attributes:
        revision: base's. budget_s: for all of it. see: see ``rule_for``.
        out: a folder for what is found, made if need be; an earlier gate's files are replaced.
    """

    revision: str
    sweep: Sweep
    impls: tuple[str, ...]
    budget_s: float
    out: Path
    mode: str | None = None
    see: float | None = None

    @property
    def cells(self) -> dict[str, Cell]:
        """The cells by id.

        Raises:
            ValueError: anything unknown, or no feasible pattern at all.
        """
        impls.check(self.impls)
        mode = mode_for(self.sweep.device, self.mode)
        wanted, infeasible = cases(self.sweep)
        if not wanted:
            reasons = sorted({f"{i.layer}: {i.reason}" for i in infeasible})
            raise ValueError("expected a pattern that a layer can have; " + "; ".join(reasons[:4]))
        found = (Cell(case, name, mode) for case in wanted for name in self.impls)
        return {cell.cell_id: cell for cell in found}

    @property
    def request(self) -> dict[str, Any]:
        """What every process is told."""
        return {
            "device": self.sweep.device,
            "dtype": self.sweep.dtype,
            "mode": mode_for(self.sweep.device, self.mode),
            "impls": list(self.impls),
        }


class Budgeted:
    """A source of trials that knows how long they take."""

    def __init__(
        self, take: Callable[[Sequence[str]], Trial], budget_s: float,
        now: Callable[[], float] = monotonic,
    ) -> None:  # fmt: skip
        self._take, self.budget_s, self._now = take, budget_s, now
        self.start = now()
        self.took: list[tuple[int, float]] = []  # (cells, seconds) of each trial

    def take(self, names: Sequence[str]) -> Trial:
        """Return a trial, and note how long it took."""
        start = self._now()
        found = self._take(names)
        self.took.append((len(names), self._now() - start))
        return found

    def affords(self, cells: int, trials: int = 1) -> bool:
        """Return whether so many more will end in time, if they take as long as the last one."""
        if not self.took:
            return True
        before, seconds = self.took[-1]
        if len(self.took) == 1:  # the first one makes patterns and asks the oracle
            seconds *= FIRST
        expected = seconds * (FIXED + (1 - FIXED) * cells / before)
        return self._now() - self.start + trials * expected <= self.budget_s


FIRST = (
    0.7  # of the first trial's time is a later one's: 57 of 104 s in one run, 50 of 60 in another
)


def gate_revisions(question: Question, progress: Progress = lambda *_: None) -> GateResult:
    """Measure base's revision and the working tree against each other; return the verdicts.

    Whatever keeps a side from being measured is a sentence in ``errors`` and an exit code.

    Raises:
        ValueError: a question that makes no sense; no git checkout; a budget that is too small.
    """
    rule = rule_for(question.sweep.device, question.see)
    cells = question.cells
    root = checkout()
    _clear(question.out)
    try:
        with laid_out(root, question.revision) as (base, head):
            return _gate(question, rule, cells, base, head, progress)
    except NoRevision as error:
        return GateResult([], [], NO_BASE, [f"base: {error}"])


def _gate(
    question: Question, rule: Rule, cells: dict[str, Cell], base: Side, head: Side,
    progress: Progress,
) -> GateResult:  # fmt: skip
    start = monotonic()
    with tempfile.TemporaryDirectory(prefix="trials-", dir=base.root.parent) as folder:
        errors, codes = [], []
        for side, code, what in ((base, NO_BASE, "does not build, or lacks what the suite calls"),
                                 (head, USAGE, "does not build")):  # fmt: skip
            try:
                check_loads(side, Path(folder), question.impls)
            except Died as death:
                errors.append(f"{side.name} {side.text} {what}: {death.reason}")
                codes.append(code)
        if errors:
            return GateResult([], [], worst_code(codes), errors)
        machine = Machine(base, head, cells, Path(folder), question.request, keeper(question.out))
        source = Budgeted(machine.take, question.budget_s)
        try:
            findings = decide(list(cells), source, rule, progress)
        except BudgetTooSmall as error:
            raise ValueError(_more_budget(error, source, rule, len(cells))) from error
        except Died as death:
            code = NO_BASE if death.side == "base" else USAGE
            return GateResult([], [], code, [f"{death.side} cannot be measured: {death.reason}"])
    verdicts = [verdict(cells[name], found, rule) for name, found in findings.items()]
    about = {
        "base": {"commit": base.commit, "revision": question.revision},
        "head": {"commit": head.commit, "dirty": head.dirty},
        "environment": machine.environments.get("head"),
        "trials": machine.made,
        "seconds": monotonic() - start,
        "rule": asdict(rule),
        "suite": question.sweep.suite,
    }
    result = GateResult(verdicts, _notes(base, head, question), exit_code(verdicts), [], about)
    return result


def verdict(cell: Cell, found: Finding, rule: Rule) -> Verdict:
    """Return a finding as a verdict; effects become ratios."""
    signed = wilcoxon_p(np.array(found.d), rule) if found.d else None
    reason = found.reason
    if found.kind is VerdictKind.FAIL:
        reason += f"; p = {signed:.1g} by Wilcoxon's signed ranks"
    ratio, low, high = (None if e is None else 1 + e for e in (found.effect, found.low, found.high))
    return Verdict(
        cell.cell_id, cell_label(cell), found.kind, reason, ratio, low, high,
        margin=found.margin, p=found.p, p_wilcoxon=signed, trials=found.trials or None,
        base_s=found.base_s, head_s=found.head_s,
    )  # fmt: skip


def keeper(out: Path) -> Callable[[dict[str, Any]], None]:
    """Return what stores one record a process, so that nothing is lost."""

    def keep(record: dict[str, Any]) -> None:
        name = f"{record['trial']}-{record['role']}"
        append_line(out / TRIALS, {"schema": SCHEMA, PROCESS_KEY: name} | record)

    return keep


def write(result_json: str, out: Path) -> None:
    """Store a result beside its trials."""
    make_folder(out)
    replace_file(out / GATE, result_json)


def _clear(out: Path) -> None:
    """Make the folder; an earlier gate's trials would be mixed up with these."""
    make_folder(out)
    for name in (GATE, TRIALS):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "report", ignore_errors=True)


def _more_budget(error: Exception, source: Budgeted, rule: Rule, cells: int) -> str:
    seconds = max(took for _, took in source.took)
    wanted = rule.screen * seconds / 60 + 1
    return (
        f"{error}: a trial took {seconds:.0f} s, so give --budget {wanted:.0f} "
        f"(minutes; it was {source.budget_s / 60:g}), or fewer cells with --layers or --passes"
    )


def _notes(base: Side, head: Side, question: Question) -> list[str]:
    notes = [f"base {base.text} ({question.revision}), head {head.text}"]
    if head.dirty:
        notes.append("head's uncommitted changes were measured")
    if head.commit == base.commit and not head.dirty:
        notes.append("base and head are the same commit: what differs is noise")
    return notes
