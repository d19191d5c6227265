"""The commands as ``--help`` and a shell show them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import cli
from bench.cli_completion import script

ROOT = Path(__file__).parent.parent
COMMANDS = [str(command.name) for command in cli.app.registered_commands]


def test_every_command_stands_in_one_panel() -> None:
    named = [name for names in cli.PANELS.values() for name in names]
    assert named == COMMANDS
    assert len(set(named)) == len(named)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example(name: str) -> None:
    shown = " ".join(CliRunner().invoke(cli.app, [name, "--help"]).stdout.split())
    begin = 'eval "$(python' if name == "completion" else "python"
    assert f"Example: {begin} -m bench {name}" in shown


def test_help_names_every_command_in_a_sentence() -> None:
    shown = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "200"}).stdout
    for command in cli.app.registered_commands:
        assert re.search(rf"│ {command.name} +\S.*\.", shown), command.name
        assert "Exits" not in str(command.short_help)


def completed(words: list[str]) -> list[str]:
    """Return what bash would offer after ``words``."""
    program = (
        f'{script("bash")}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _hrbp_bench; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", program, "bash", *words],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_and_options() -> None:
    python = [sys.executable, "-m", "bench"]
    assert completed([*python, ""]) == COMMANDS
    assert completed([*python, "gate", "--base"]) == ["--base-rev", "--base"]
    assert completed([*python, "list", "la"]) == ["layers"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_other_modules_are_left_alone() -> None:
    assert completed([sys.executable, "-m", "pytest", ""]) == []
    assert completed([sys.executable, "bench", ""]) == []


def test_zsh_borrows_the_words_of_bash() -> None:
    assert script("zsh").startswith("autoload -Uz bashcompinit && bashcompinit\n")
    assert script("zsh").endswith(script("bash"))
