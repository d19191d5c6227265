"""A session for the tests of isolation: implementations that fail in every way by their names."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from bench.attempt import Attempt
from bench.isolate import Isolated
from tests.store_samples import measurement

CASE = measurement(0).cell.case


def settings(**changes):
    return SimpleNamespace(mode="hot", environment="env", **changes)


class Session:
    """Measures nothing: each name does what it says, after it was announced."""

    def __init__(self, told, announce):
        if hasattr(told, "broken"):
            raise RuntimeError("no such device")
        self.told, self.announce = told, announce
        self.phases = SimpleNamespace(seconds={"sample": 0.0})

    def measure(self, case, names):
        found = []
        for name in names:
            self.announce(name)
            self._act(name)
            attempt = Attempt(name, samples_s=[1.0], detail={"pid": os.getpid()})
            found.append(attempt.measurement(case, self.told.mode, self.told.environment))
        self.phases.seconds["sample"] += 1.0
        return found

    def _act(self, name):
        if name == "hang":
            time.sleep(600)
        elif name == "hang_in_c":  # the interpreter is held: no other thread of it runs
            sum(range(10**12))
        elif name == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif name == "oom":
            os.kill(os.getpid(), signal.SIGKILL)
        elif name == "exit":
            os._exit(3)
        elif name == "busy":  # longer than the limit in all, each step within it
            for _ in range(6):
                self.announce(name)
                time.sleep(0.5)
        elif name == "hiccup" and not Path(self.told.mark).exists():
            Path(self.told.mark).touch()
            os._exit(1)

    def close(self):
        pass


if __name__ == "__main__":  # start a worker, tell its pid, and let it hang
    isolated = Isolated(Session, settings(), limit_s=600)
    print(isolated.measure(CASE, ["fine"])[0].detail["pid"], flush=True)
    isolated.measure(CASE, sys.argv[1:])
