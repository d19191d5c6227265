"""The least time a cell can take under measured ceilings. Floor 1: no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bench.records import Case, Measurement
from hrbp_core.shapes import Pass

# A time under this share of its floor is no time of that work: the ceilings themselves are
# medians, so a kernel at the machine's limit may lie a little under them. A neighbour on a shared
# CPU halved its ceilings (118 against 241 GFLOP/s) and left a right cell at 0.86 of its floor.
IMPOSSIBLE = {"cuda": 0.95, "cpu": 0.5}
ITEM_BYTES = {"float64": 8, "float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2}
# Vendors may compute a 3x3 layer with fewer multiplications than the direct form has.
WINOGRAD_IMPLS = ("dense", "masked_dense", "gather_grouped", "plain_grouped", "thin_dense")
WINOGRAD_DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class Ceilings:
    """What the machine was measured to do at most; None where it could not be measured.

    Attributes:
        flops_per_s: matrix rate in the cell's dtype. bytes_per_s: of a copy, read and written
            bytes both counted. cache_bytes: the last cache; what was written may stay there.
    """

    flops_per_s: float | None
    bytes_per_s: float | None
    cache_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return dict(vars(self))


def least_bytes(case: Case, cache_bytes: int, *, dense_weights: bool) -> int:
    """Return the bytes that a pass must move when caches hold nothing of it.

    Each input once, and of the output what the last cache cannot keep as dirty lines.
    """
    shape = case.shape
    weights = math.prod(shape.filter_shape) if dense_weights else case.stored_weights
    x, y = shape.N * shape.C * shape.H * shape.W, shape.N * shape.K * shape.P * shape.Q
    parts = {
        Pass.FPROP: (x + weights, y),
        Pass.DGRAD: (y + weights, x),
        Pass.WGRAD: (x + y, weights),
    }
    inputs, output = (ITEM_BYTES[case.dtype] * n for n in parts[case.conv_pass])
    return inputs + max(0, output - cache_bytes)


def floor_s(case: Case, mode: str, flops: float, ceilings: Ceilings) -> float | None:
    """Return the least seconds of a cell; None where no ceiling is known, or in host mode.

    Hot and sustained cells have the floor of their operations alone: what they read may lie in
    caches. Cold ones have the bytes' floor, too.

    Args:
        flops: operations that the implementation does.
    """
    if ceilings.flops_per_s is None or mode == "host":
        return None
    compute_s = flops / ceilings.flops_per_s
    if mode != "cold" or ceilings.bytes_per_s is None:
        return compute_s
    if flops < case.shape.flops(case.stored_weights):
        return compute_s  # another, smaller function, whose bytes are not the case's
    dense = flops >= case.shape.flops()
    moved = least_bytes(case, ceilings.cache_bytes, dense_weights=dense)
    return max(compute_s, moved / ceilings.bytes_per_s)


def may_be_winograd(case: Case, impl: str) -> bool:
    """Return whether a vendor may know a shorter way for this cell than the direct one."""
    shape = case.shape
    return (
        impl in WINOGRAD_IMPLS
        and case.dtype in WINOGRAD_DTYPES
        and (shape.R, shape.S) == (3, 3)
        and shape.stride == shape.dilation == (1, 1)
    )


def columns(measurement: Measurement, median_s: float) -> dict[str, float]:
    """Return flops, least_bytes, ceilings, floor_s and attainment (floor over time) of a cell.

    NaN where no ceiling was stored with it; in host mode floor and attainment are NaN.
    ``least_bytes`` are those that a pass with empty caches must move, whatever the mode.
    """
    flops = measurement.detail.get("flops", math.nan)
    case = measurement.cell.case
    stored = measurement.detail.get("ceilings")
    ceilings = Ceilings(**stored) if stored else Ceilings(None, None, 0)
    floor = floor_s(case, measurement.cell.mode, flops, ceilings)
    dense = flops >= case.shape.flops()
    moved = least_bytes(case, ceilings.cache_bytes, dense_weights=dense) if stored else None
    found = {
        "least_bytes": moved,
        "ceiling_flops_per_s": ceilings.flops_per_s,
        "ceiling_bytes_per_s": ceilings.bytes_per_s,
        "floor_s": floor,
        "attainment": None if floor is None else floor / median_s,
    }
    return {"flops": flops} | {n: math.nan if v is None else v for n, v in found.items()}


def calls_to_pay(prep_s: float, dense_s: float, median_s: float) -> float:
    """Return the calls after which preparing has paid; infinite when it never does."""
    return prep_s / (dense_s - median_s) if median_s < dense_s else math.inf


def too_fast(taken: float, floor: float, ceilings: Ceilings) -> str:
    """Return why a time is impossible."""
    rate = f"{(ceilings.flops_per_s or 0) / 1e9:.4g} GFLOP/s"
    return (
        f"{taken * 1e6:.4g} µs is {taken / floor:.2f} of its floor of {floor * 1e6:.4g} µs "
        f"under the measured ceiling of {rate}"
    )
