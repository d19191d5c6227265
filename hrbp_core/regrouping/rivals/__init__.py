"""Other groupings of the literature, and two bounds: masks at the same budget and coverage."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from hrbp_core.mask import WeightMask
from hrbp_core.regrouping.problem import Problem
from hrbp_core.regrouping.rivals.channel import channel
from hrbp_core.regrouping.rivals.dsb import dsb
from hrbp_core.regrouping.rivals.elementwise import elementwise
from hrbp_core.regrouping.rivals.ovw import ovw
from hrbp_core.regrouping.rivals.structure_lth import structure_lth
from hrbp_core.regrouping.rivals.two_four import two_four
from hrbp_core.regrouping.rivals.unstructured import unstructured

RIVALS: dict[str, Callable[[Problem, Tensor], WeightMask]] = {
    "elementwise": elementwise,
    "structure_lth": structure_lth,
    "dsb": dsb,
    "ovw": ovw,
    "two_four": two_four,
    "unstructured": unstructured,
    "channel": channel,
}
BALANCED_RIVALS = ("elementwise", "dsb", "ovw")  # those of filter groups with a budget each

__all__ = ["BALANCED_RIVALS", "RIVALS"]
