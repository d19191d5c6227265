"""Freed memory is kept: calls that allocate the same again take no page faults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import allocator

ROOT = Path(__file__).parent.parent
# 40 MB is over glibc's largest threshold of its own: such blocks always go back to the kernel
COUNT = """
import resource, sys
from bench.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for call in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(b"x") * 40_000_000
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    done = subprocess.run(
        [sys.executable, "-c", COUNT, how], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_call_pays_for_no_page_twice() -> None:
    assert faults("default") > 5000, "the test shows nothing here"
    assert faults("keep") < 100


def test_another_c_library_is_told(monkeypatch) -> None:
    class Library:
        def __init__(self, name):
            pass

    monkeypatch.setattr(allocator.ctypes, "CDLL", Library)
    assert allocator.keep_freed_memory() is False
