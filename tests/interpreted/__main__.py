"""Run these tests with the interpreter switched on; arguments go to pytest."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

import pytest


def version(package: str) -> tuple[int, ...]:
    """Return (major, minor), or () where the package is not installed."""
    try:
        return tuple(int(part) for part in metadata.version(package).split(".")[:2])
    except metadata.PackageNotFoundError:
        return ()


def obstacle() -> str:
    """Return why the interpreter cannot run here, or nothing."""
    if not version("triton"):
        return "Triton is not installed"
    if version("triton") < (3, 7) and version("numpy") >= (2, 4):
        return "the interpreter of Triton before 3.7 needs numpy before 2.4"
    return ""


if __name__ == "__main__":
    if obstacle():
        print(f"skipped, the interpreted kernels: {obstacle()}")
        sys.exit(0)
    os.environ["TRITON_INTERPRET"] = "1"
    ignored = "ignore:Conversion of an array with ndim:DeprecationWarning"  # in Triton 3.6 itself
    sys.exit(pytest.main([str(Path(__file__).parent), "-W", ignored, *sys.argv[1:]]))
