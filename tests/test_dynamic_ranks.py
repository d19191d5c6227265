"""Two processes that train together keep the same blocks, and never wait for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_two_ranks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.dynamic_ranks", str(tmp_path / "meet")],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "alike\n"), done.stderr
