"""The parent's end of a measuring process: started, asked, blamed, ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.gating.sides import Side
from bench.gating.worker import NO_API
from bench.injection import VARIABLE

READY_S, STEP_S = 600.0, 120.0
POLL_S = 0.2
LINES_SHOWN = 3


class Died(RuntimeError):
    """A process that ended, or stood still, before it answered.

    Attributes:
        side: "base" or "head". cell: whose code ran, if known. no_api: it could not be loaded.
    """

    def __init__(self, side: str, cell: str | None, reason: str, no_api: bool = False) -> None:
        super().__init__(reason)
        self.side, self.cell, self.reason, self.no_api = side, cell, reason, no_api


class Child:
    """One measuring process.

    Args:
        side: whose library it loads. folder: for its request and its standard error.
        request: what it is told, beside ``parent`` and ``root``.
    """

    MODULE = "bench.gating.worker"

    def __init__(self, side: Side, folder: Path, request: dict[str, Any], number: int) -> None:
        self.side, self.cell = side, None
        path = folder / f"request-{number}.json"
        path.write_text(json.dumps({**request, "parent": os.getpid(), "root": str(side.root)}))
        self._errors_path = folder / f"errors-{number}.txt"
        self._errors = self._errors_path.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.MODULE, str(path)],
            cwd=side.root,
            env=_environment(side),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # an interrupt of the terminal is the parent's to handle
        )
        self._buffer = b""
        self.cell: str | None = None  # type: ignore[no-redef]

    def send(self, **order: Any) -> None:
        """Give an order."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end shows when the answer is waited for
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            self.process.stdin.flush()

    def answer(self, limit_s: float = STEP_S) -> Any:
        """Return the next answer.

        Raises:
            Died: the process ended, or said nothing for ``limit_s``.
        """
        last = time.monotonic()
        while True:
            line, left, rest = self._buffer.partition(b"\n")
            if left:
                self._buffer, last = rest, time.monotonic()
                message = json.loads(line)
                if "answer" in message:
                    return message["answer"]
                self.cell = message["at"]
                continue
            if not self._read() and self.process.poll() is not None and not self._read():
                raise Died(self.side.name, self.cell, self._end(), self._no_api())
            if time.monotonic() - last > limit_s:
                raise Died(self.side.name, self.cell, f"a step took longer than {limit_s:.0f} s")

    def ask(self, limit_s: float = STEP_S, **order: Any) -> Any:
        """Give an order and return its answer; see ``answer``."""
        self.send(**order)
        return self.answer(limit_s)

    def end(self) -> None:
        """Kill it and wait: it holds nothing worth a farewell."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._errors.close()

    def _read(self) -> bool:
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        if not select.select([descriptor], [], [], POLL_S)[0]:
            return False
        data = os.read(descriptor, 1 << 20)
        self._buffer += data
        return bool(data)

    def _no_api(self) -> bool:
        return self.process.wait() == NO_API

    def _end(self) -> str:
        code = self.process.wait()
        said = self._errors_path.read_text(errors="replace").strip().splitlines()
        words = " / ".join(line.strip() for line in said[-LINES_SHOWN:])[-300:]
        if code == NO_API:
            return said[-1] if said else "it could not be loaded"
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"its process ended: {how}{': ' if words else ''}{words}"


def check_loads(side: Side, folder: Path, impls: Sequence[str]) -> None:
    """Load a side once in a process of its own.

    Raises:
        Died: it cannot be loaded.
    """
    child = Child(
        side, folder, {"impls": list(impls), "cells": []}, 0 if side.name == "base" else 1
    )
    try:
        child.answer(READY_S)
    finally:
        child.end()


def _environment(side: Side) -> dict[str, str]:
    """Return a process's environment: equal for both sides but for what names them."""
    found = dict(os.environ)
    delay = found.pop(VARIABLE, "")
    if side.name == "head" and delay:  # planted in head alone
        found[VARIABLE] = delay
    return found | {"PYTHONPATH": str(side.root), "HRBP_COMMIT": side.commit}
