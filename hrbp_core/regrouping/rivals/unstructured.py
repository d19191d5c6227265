"""The best single weights: an upper bound on what any grouping retains."""

from __future__ import annotations

import torch
from torch import Tensor

from hrbp_core.mask import WeightMask
from hrbp_core.regrouping.problem import Limits, Problem
from hrbp_core.regrouping.selection import choose_entries


def unstructured(problem: Problem, scores: Tensor) -> WeightMask:
    """Return the mask of the best weights; every filter and channel keeps one under coverage."""
    k, c, taps = problem.tap_scores.shape
    least = int(problem.coverage)
    limits = Limits(problem.weights, (least, c * taps), (least, k * taps))
    kept = choose_entries(problem.tap_scores, limits).reshape(tuple(scores.shape))
    return WeightMask("unstructured", torch.from_numpy(kept).to(scores.device), None)
