"""A budget shared among layers: bounds, what a rule wants, whole blocks near it.

For :mod:`hrbp_core.allocate`, where the guarantees and the errors are described.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hrbp_core.convs import check_names, convolutions, dense_by_default, filter_shape, why_dense
from hrbp_core.shapes import Pair, block_grid, least_density, pair

Floats = NDArray[np.float64]
Source = nn.Module | Mapping[str, Tensor]
Names = Collection[str] | None


@dataclass(frozen=True)
class Task:
    """Layers of so many units (blocks, or weights), the least units each keeps, the budget."""

    shapes: dict[str, tuple[int, ...]]
    units: list[int]
    least: list[int]
    left_dense: dict[str, str]
    requested: float
    block: Pair | None

    @property
    def weights(self) -> list[int]:
        return [math.prod(shape) for shape in self.shapes.values()]

    @property
    def unit(self) -> list[Fraction]:
        """Weights a unit."""
        return [Fraction(*ratio) for ratio in zip(self.weights, self.units, strict=True)]

    @property
    def least_weights(self) -> list[Fraction]:
        return [count * unit for count, unit in zip(self.least, self.unit, strict=True)]

    @property
    def budget(self) -> int:
        """Weights to keep."""
        return round(self.requested * sum(self.weights))


def pose(source: Source, density: float, block: Any, taps: Any, keep_dense: Names) -> Task:
    """Return the task; arguments and errors are those of the rules."""
    sides = None if block is None else pair(block, "block", least=1)
    if not 0 < density <= 1:
        raise ValueError(f"expected density in (0, 1], got {density}")
    if taps is not None and sides is None:
        raise ValueError(f"expected a block with taps, got taps={taps!r} without")
    shapes, left_dense = _sorted_out(source, keep_dense, sides)
    units, least = [], []
    for shape in shapes.values():
        units.append(math.prod(block_grid(shape, sides) if sides else shape))
        own_taps = min(taps, math.prod(shape[2:])) if isinstance(taps, int) else taps
        floor = least_density(shape, sides, taps=own_taps) if sides else 0.0
        least.append(max(round(floor * units[-1]), 1))
    posed = Task(shapes, units, least, left_dense, density, sides)
    lowest = sum(posed.least_weights)
    if posed.budget < round(lowest):
        named = math.ceil(lowest / sum(posed.weights) * 10**6) / 10**6  # one that will do
        raise ValueError(
            f"expected density >= {named:g}, the least that {len(shapes)} layers can have "
            f"together, got {density}"
        )
    return posed


def _sorted_out(
    source: Source, keep_dense: Names, block: Pair | None
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Return the shapes of the layers to allocate, and why the others are left dense."""
    if isinstance(source, nn.Module):
        convs = convolutions(source)
        reasons = {name: why_dense(conv, block) for name, conv in convs.items()}
        shapes = {n: tuple(filter_shape(conv)) for n, conv in convs.items() if reasons[n] is None}
        usual = dense_by_default(source)
    elif isinstance(source, Mapping):
        shapes = {name: _shape(name, scores) for name, scores in source.items()}
        reasons = {name: _why_small(shape, block) for name, shape in shapes.items()}
        usual = dict.fromkeys(list(shapes)[:1], "the first of the scores")
    else:
        raise TypeError(f"expected a model or scores by layer name, got {type(source).__name__}")
    if keep_dense is not None:
        check_names("keep_dense", keep_dense, reasons)
        usual = dict.fromkeys(keep_dense, "named in keep_dense")
    left_dense = {name: usual.get(name) or why or "" for name, why in reasons.items()}
    left_dense = {name: why for name, why in left_dense.items() if why}
    if len(left_dense) == len(reasons):
        whys = "; ".join(f"{name}: {why}" for name, why in left_dense.items())
        raise ValueError(f"expected a layer to allocate, got {whys or 'no convolution'}")
    return {n: shape for n, shape in shapes.items() if n not in left_dense}, left_dense


def _shape(name: str, scores: Tensor) -> tuple[int, ...]:
    if not isinstance(scores, Tensor) or scores.is_complex():
        got = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"expected scores as tensors of real numbers, got {got} for {name!r}")
    if scores.dim() != 4 or scores.numel() == 0:
        raise ValueError(
            f"expected scores [K, C, R, S], all >= 1, got {list(scores.shape)} for {name!r}"
        )
    return tuple(scores.shape)


def _why_small(shape: tuple[int, ...], block: Pair | None) -> str | None:
    try:
        if block is not None:
            block_grid(shape, block)
    except ValueError as error:
        return f"smaller than a block ({str(error).removeprefix('expected ')})"
    return None


def level(task: Task, scale: Callable[[tuple[int, ...]], float]) -> tuple[Floats, list[bool]]:
    """Return the weights each layer keeps at factor * scale(shape), and which layers are lifted.

    The total grows with the factor piecewise linearly: it bends where a layer leaves its bounds.
    """
    least = np.array(task.least_weights, dtype=np.float64)
    whole = np.array(task.weights, dtype=np.float64)
    once = whole * [scale(shape) for shape in task.shapes.values()]
    factors = np.unique(np.concatenate([least / once, whole / once]))
    totals = np.clip(factors[:, None] * once, least, whole).sum(axis=1)
    wanted = np.interp(task.budget, np.maximum.accumulate(totals), factors) * once
    return np.clip(wanted, least, whole), list(wanted < least * (1 - 1e-9))


def best_shares(task: Task, scores: list[Floats]) -> tuple[Floats, list[bool]]:
    """Return how many of the best weights each layer has, and which layers are lifted.

    What lifts one layer is taken from the others; so a layer below its least stays below.
    """
    targets = np.array(task.least_weights, dtype=np.float64)
    lifted = np.zeros(len(scores), dtype=bool)
    while not lifted.all():
        free = np.flatnonzero(~lifted)
        left = int(task.budget - targets[lifted].sum() + 1e-6)  # a whole number but for noise
        counts = _counts([scores[i] for i in free], left)
        short = counts < targets[free]
        if not short.any():
            targets[free] = counts
            break
        lifted[free[short]] = True
    return targets, list(lifted)


def _counts(scores: list[Floats], count: int) -> Floats:
    """Return how many of the best ``count`` of all scores lie in each; of equal ones, the first."""
    if count < 1:
        return np.zeros(len(scores))
    every = np.concatenate(scores)
    every.partition(len(every) - count)
    threshold = every[len(every) - count]
    above = np.array([np.count_nonzero(s > threshold) for s in scores])
    equal = np.array([np.count_nonzero(s == threshold) for s in scores])
    left = count - above.sum() - (np.cumsum(equal) - equal)
    return (above + np.clip(left, 0, equal)).astype(np.float64)


def flat_scores(name: str, scores: Tensor) -> Floats:
    """Return one layer's scores as float64, checked to be finite and >= 0."""
    found = scores.detach().to("cpu", torch.float64).numpy().ravel()
    wrong = np.flatnonzero(~(np.isfinite(found) & (found >= 0)))
    if len(wrong):
        first = tuple(int(i) for i in np.unravel_index(wrong[0], scores.shape))
        raise ValueError(
            f"expected scores >= 0 and finite, got {len(wrong)} others of {len(found)} for "
            f"{name!r}, the first at {first}: {found[wrong[0]]:g}"
        )
    return found


def rounded(task: Task, targets: Floats) -> list[int]:
    """Return whole units near the targets; their total is as near to the budget as it gets.

    Largest remainders first, as long as that brings the total nearer. Then single units are taken
    or given wherever that still does: it always ends, since every move shortens the distance.
    What the rule makes whole stays so: a layer of 0.99 would cost more time than a dense one.
    """
    unit, least, most = task.unit, task.least, task.units
    exact = [target / float(u) for target, u in zip(targets, unit, strict=True)]
    order = range(len(exact))
    counts = [min(max(math.floor(exact[i] + 1e-9), least[i]), most[i]) for i in order]
    least = [most[i] if counts[i] == most[i] else least[i] for i in order]
    missing = task.budget - sum(counts[i] * unit[i] for i in order)
    for i in sorted(order, key=lambda i: counts[i] - exact[i]):
        if counts[i] < most[i] and unit[i] < missing * 2:
            counts[i] += 1
            missing -= unit[i]
    moved = True
    while moved:
        moved = False
        for i in sorted(order, key=lambda i: unit[i]):
            step = 1 if missing > 0 else -1
            if least[i] <= counts[i] + step <= most[i] and abs(missing) * 2 > unit[i]:
                counts[i] += step
                missing -= step * unit[i]
                moved = True
    return counts
