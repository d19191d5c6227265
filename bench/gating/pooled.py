"""Virtual runs of several self-tests' trials together: those of one hour are a small pool."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.gate_result import SELF_TEST, read_json
from bench.gating.live import PROCESS_KEY, TRIALS, Question
from bench.gating.rehearsal import favoured, pool_of
from bench.gating.rule import rule_for
from bench.gating.selftest import EFFECTS, SelfTest, rehearsed
from bench.jsonl import read_lines
from bench.records import Environment
from bench.verdict import Verdict, VerdictKind

Progress = Callable[[int, int, str], None]


def rehearse_again(
    folders: Sequence[Path], question: Question, progress: Progress = lambda *_: None, seed: int = 0
) -> SelfTest:
    """Return the self-test of all trials of equal code in ``folders``; nothing is measured.

    Times, and the planted slow-down, are those of the last folder.

    Raises:
        ValueError: a folder without a self-test, or one of another machine.
        StoreError: files that cannot be read.
    """
    tests = [_stored(folder) for folder in folders]
    machines = {json.dumps(_hard(test), sort_keys=True) for test in tests}
    if len(machines) != 1:
        raise ValueError(f"expected self-tests of one machine, got {', '.join(sorted(machines))}")
    records: list[dict[str, Any]] = []
    for number, folder in enumerate(folders):
        found = _equal_code(read_lines(folder / TRIALS, PROCESS_KEY).records)
        records += [r | {"trial": (number, r["trial"])} for r in found]
    last = tests[-1]
    rule = rule_for(question.sweep.device, question.see)
    full_s, few_s = last["trial_s"]
    cell_s = max(0.0, (full_s - few_s) / max(1, last["pool_cells"] - len(last["real"])))
    pool = pool_of(records, full_s - cell_s * last["pool_cells"], cell_s)
    quiet, planted = rehearsed(pool, rule, EFFECTS[question.sweep.device], seed, progress)
    real = [Verdict(**(v | {"kind": VerdictKind(v["kind"])})) for v in last["real"]]
    same = {n: last[n] for n in ("commit", "dirty", "environment", "screen_s", "effect", "real_s")}
    return SelfTest(
        **same, pool_trials=pool.trials, pool_cells=len(pool.d), trial_s=(full_s, few_s),
        rule=rule, favoured=favoured(pool), quiet=quiet, planted=planted, real=real,
    )  # fmt: skip


def _stored(folder: Path) -> dict[str, Any]:
    found = read_json(folder / SELF_TEST)
    if found is None:
        raise ValueError(
            f"expected {SELF_TEST} in {folder}, got none; "
            f"to make it: python -m bench gate --self-test --out {folder}"
        )
    return found


def _hard(test: dict[str, Any]) -> dict[str, Any]:
    return Environment.from_dict(test["environment"]).hard


def _equal_code(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the trials of all cells without a planted slow-down in any."""
    most = max((len(r["measurements"]) for r in records), default=0)
    slow = {
        r["trial"]
        for r in records
        if len(r["measurements"]) < most
        or any("injected_delay" in m["detail"] for m in r["measurements"])
    }
    return [r for r in records if r["trial"] not in slow]
