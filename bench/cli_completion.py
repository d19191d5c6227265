"""The ``completion`` command: a shell that completes ``python -m bench``.

Typer completes the name of a program, and ``python`` is not ours: its words are handed over from
the third on, and only after ``-m bench``.
"""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import completion_init

VARIABLE = "_HRBP_BENCH_COMPLETE"
_SCRIPT = f"""_hrbp_bench() {{
    COMPREPLY=()
    [ "${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}" = "-m bench" ] && [ "$COMP_CWORD" -gt 2 ] || return 0
    local IFS=$'\\n' words="bench ${{COMP_WORDS[*]:3}}"
    COMPREPLY=( $(env COMP_WORDS="$words" COMP_CWORD=$((COMP_CWORD - 2)) \\
        {VARIABLE}=complete_bash "${{COMP_WORDS[0]}}" -m bench 2>/dev/null) )
}}
complete -o default -F _hrbp_bench python python3
"""


class Shell(StrEnum):
    """The shells that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"


def script(shell: str) -> str:
    """Return what the shell is to evaluate."""
    bridge = "autoload -Uz bashcompinit && bashcompinit\n" if shell == Shell.ZSH else ""
    return bridge + _SCRIPT


def answer_shells() -> None:
    """Have Typer answer a shell's question, if this process was asked one."""
    if VARIABLE in os.environ:
        completion_init()


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(completion)


def completion(
    shell: Annotated[Shell, typer.Argument(help="bash or zsh.")] = Shell.BASH,
) -> None:
    """Print what makes a shell complete commands and options, in a checkout, after
    python -m bench.

    Example: eval "$(python -m bench completion bash)"
    """
    print(script(shell.value), end="")
