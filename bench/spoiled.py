"""Inputs that no implementation may change: who did, and what they were before."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.attempt import Attempt
from bench.problem import Problem
from bench.records import Status

CHANGED = "changed its input"


def copied(problem: Problem) -> list[Tensor]:
    """Return copies of what is read."""
    return [t.clone() for t in (problem.x, problem.dy, problem.weight)]


def guarded(attempt: Attempt, call: Callable[[], object]) -> None:
    """Call; whatever is raised puts the attempt out."""
    try:
        call()
    except Exception as error:
        attempt.fail_by(error)


def changed(problem: Problem, inputs: list[Tensor]) -> list[str]:
    """Return the names of inputs that are no longer what they were."""
    names = ("x", "dy", "weight")
    pairs = zip(names, inputs, strict=True)
    return [name for name, kept in pairs if not torch.equal(getattr(problem, name), kept)]


def check_inputs(problem: Problem, inputs: list[Tensor], attempt: Attempt) -> None:
    """Put out an implementation that changed an input, and restore what it was."""
    found = changed(problem, inputs)
    restore(problem, inputs)
    if found:
        attempt.fail(Status.WRONG, f"{CHANGED} {', '.join(found)}")


def restore(problem: Problem, inputs: list[Tensor]) -> None:
    """Write the copies back."""
    for tensor, kept in zip((problem.x, problem.dy, problem.weight), inputs, strict=True):
        tensor.copy_(kept)
