"""Runs that train side by side, as their parent sees it: who works, who rests, whose turn it is.

The parent alone decides, so a process that is killed takes nothing along: its pipe ends, and it
is struck off. No torch.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from bench.accuracy.company import GO, OVER, PAUSED, TURN

READY, DONE, FAILED = "ready", "done", "failed"
BUSY, RESTING, WAITING, TIMING, IDLE = "busy", "resting", "waiting", "timing", "idle"
AFTER = {READY: IDLE, TURN: WAITING, OVER: BUSY, PAUSED: RESTING, DONE: IDLE, FAILED: IDLE}
SETTLE_S = 0.1  # idle threads of a pool spin for some ms after their last work
LEAVE_S = 10.0  # for a process that was told to end


class Desk:
    """Gives turns: one at a time, once everybody else rests, waits for a turn or has no run."""

    def __init__(self) -> None:
        self.states: dict[int, str] = {}
        self._queue: deque[int] = deque()

    @property
    def wanted(self) -> bool:
        """Whether the others are to rest, and nothing new is to begin."""
        return bool(self._queue) or TIMING in self.states.values()

    def heard(self, who: int, word: str) -> None:
        """Note what a process says of itself; a new one is busy until it is ready."""
        self.states[who] = AFTER[word]
        if word == TURN:
            self._queue.append(who)

    def begins(self, who: int) -> None:
        """Note that it starts, or gets a run."""
        self.states[who] = BUSY

    def gone(self, who: int) -> None:
        """Strike off a process that ended; its turn is over."""
        self.states.pop(who, None)
        if who in self._queue:
            self._queue.remove(who)

    def released(self) -> list[int]:
        """Return who is to go on now: the next one to time, or all that rest."""
        if TIMING in self.states.values():
            return []
        if self._queue:
            if BUSY in self.states.values():
                return []
            chosen = [self._queue.popleft()]
            self.states[chosen[0]] = TIMING
            return chosen
        resting = [who for who, state in self.states.items() if state == RESTING]
        for who in resting:
            self.states[who] = BUSY
        return resting


@dataclass
class Member:
    """A process of the pool, and what it does."""

    process: BaseProcess
    pipe: Connection
    job: Any = None


class Pool:
    """Has jobs done by processes of its own, ``places`` at a time.

    Args:
        hire: starts a process; of () -> (process, pipe). It says READY, then DONE with a
            result or FAILED with a text for each job that comes; None ends it.
        flag: a shared number that the processes look at.
        places: how many at once; may be changed while it runs.

    Attributes:
        errors: what went wrong, in order. After one, no job begins; those at work end theirs.
    """

    def __init__(
        self,
        hire: Callable[[], tuple[BaseProcess, Connection]],
        flag: Any,
        jobs: Iterable[Any],
        places: int,
    ) -> None:
        self.places, self.errors = places, list[str]()
        self._hire, self._flag, self._desk = hire, flag, Desk()
        self._jobs, self._alone = deque(jobs), deque[Any]()
        self._members: dict[int, Member] = {}
        self._hired = 0

    @property
    def shared(self) -> bool:
        """Whether another process was there just now."""
        return len(self._members) > 1

    def again(self, job: Any) -> None:
        """Have a job done once more, in the end, with nothing beside it."""
        self._alone.append(job)

    def results(self) -> Generator[tuple[Any, Any], None, None]:
        """Yield (job, result) of each job as it ends.

        Raises:
            RuntimeError: a job failed, or its process died; after all others at work ended.
        """
        try:
            while self._staffed():
                # what is handled in between is done in quiet too: nobody begins meanwhile
                for who in self._heard_from():
                    yield from self._taken(who)
                self._release()
        finally:
            self._dismiss(list(self._members))
        if self.errors:
            raise RuntimeError("; ".join(self.errors))

    def _staffed(self) -> bool:
        """Give jobs to who has none; return whether anybody is at work."""
        if not self.errors and not self._desk.wanted:
            self._give()
            while self._new() < len(self._jobs) and len(self._members) < self.places:
                self._add()
        at_work = any(state != IDLE for state in self._desk.states.values())
        if not at_work and self._alone and not self.errors:
            self._dismiss(list(self._members))
            self._jobs, self._alone, self.places = self._alone, deque(), 1
            return self._staffed()
        return at_work

    def _give(self) -> None:
        for who, member in self._members.items():
            if self._jobs and self._desk.states[who] == IDLE:
                member.job = self._jobs.popleft()
                self._desk.begins(who)
                self._tell(who, member.job)

    def _new(self) -> int:
        """Return how many processes are starting."""
        return sum(
            member.job is None and self._desk.states[who] == BUSY
            for who, member in self._members.items()
        )

    def _add(self) -> None:
        process, pipe = self._hire()
        self._members[self._hired] = Member(process, pipe)
        self._desk.begins(self._hired)
        self._hired += 1

    def _heard_from(self) -> list[int]:
        """Wait; return who has something to say, or is dead."""
        sources: dict[Any, int] = {}
        for who, member in self._members.items():
            sources |= {member.pipe: who, member.process.sentinel: who}
        return sorted({sources[each] for each in wait(list(sources))})

    def _taken(self, who: int) -> Iterator[tuple[Any, Any]]:
        """Take one word of a process, or its end."""
        member = self._members[who]
        try:
            word, content = member.pipe.recv()
        except (EOFError, OSError):
            self._lost(who)
            return
        self._desk.heard(who, word)
        if word in (DONE, FAILED):
            job, member.job = member.job, None
            if word == DONE:
                yield job, content
            else:
                self._complain(f"{job}: {content}")

    def _lost(self, who: int) -> None:
        member = self._members.pop(who)
        self._desk.gone(who)
        member.pipe.close()
        member.process.join(LEAVE_S)
        code = member.process.exitcode
        how = f"with {code}" if code is None or code >= 0 else f"by {signal.Signals(-code).name}"
        killed = "; the system kills so where memory runs out" if code == -signal.SIGKILL else ""
        what = "before its first run" if member.job is None else f"in {member.job}"
        self._complain(f"a process that trained ended {how} {what}{killed}")

    def _complain(self, text: str) -> None:
        """Tell at once: others may still train for hours."""
        self.errors.append(text)
        busy = sum(member.job is not None for member in self._members.values())
        then = f"; what others are at ({busy}) is finished first" if busy else ""
        print(f"error: {text}{then}", file=sys.stderr, flush=True)

    def _release(self) -> None:
        self._flag.value = int(self._desk.wanted)
        for who in self._desk.released():
            if self._desk.states[who] == TIMING:
                time.sleep(SETTLE_S)
            self._tell(who, GO)
        self._flag.value = int(self._desk.wanted)

    def _tell(self, who: int, word: Any) -> None:
        with contextlib.suppress(OSError):  # it died: its end is what is heard of it next
            self._members[who].pipe.send(word)

    def _dismiss(self, names: list[int]) -> None:
        """End processes: those without a run by a word, the others at once."""
        leaving = [self._members.pop(who) for who in names]
        for who, member in zip(names, leaving, strict=True):
            if self._desk.states.get(who) == IDLE:
                with contextlib.suppress(OSError):
                    member.pipe.send(None)
            else:
                member.process.kill()
            self._desk.gone(who)
        for member in leaving:
            member.process.join(LEAVE_S)
            if member.process.exitcode is None:
                member.process.kill()
                member.process.join()
            member.pipe.close()
