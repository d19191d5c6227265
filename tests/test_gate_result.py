"""bench.gate_result: exit codes over all verdicts, and the three forms of a result."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.gate import GateResult, compare, exit_code, render, to_json, to_markdown
from bench.gate_result import EXIT_CODES, worst_code
from bench.verdict import Verdict, VerdictKind

Kind = VerdictKind


def verdict(kind: Kind, **changes: Any) -> Verdict:
    return Verdict("0" * 16, "a cell", kind, "a reason", **changes)


def test_each_kind_has_its_exit_code() -> None:
    assert {kind: exit_code([verdict(kind)]) for kind in Kind} == {
        Kind.PASS: 0,
        Kind.FAIL: 1,
        Kind.INCONCLUSIVE: 3,
        Kind.INCOMPARABLE: 4,
        Kind.MISSING: 5,
        Kind.WRONG: 5,
    }


SETS = [c for n in range(1, 7) for c in itertools.combinations(Kind, n)]


@pytest.mark.parametrize("kinds", SETS, ids=lambda kinds: "-".join(kinds))
def test_precedence_of_every_set_of_verdicts(kinds: tuple[Kind, ...]) -> None:
    if Kind.INCOMPARABLE in kinds:
        expected = 4
    elif Kind.MISSING in kinds or Kind.WRONG in kinds:
        expected = 5
    elif Kind.FAIL in kinds:
        expected = 1
    elif Kind.INCONCLUSIVE in kinds:
        expected = 3
    else:
        expected = 0
    found = [verdict(kind) for kind in kinds]
    assert exit_code(found) == exit_code(found[::-1]) == expected


def test_infrastructure_comes_before_every_verdict() -> None:
    assert all(worst_code([code, 2]) == 2 for code in EXIT_CODES.values())


def test_nothing_compared_is_no_pass() -> None:
    assert exit_code([]) == 4


# --- the three forms ----------------------------------------------------------------------


def shown(result: GateResult) -> str:
    text = io.StringIO()
    render(result, Console(file=text, width=300, color_system=None))
    return text.getvalue()


@pytest.mark.parametrize("kind", list(Kind))
def test_every_form_names_what_did_not_pass_and_why(kind: Kind) -> None:
    bad = verdict(kind, ratio=1.25, low=1.2, high=1.3)
    good = Verdict("1" * 16, "quiet cell", Kind.PASS, "identical samples", 0.8, 0.8, 0.8)
    result = GateResult([bad, good], ["a note"], exit_code([bad, good]))
    for text in (shown(result), to_markdown(result)):
        assert ("a reason" in text) is (kind is not Kind.PASS)
        assert (kind.upper() in text) or kind is Kind.PASS
        assert "quiet cell" not in text
        assert "a note" in text
        assert "worst 1.250x, geometric mean 1.000x" in text
        assert result.sentence in text
    data = json.loads(to_json(result))
    assert data["exit_code"] == EXIT_CODES[kind]
    assert data["counts"][kind] == (2 if kind is Kind.PASS else 1)
    assert (data["worst_ratio"], data["compared"]) == (1.25, 2)
    assert data["geometric_mean_ratio"] == pytest.approx(1.0)
    none = dict.fromkeys(("margin", "p", "p_wilcoxon", "trials", "base_s", "head_s"))
    assert data["verdicts"][0] == none | {
        "cell_id": "0" * 16, "label": "a cell", "kind": str(kind), "reason": "a reason",
        "ratio": 1.25, "low": 1.2, "high": 1.3,
    }  # fmt: skip
    assert data["notes"] == ["a note"]


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        (Kind.PASS, "PASS"),
        (Kind.FAIL, "FAIL: 1 of 1"),
        (Kind.INCONCLUSIVE, "INCONCLUSIVE: 1 of 1"),
        (Kind.INCOMPARABLE, "INCOMPARABLE: 1 of 1"),
        (Kind.MISSING, "WRONG OR MISSING: 0 of 1 cells are wrong and 1 are missing"),
        (Kind.WRONG, "WRONG OR MISSING: 1 of 1 cells are wrong and 0 are missing"),
    ],
)
def test_one_sentence_says_it_all(kind: Kind, start: str) -> None:
    found = [verdict(kind)]
    sentence = GateResult(found, [], exit_code(found)).sentence
    assert sentence.startswith(start)
    assert sentence.endswith(".")


def test_reasons_are_never_read_as_markup() -> None:
    odd = "[/red] [bold]x[/bold] a|b <b>\nnext"
    result = GateResult([Verdict("0", odd, Kind.WRONG, odd)], [odd], 5)
    assert "[/red] [bold]x[/bold] a|b <b>" in shown(result)
    markdown = to_markdown(result)
    assert "a\\|b &lt;b> next" in markdown
    (row,) = [line for line in markdown.splitlines() if line.startswith("| WRONG")]
    assert row.replace("\\|", "").count("|") == 4


def test_errors_stand_in_every_form(tmp_path: Path) -> None:
    result = compare(tmp_path / "no", tmp_path / "none")
    for text in (shown(result).replace("\n", ""), to_markdown(result)):
        assert "base: expected a folder" in text
        assert "head: expected a folder" in text
    data = json.loads(to_json(result))
    assert (data["exit_code"], len(data["errors"]), data["worst_ratio"]) == (2, 2, None)
