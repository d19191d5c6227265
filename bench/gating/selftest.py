"""The gate tries itself on this machine: a pool of real trials, virtual runs, a real slow-down."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from bench.gating.decide import decide
from bench.gating.live import PROCESS_KEY, TRIALS, Budgeted, Question, keeper, verdict
from bench.gating.rehearsal import CELLS, Pool, Rates, favoured, pool_of, rehearse
from bench.gating.rule import Rule, rule_for
from bench.gating.sides import Side, head_alone, here
from bench.gating.trials import Machine
from bench.injection import VARIABLE
from bench.jsonl import make_folder, read_lines
from bench.records import SCHEMA
from bench.verdict import Verdict

PLANTED_CELLS = 4  # beside the slow one: their quiet is part of the proof
EFFECTS = {"cpu": (0.05, 0.10), "cuda": (0.03, 0.05)}
GATE_BUDGET_S = 720.0  # of a virtual run
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SelfTest:
    """What the gate knows of itself here.

    Attributes:
        pool_trials, pool_cells: what the virtual runs were drawn from.
        favoured: how much slower head's place makes equal code, with its 95 % interval.
        quiet: virtual runs of equal code. planted: slow-down -> virtual runs with it in one cell.
        screen_s: the wall time of a screen of these cells, as it was.
        real: verdicts of a real run with a slow-down in the first cell. effect: its size.
    """

    commit: str
    dirty: bool
    environment: dict[str, Any]
    pool_trials: int
    pool_cells: int
    trial_s: tuple[float, float]
    screen_s: float
    rule: Rule
    favoured: tuple[float, float, float]
    quiet: Rates
    planted: dict[float, Rates]
    effect: float
    real: list[Verdict]
    real_s: float

    @property
    def found(self) -> bool:
        """Whether the real slow-down failed, and nothing else."""
        kinds = [each.kind.value for each in self.real]
        return kinds[0] == "fail" and "fail" not in kinds[1:]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        data = {"schema": SCHEMA} | asdict(self) | {"found": self.found}
        data["planted"] = {f"{effect:g}": asdict(r) for effect, r in self.planted.items()}
        data["quiet"]["found"] = None  # nothing was planted, and JSON has no NaN
        return data


def self_test(question: Question, progress: Progress = lambda *_: None, seed: int = 0) -> SelfTest:
    """Measure head against itself for the question's budget, and rehearse.

    The pool has the question's first ``CELLS`` cells; its records stay in the folder.

    Raises:
        ValueError: a budget of fewer trials than the screen has.
        Died: the checkout cannot be measured.
    """
    device = question.sweep.device
    rule = rule_for(device, question.see)
    cells = dict(list(question.cells.items())[:CELLS])
    make_folder(question.out)
    (question.out / TRIALS).unlink(missing_ok=True)
    with (
        head_alone(here()) as head,
        tempfile.TemporaryDirectory(prefix="trials-", dir=head.root.parent) as folder,
    ):
        machine = Machine(
            head, head, cells, Path(folder), question.request, keeper(question.out), seed
        )
        source = _collect(machine, list(cells), question.budget_s, rule, progress)
        effect, last = rule.worst_margin, machine.made
        few = dict(list(cells.items())[: PLANTED_CELLS + 1])
        real, real_s, trial_s = _plant(machine, few, effect, rule, progress)
        environment = machine.environments["head"]
    full_s = sorted(s for _, s in source.took[1:])[len(source.took[1:]) // 2]
    cell_s = max(0.0, (full_s - trial_s) / max(1, len(cells) - len(few)))
    records = read_lines(question.out / TRIALS, PROCESS_KEY).records
    whole = [r for r in records if r["trial"] <= last]
    pool = pool_of(whole, full_s - cell_s * len(cells), cell_s)
    quiet, planted = rehearsed(pool, rule, EFFECTS[device], seed, progress)
    return SelfTest(
        head.commit, head.dirty, environment, pool.trials, len(pool.d), (full_s, trial_s),
        sum(s for _, s in source.took[: rule.screen]), rule, favoured(pool), quiet, planted,
        effect, real, real_s,
    )  # fmt: skip


def rehearsed(
    pool: Pool, rule: Rule, effects: tuple[float, ...], seed: int, progress: Progress
) -> tuple[Rates, dict[float, Rates]]:
    """Return the rates of equal code, and of each planted slow-down."""
    quiet = rehearse(pool, rule, GATE_BUDGET_S, seed, tell=progress)
    planted = {
        effect: rehearse(pool, rule, GATE_BUDGET_S, seed + 1, effect=effect, tell=progress)
        for effect in effects
    }
    return quiet, planted


def _collect(
    machine: Machine, names: list[str], budget_s: float, rule: Rule, progress: Progress
) -> Budgeted:
    """Take trials of all cells until the budget is over."""
    source = Budgeted(machine.take, budget_s)
    while source.affords(len(names)):
        progress(len(source.took), 0, f"trials of equal code, {budget_s / 60:g} minutes")
        bad = [r for r in source.take(names).values() if r.d is None]
        if bad:
            outcome = bad[0].head or bad[0].base
            raise ValueError(f"expected a checkout whose cells are right, got {outcome}")
    if len(source.took) < rule.screen:
        raise ValueError(
            f"expected time for {rule.screen} trials, got {len(source.took)} of "
            f"{source.took[-1][1]:.0f} s in {budget_s / 60:g} minutes: give a larger --budget"
        )
    return source


def _plant(
    machine: Machine, cells: dict[str, Any], effect: float, rule: Rule, progress: Progress
) -> tuple[list[Verdict], float, float]:
    """Return the verdicts of a real run, its seconds, and those of one trial."""
    first = next(iter(cells.values())).case
    words = f"{first.layer} {first.conv_pass} {first.recipe.density:g} {first.recipe.block[0]}"
    slow = replace(machine.head, name="head")
    base = Side("base", machine.base.commit, machine.base.dirty, machine.base.root)
    machine.base, machine.head, machine.cells = base, slow, cells
    source = Budgeted(machine.take, GATE_BUDGET_S)
    rule = replace(rule, see=rule.worst_margin)  # whether it fails is asked, not how finely
    start = monotonic()
    with planted(f"{100 * effect:g}%@{words}"):
        findings = decide(list(cells), source, rule, progress)
    verdicts = [verdict(cells[name], found, rule) for name, found in findings.items()]
    full = [s for n, s in source.took if n == len(cells)]
    return verdicts, monotonic() - start, sorted(full)[len(full) // 2]


@contextmanager
def planted(text: str) -> Iterator[None]:
    """Set the variable that slows head down."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = text
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
