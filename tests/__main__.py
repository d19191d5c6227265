"""Run the tests that need no accelerator, and beside them the interpreted kernels'.

The two cannot share a process: Triton's interpreter is switched on when kernels are decorated.
Side by side they take two cores half the time. Arguments go to the first.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

MAIN = ("-m", "pytest", "-m", "not gpu and not benchmark")
INTERPRETED = ("-m", "tests.interpreted")


def main(arguments: list[str]) -> int:
    """Return the first exit code that is not 0."""
    with tempfile.TemporaryFile("w+") as said:
        beside = subprocess.Popen(
            [sys.executable, *INTERPRETED], stdout=said, stderr=subprocess.STDOUT
        )
        try:
            first = subprocess.run([sys.executable, *MAIN, *arguments], check=False).returncode
            second = beside.wait()
        finally:
            beside.kill()
        said.seek(0)
        print("\nthe interpreted kernels:\n" + said.read(), flush=True)
    return first or second


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
