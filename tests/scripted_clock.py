"""A clock whose samples come from functions of the sample's number: no second is a real one."""

from __future__ import annotations

from bench.clocks import Armed


class ScriptedClock:
    """``scripts[name](n)`` are the seconds of a call in the n-th sample of ``name``."""

    mode = "hot"

    def __init__(self, scripts, enqueue=None):
        self.scripts, self.time, self.order, self.waits = scripts, 0.0, [], []
        self.launches = dict.fromkeys(scripts, 0)
        self.enqueue = enqueue or {}

    def arm(self, run):
        return Armed(run)

    def sample(self, run, repeats):
        name = run()
        taken = self.scripts[name](self.launches[name])
        self.launches[name] += 1
        self.order.append(name)
        self.time += taken * repeats
        return taken

    def enqueue_s(self, run):
        return self.enqueue.get(run())

    def now(self):
        return self.time

    def wait(self, seconds):
        self.waits.append(seconds)
        self.time += seconds


class ScriptedWatch:
    """Says what held the clocks back, block by block; the first answer opens the sampling."""

    def __init__(self, *causes):
        self.causes, self.ticks = list(causes), 0

    def tick(self):
        self.ticks += 1

    def block(self):
        return self.causes.pop(0) if self.causes else None


def steady(seconds):
    return lambda n: seconds * (1 + 0.001 * (n % 3))
