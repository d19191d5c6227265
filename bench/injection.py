"""A planted slow-down, to see a gate fail: ``HRBP_INJECT_DELAY``.

``HRBP_INJECT_DELAY=10%`` lets every call of ours take a tenth longer, ``50us`` fifty
microseconds; ``10%@conv4_3x3 wgrad`` only where the words stand in a cell's layer and pass. It
acts in ``bench`` alone, the library knows nothing of it, and a cell says ``injected_delay``.
On CUDA it is a spin on the device: events do not see a host that sleeps.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.records import Case

VARIABLE = "HRBP_INJECT_DELAY"
_UNITS = {"%": 1e-2, "us": 1e-6, "ms": 1e-3}
Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Delay:
    """How much longer a call takes.

    Attributes:
        share: of the call's own time; or None. seconds: otherwise. words: of the cells meant.
    """

    text: str
    share: float | None
    seconds: float
    words: tuple[str, ...] = ()

    def meets(self, case: Case) -> bool:
        """Return whether the case is one of those that are slowed down."""
        name = f"{case.layer} {case.conv_pass} {case.recipe.density:g} {case.recipe.block[0]}"
        return all(word in name.split() for word in self.words)


def delay() -> Delay | None:
    """Return what the variable asks for; None where it is not set.

    Raises:
        ValueError: it says something else.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    amount, _, words = text.partition("@")
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%|us|ms)", amount.strip())
    if not found:
        raise ValueError(f"expected {VARIABLE} like 10%, 50us or 10%@conv4_3x3; got {text!r}")
    value = float(found[1]) * _UNITS[found[2]]
    share, seconds = (value, 0.0) if found[2] == "%" else (None, value)
    return Delay(text, share, seconds, tuple(words.split()))


def slowed(run: Call, case: Case, asked: Delay) -> Call:
    """Return the call, and then the delay."""
    if case.device == "cuda":
        return _on_device(run, asked)

    def call() -> Tensor:
        start = time.perf_counter()
        out = run()
        now = time.perf_counter()
        end = now + (asked.seconds if asked.share is None else asked.share * (now - start))
        while time.perf_counter() < end:
            pass
        return out

    return call


def _on_device(run: Call, asked: Delay) -> Call:
    cycles_per_s = _cycles_per_s()
    seconds = asked.seconds
    if asked.share is not None:
        run()
        seconds = asked.share * _device_s(run)

    def call() -> Tensor:
        out = run()
        torch.cuda._sleep(int(seconds * cycles_per_s))
        return out

    return call


def _cycles_per_s() -> float:
    cycles = 10_000_000
    torch.cuda._sleep(1000)  # the first one loads the module
    return cycles / _device_s(lambda: torch.cuda._sleep(cycles))


def _device_s(run: Callable[[], object], calls: int = 5) -> float:
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    marks[0].record()
    for _ in range(calls):
        run()
    marks[1].record()
    marks[1].synchronize()
    return float(marks[0].elapsed_time(marks[1])) * 1e-3 / calls
