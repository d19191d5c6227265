"""What goes wrong in a command, as one sentence and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

USAGE = 2
INTERRUPTED = 130


@contextmanager
def sentences(kept: str) -> Iterator[None]:
    """Turn what a user can cause, or a lost device, into exit code 2, an interrupt into 130.

    Args:
        kept: what is said of an interrupted command: what is kept, and how to go on.
    """
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        print(f"{_speaker()}error: {error}", file=sys.stderr)
        raise typer.Exit(USAGE) from error
    except KeyboardInterrupt:
        print(f"\ninterrupted; {kept}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _speaker() -> str:
    """Return who speaks, in a process of torchrun: others may have another error to tell."""
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    return "" if alone else f"rank {os.environ.get('RANK', '?')}: "
