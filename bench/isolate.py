"""Cases measured in a process of their own, which may hang, crash or run out of memory alone.

The parent keeps the store. Before each step the child writes on a shared board whose code runs
next and counts up; a count that stands still for longer than the limit is a hang, and the name
on the board is the one to blame. Such a case is tried once more in a fresh process; if it fails
again, the implementation to blame is put out and the others are measured without it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any

from bench.attempt import Attempt
from bench.orphans import die_with
from bench.records import Case, Measurement, Status, WorkerError

LIMIT_S = 120.0
START_S = 180.0  # importing torch, warming up and measuring ceilings on a loaded machine
POLL_S = 0.05
NOBODY = -1
Worker = Callable[[Any, Callable[[str], None]], Any]


@dataclass(frozen=True)
class Death:
    """How a measuring process ended. ``name`` is the implementation to blame, if any."""

    name: str | None
    status: Status
    reason: str


class Isolated:
    """Measures cases in a spawned process; a context manager.

    Args:
        make: builds the session in the child from ``settings``: make(settings, announce); it
            offers measure(case, names), phases.seconds and close(). It must be importable.
        settings: what ``make`` is told.
        limit_s: seconds that one step of an implementation may take.
    """

    def __init__(self, make: Worker, settings: Any, limit_s: float = LIMIT_S) -> None:
        self.make, self.settings, self.limit_s = make, settings, limit_s
        self.seconds: dict[str, float] = {}
        self.deaths: list[Death] = []
        self._child: _Child | None = None

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def measure(self, case: Case, names: Sequence[str]) -> list[Measurement]:
        """Return one measurement for each implementation, whatever it does.

        Raises:
            WorkerError: the process does not start.
        """
        found: dict[str, Measurement] = {}
        left, failures = list(names), Counter[str | None]()
        while left:
            answer = self._ask(case, left)
            if not isinstance(answer, Death):
                retried = {"retried": failures.total()} if failures else {}
                found |= {m.cell.impl: replace(m, detail=m.detail | retried) for m in answer}
                break
            failures[answer.name] += 1
            self.deaths.append(answer)
            if failures[answer.name] == 1:
                continue  # once more: the machine itself may have hiccuped
            blamed = [answer.name] if answer.name else left
            found |= {name: self._dead(case, name, answer) for name in blamed}
            left = [name for name in left if name not in found]
        return [found[name] for name in names]

    def _ask(self, case: Case, names: Sequence[str]) -> list[Measurement] | Death:
        if self._child is None:
            self._child = _Child(self.make, self.settings)
        answer = self._child.ask(case, names, self.limit_s)
        if isinstance(answer, Death):
            self.close()
            return answer
        measurements, seconds = answer
        for name, spent in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
        return measurements

    def _dead(self, case: Case, name: str, death: Death) -> Measurement:
        attempt = Attempt(name)
        attempt.fail(death.status, f"{death.reason}, twice")
        return attempt.measurement(case, self.settings.mode, self.settings.environment)


class _Child:
    """One spawned process and the pipes to it."""

    def __init__(self, make: Worker, settings: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.board = context.RawArray("d", [NOBODY, 0])
        self.pipe, theirs = context.Pipe()
        parent = os.getpid()
        self.process = context.Process(
            target=_main, args=(theirs, self.board, parent, make, settings), daemon=True
        )
        self.process.start()
        theirs.close()
        started = self._wait(START_S, lambda: None)
        if started != "ready":
            self.end()
            raise WorkerError(f"expected a measuring process to start, got: {started}")

    def ask(
        self, case: Case, names: Sequence[str], limit_s: float
    ) -> tuple[list[Measurement], dict[str, float]] | Death:
        """Return the measurements and the seconds a phase, or how the process died."""
        self.board[0] = NOBODY
        with contextlib.suppress(OSError):  # a dead child shows below
            self.pipe.send((case, list(names)))
        answer = self._wait(limit_s, lambda: self.board[1])
        if isinstance(answer, tuple):
            return answer
        blamed = int(self.board[0])
        name = names[blamed] if 0 <= blamed < len(names) else None
        if answer is None:
            who = name or "the suite itself"
            return Death(name, Status.TIMEOUT, f"a step of {who} took longer than {limit_s:g} s")
        return Death(name, _status_of_exit(self.process.exitcode), str(answer))

    def _wait(self, limit_s: float, count: Callable[[], Any]) -> Any:
        """Return what the child sends; None when its count stands still; a text when it dies."""
        last, since = count(), monotonic()
        while True:
            try:
                if self.pipe.poll(POLL_S):
                    return self.pipe.recv()
            except (EOFError, OSError):
                self.process.join(10)
                return _exit_text(self.process.exitcode)
            now = count()
            if now != last:
                last, since = now, monotonic()
            elif monotonic() - since > limit_s:
                return None

    def end(self) -> None:
        """Kill the process and wait for it: it holds nothing worth a farewell."""
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _status_of_exit(code: int | None) -> Status:
    # nobody here killed it: that is how the system takes memory back
    return Status.OOM if code == -signal.SIGKILL else Status.CRASHED


def _exit_text(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        why = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
        return f"its process was killed by {name}{why}"
    return f"its process ended with exit code {code}"


def _main(pipe: Connection, board: Any, parent: int, make: Worker, settings: Any) -> None:
    """Serve cases until the parent closes the pipe, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    die_with(parent)
    names: list[str] = []

    def announce(name: str) -> None:
        board[0] = names.index(name) if name in names else NOBODY
        board[1] += 1

    try:
        session = make(settings, announce)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        return
    pipe.send("ready")
    told: dict[str, float] = {}
    with contextlib.suppress(EOFError):
        while True:
            case, names[:] = pipe.recv()
            found = session.measure(case, list(names))
            now = dict(session.phases.seconds)
            pipe.send((found, {k: v - told.get(k, 0.0) for k, v in now.items()}))
            told = now
    session.close()
