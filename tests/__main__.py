"""Run the tests that need no accelerator, then the interpreted kernels', on all cores.

The two cannot share a process: Triton's interpreter is switched on when kernels are decorated.
Arguments go to the first.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

MOST = 8  # processes; each takes a gigabyte
MAIN = ("-m", "pytest", "-m", "not gpu and not benchmark", "--durations", "40")
INTERPRETED = ("-m", "tests.interpreted")
FILES, TESTS = "loadfile", "worksteal"  # what goes from one process to another


def spread(dist: str) -> tuple[str, ...]:
    """Return pytest's options for all cores.

    Args:
        dist: ``FILES``, whose tests share their fixtures, or ``TESTS``: the interpreted ones
            share none, and nearly all stand in one file.
    """
    cores = min(len(os.sched_getaffinity(0)), MOST)
    if cores < 2 or importlib.util.find_spec("xdist") is None:
        return ()
    return ("-n", str(cores), "--dist", dist, "--benchmark-disable")


def main(arguments: list[str]) -> int:
    """Return the first exit code that is not 0."""
    codes = [
        subprocess.run([sys.executable, *words], check=False).returncode
        for words in ((*MAIN, *spread(FILES), *arguments), (*INTERPRETED, *spread(TESTS)))
    ]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
