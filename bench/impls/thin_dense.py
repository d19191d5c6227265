"""A dense layer of fewer filters and channels, of about equal FLOPs: the plain alternative."""

from __future__ import annotations

import math

from bench.impls.smaller import prepare_smaller
from bench.problem import Prepared, Problem

NAME = "thin_dense"
ABOUT = "another function: a dense layer of fewer channels, of about equal FLOPs"


def prepare(problem: Problem) -> Prepared:
    """Return the pass with both extents scaled by the square root of the density."""
    shape, scale = problem.case.shape, math.sqrt(problem.case.recipe.density)
    filters, channels = (max(1, round(scale * extent)) for extent in (shape.K, shape.C))
    density = filters * channels / (shape.K * shape.C)
    detail = {"filters": filters, "channels": channels, "real_density": density}
    return prepare_smaller(problem, filters, channels, 1, detail)
