"""The vendor's dense convolution, in the faster of the two memory layouts."""

from __future__ import annotations

import statistics
import time

from bench.impls.vendor import conv_pass
from bench.problem import Prepared, Problem

NAME = "dense"
ABOUT = "the vendor's dense convolution: oneDNN on a CPU, cuDNN on CUDA; the reference"
ROUNDS = 5


def prepare(problem: Problem) -> Prepared:
    """Return dense with unmasked weights.

    Both layouts are tried in alternation and the one with the lower median is kept: oneDNN's
    plain layout wins some wgrads by a third, and a baseline must not be the slower of the two.
    """
    if problem.case.device == "cuda":
        return _channels_last(problem)  # cuDNN's tensor-core kernels are NHWC
    variants = (_channels_last(problem), _contiguous(problem))
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for variant, taken in zip(variants, times, strict=True):
            start = time.perf_counter()
            variant.run()
            taken.append(time.perf_counter() - start)
    medians = [statistics.median(taken) for taken in times]
    return variants[medians.index(min(medians))]


def _channels_last(problem: Problem) -> Prepared:
    call = conv_pass(problem, problem.x, problem.dy)
    weight = problem.weight
    return Prepared(lambda: call(weight), masked=False, detail={"layout": "channels_last"})


def _contiguous(problem: Problem) -> Prepared:
    """Return dense on plain-layout copies that follow the problem's inputs."""
    x, dy, weight = (t.contiguous() for t in (problem.x, problem.dy, problem.weight))
    call = conv_pass(problem, x, dy)

    def follow() -> None:
        x.copy_(problem.x)
        dy.copy_(problem.dy)

    return Prepared(
        lambda: call(weight), masked=False, detail={"layout": "contiguous"}, follow=follow
    )
