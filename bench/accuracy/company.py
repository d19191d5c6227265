"""Runs that train side by side, as one of them sees it: they pause while another one times.

A process says to the parent, over its pipe, what it does (``bench.accuracy.desk`` has the words),
and looks at a flag between two steps. No torch, and no lock that a killed process would keep.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

GO, TURN, OVER, PAUSED = "go", "turn", "over", "paused"
Context = contextlib.AbstractContextManager[object]


class Company:
    """What trains beside this process: here, nothing."""

    def pause(self) -> None:
        """Wait while another one times. Called between two steps."""

    def turn(self) -> Context:
        """Return a context in which nothing else runs."""
        return contextlib.nullcontext()


NOBODY = Company()


class Neighbours(Company):
    """Other processes of one parent.

    Args:
        pipe: to the parent.
        wanted: a shared number; not 0 while somebody wants to time.
        settle: ends what this process has begun elsewhere (on a GPU), before it says it rests.
        whole: the context of a turn: the whole machine is there for it.
    """

    def __init__(
        self,
        pipe: Connection,
        wanted: Any,
        settle: Callable[[], object] = lambda: None,
        whole: Callable[[], Context] = contextlib.nullcontext,
    ) -> None:
        self._pipe, self._wanted, self._settle, self._whole = pipe, wanted, settle, whole

    def pause(self) -> None:
        """Wait while another one times."""
        if self._wanted.value:
            self._settle()
            self._pipe.send((PAUSED, None))
            self._wait()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        self._settle()
        self._pipe.send((TURN, None))
        self._wait()
        try:
            with self._whole():
                yield
        finally:
            self._pipe.send((OVER, None))

    def turn(self) -> Context:
        """Return a context that begins when all the others rest, and lets them go on after it."""
        return self._turn()

    def _wait(self) -> None:
        word = self._pipe.recv()
        assert word == GO, word


class Interrupted:
    """A data set whose batches may have to wait: what trains on it pauses between two steps."""

    def __init__(self, data: Any, pause: Callable[[], None]) -> None:
        self._data, self._pause = data, pause

    @property
    def augments(self) -> bool:
        """Whether images are cropped and mirrored."""
        return bool(self._data.augments)

    def train_batches(self, *args: Any, **options: Any) -> Iterator[Any]:
        """Yield the data's batches, each after a pause where one is wanted."""
        return self._paced(self._data.train_batches(*args, **options))

    def test_batches(self) -> Iterator[Any]:
        """Yield the data's test batches alike."""
        return self._paced(self._data.test_batches())

    def _paced(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self._pause()
            yield batch


def end_with_the_parent() -> None:
    """End this process at once when its parent is gone, whatever it is at."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
