"""What a command that cannot go on says: what was expected, what came, and what to run next."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from bench.cli import app


@pytest.mark.parametrize(
    ("words", "says", "suggests"),
    [
        ("export {}", "expected results.jsonl in {}, got none", "python -m bench run --out {}"),
        ("trend {} {}/more", "expected results.jsonl", "python -m bench run --out {}"),
        ("gate", "got none of them", "python -m bench gate --base-rev HEAD"),
        ("gate --self-test --pool {}", "expected", "python -m bench gate --self-test --out {}"),
    ],
)
def test_errors_say_the_next_command(tmp_path, words: str, says: str, suggests: str) -> None:
    done = CliRunner().invoke(app, words.format(*[tmp_path] * 2).split())
    told = done.output
    assert done.exit_code == 2
    assert says.format(tmp_path) in told
    assert suggests.format(tmp_path) in told
