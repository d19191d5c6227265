"""MADE-UP lines of steps.jsonl, and processes of a comparison that live in this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.gating.child import Died
from bench.stepping.trials import Machine
from bench.stepping.worker import server

SPENT = {
    "dense": {
        "kinds_s": {"convolution fprop": 0.2, "convolution dgrad + wgrad": 0.5, "other": 0.1},
        "span_s": 1.0, "on_device": False, "sparse_layers_s": 0.6, "steps": 3,
    },
    "sparse": {
        "kinds_s": {"convolution fprop": 0.1, "convolution dgrad": 0.1, "convolution wgrad": 0.1,
                    "normalisation": 0.1},
        "span_s": 0.5, "on_device": False, "sparse_layers_s": None, "steps": 3,
    },
}  # fmt: skip
FACTS = {
    "real_density": 0.25, "flops_ratio": 0.3, "sparse_layers": 12, "canonical": 12,
    "standalone": {}, "left_dense": {}, "lifted": {},
}  # fmt: skip


def trial(dense_s: float, sparse_s: float, **more: Any) -> dict[str, Any]:
    """Return a trial whose medians are these."""
    return {
        "first": "dense",
        "dense_s": [0.9 * dense_s, dense_s, 1.5 * dense_s],
        "sparse_s": [0.9 * sparse_s, sparse_s, 1.5 * sparse_s],
        "dense_peak_bytes": 300 * 2**20, "sparse_peak_bytes": 200 * 2**20, "causes": [],
    } | more  # fmt: skip


def line(environment: str, run_id: str = "one", **more: Any) -> dict[str, Any]:
    """Return a line of a comparison that ended well: 2.0 times as fast."""
    return {
        "schema": 1, "run_id": run_id, "environment": environment, "device": "cpu",
        "model": "vgg16", "batch": 16, "mode": "eager", "precision": "float32", "density": 0.25,
        "block": 32, "method": "hrbp2", "balance": "both", "scores": "random",
        "allocation": "uniform", "seed": 0, "status": "ok", "reason": None, "flags": [],
        "trials": [trial(2.0, 1.0), trial(2.02, 1.0), trial(1.98, 1.0)],
        "facts": FACTS | {"memory": "a process: MADE UP"},
        "prep_s": {"convert": 3.0, "absorb": 1.0}, "spent": SPENT, "energy": None,
    } | more  # fmt: skip


def failed_line(environment: str, run_id: str = "two", **more: Any) -> dict[str, Any]:
    """Return a line of a comparison without a figure."""
    none: dict[str, Any] = {"trials": [], "facts": {"memory": None}, "spent": None, "prep_s": None}
    why = {"status": "oom", "reason": "dense: out of memory; take a smaller --batch"}
    return line(environment, run_id) | none | why | more


class InProcess:
    """A process of a comparison without the process: the worker's own code answers."""

    asked: list[str] = []

    def __init__(self, machine: Machine, part: str, number: int) -> None:
        fields = {n: getattr(machine.asked, n) for n in machine.asked.__dataclass_fields__}
        request = {"asked": fields, "folder": str(machine.folder), "part": part}
        self.serve = server(request, lambda _: None)

    def answer(self, limit_s: float) -> dict[str, Any]:
        return {}

    def ask(self, limit_s: float, **order: Any) -> Any:
        InProcess.asked.append(order["do"])
        return self.serve(order)

    def end(self) -> None:
        pass


class Scripted:
    """Processes that answer from a table, and die where it says so.

    Args:
        seconds: by trial and side. breaks: order -> exception, or an answer.
    """

    def __init__(self, seconds: list[dict[str, float]], breaks: dict[str, Any]) -> None:
        self.seconds, self.breaks = seconds, breaks
        self.parts: list[str] = []
        self.ended = 0

    def start(self, machine: Machine, part: str, number: int) -> Any:
        self.parts.append(part)
        trial_no = (len([p for p in self.parts if p != "make"]) - 1) // 2
        return _Answering(self, part, trial_no)


class _Answering:
    def __init__(self, script: Scripted, part: str, trial_no: int) -> None:
        self.script, self.part, self.trial_no = script, part, trial_no

    def answer(self, limit_s: float) -> dict[str, Any]:
        return {}

    def ask(self, limit_s: float, **order: Any) -> Any:
        what = order["do"]
        if what in self.script.breaks:
            answer = self.script.breaks[what]
            if isinstance(answer, BaseException):
                raise answer
            return answer
        seconds = self.script.seconds
        step_s = seconds[min(self.trial_no, len(seconds) - 1)].get(self.part, 1.0)
        return {
            "make": {"facts": FACTS, "prep_s": {"convert": 1.0}, "errors": {}},
            "prepare": {"prep_s": 0.5, "step_s": step_s, "optimizer": "fused"},
            "turn": [step_s] * order.get("steps", 1),
            "end": {"peak_bytes": 1, "memory": "MADE UP", "monitor": {}, "causes": [], "loss": 1.0},
            "spent": {"kinds_s": {}, "span_s": step_s, "on_device": False,
                      "sparse_layers_s": None},
            "energy": {"counter_net_j": 3.0 if self.part == "dense" else 2.0},
        }[what]  # fmt: skip

    def end(self) -> None:
        self.script.ended += 1


def died(reason: str) -> Callable[[], Died]:
    """Return what makes a process's death."""
    return lambda: Died("sparse", "stepping", reason)
