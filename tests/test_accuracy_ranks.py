"""Two processes that train one network, by themselves and as torchrun starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_two_ranks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.accuracy_ranks", str(tmp_path)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "HRBP_CPU_KERNELS": "grouped"},  # machine code takes seconds to write
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "alike\n"), done.stderr
