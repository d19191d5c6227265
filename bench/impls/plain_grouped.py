"""The vendor's grouped convolution of about equal FLOPs: what a redesigned network would use."""

from __future__ import annotations

import math

from bench.impls.smaller import prepare_smaller
from bench.problem import Prepared, Problem, Unsupported

NAME = "plain_grouped"
ABOUT = "another function: the vendor's grouped convolution of about equal FLOPs"


def prepare(problem: Problem) -> Prepared:
    """Return the pass with the number of groups that is nearest to 1 / density."""
    shape, density = problem.case.shape, problem.case.recipe.density
    common = math.gcd(shape.K, shape.C)
    # nearest as a ratio: 1 / density = 8 lies between 6 and 12 nearer to 6
    groups = min(
        (g for g in range(1, common + 1) if common % g == 0),
        key=lambda g: abs(math.log(g * density)),
    )
    if groups == 1 and density < 1:
        raise Unsupported(f"{shape.K} filters and {shape.C} channels have no groups near 1/density")
    detail = {"groups": groups, "real_density": 1 / groups}
    return prepare_smaller(problem, shape.K, shape.C, groups, detail)
