"""Small measurements, and stores filled with them, for the tests of store and gate."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import jsonl
from bench.records import Case, Cell, Environment, Measurement, Recipe, Status
from bench.store import Store
from hrbp_core.shapes import ConvShape, Pass

SHAPE = ConvShape(N=2, C=16, H=8, W=8, K=32, R=3, S=3, padding=(1, 1))
ENVIRONMENT = Environment(
    device="cpu",
    device_name="a processor",
    capability=None,
    sm_count=None,
    memory_gib=None,
    mig=None,
    ecc=None,
    power_limit_w=None,
    clock_mode=None,
    driver=None,
    cuda=None,
    cudnn=None,
    torch="2.13.0",
    triton=None,
    python="3.11.9",
    cpu="a processor",
    threads=2,
    platform="linux",
    commit="abc",
    dirty=False,
)
NAME = ENVIRONMENT.environment_id
# 40 samples from 0.98 ms to 1.019 ms: median 0.9995 ms; ranks (14, 27) give 0.993 to 1.006 ms
CALM = tuple((980 + i) * 1e-6 for i in range(40))
# children import this module and the same bench
CHILD_ENV = {
    **os.environ,
    "PYTHONPATH": str(Path(__file__).parents[1]),
}


def measurement(number: int, **changes: Any) -> Measurement:
    case = Case(
        suite="test",
        layer=f"conv{number}",
        shape=SHAPE,
        dtype="float32",
        device="cpu",
        conv_pass=Pass.FPROP,
        recipe=Recipe("random", 0.25, (4, 8)),
        entries=12,
    )
    fields: dict[str, Any] = {
        "cell": Cell(case, "block_sparse", "cold"),
        "environment": NAME,
        "status": Status.OK,
        "samples_s": (1e-3, 2e-3, 3e-3),
    }
    return Measurement(**{**fields, **changes})


def fill(folder: Path, count: int) -> bytes:
    """Store ``count`` cells and return the bytes of results.jsonl."""
    with Store(folder) as store:
        store.add_environment(ENVIRONMENT)
        store.append_many([measurement(i) for i in range(count)])
    return (folder / "results.jsonl").read_bytes()


def run_child(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=CHILD_ENV, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def fail_writes(
    monkeypatch: pytest.MonkeyPatch, code: int = errno.ENOSPC, cut_back: bool = True
) -> None:
    """Let half of a line be written, then nothing; with ``cut_back`` off, cutting fails too."""
    real = os.write
    tries: list[int] = []

    def write(descriptor: int, data: bytes) -> int:
        if not bytes(data).startswith(b'{"schema"') and not tries:
            return real(descriptor, data)
        tries.append(1)
        if len(tries) == 1:
            return real(descriptor, data[: len(data) // 2])
        raise OSError(code, os.strerror(code))

    def truncate(descriptor: int, size: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(jsonl.os, "write", write)
    if not cut_back:
        monkeypatch.setattr(jsonl.os, "ftruncate", truncate)


def run(number: int, **more: Any) -> dict[str, Any]:
    """Return the record of a finished training run."""
    return {"schema": 1, "run_id": f"run{number}", "accuracy": 0.5, **more}


def cell(number: int = 0, samples: tuple[float, ...] = CALM, **changes: Any) -> Measurement:
    """Return an ok measurement with these samples."""
    return measurement(number, samples_s=samples, **changes)


def failed(status: Status, number: int = 0, reason: str = "because") -> Measurement:
    """Return a measurement that gave no time."""
    return cell(number, (), status=status, reason=reason)


def store(folder: Path, *cells: Measurement, environment: Environment = ENVIRONMENT) -> Path:
    """Add cells to a folder under one environment; return the folder."""
    with Store(folder) as opened:
        name = opened.add_environment(environment)
        opened.append_many([dataclasses.replace(c, environment=name) for c in cells])
    return folder


def scaled(factor: float) -> tuple[float, ...]:
    """Return the calm samples, slowed down by ``factor``."""
    return tuple(s * factor for s in CALM)
