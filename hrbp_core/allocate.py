"""Densities: how much each layer keeps, so that the network meets its budget exactly.

Every rule takes a model, or scores ``{layer name: tensor [K, C, R, S]}``, and returns an
:class:`Allocation`. The budget is ``round(density * weights)`` of the layers allocated; those left
dense lie outside it. A layer keeps whole blocks, or single weights where ``block`` is None, and no
fewer than its least (:func:`hrbp_core.shapes.least_density`, or one weight): layers for which the
rule says less are lifted to it, and the rest is solved again.

Then counts are rounded, the largest remainders up. Guaranteed is: without blocks the total is
exact; with blocks no layer could bring it nearer to the budget by one block more or one less,
except those that the rule makes whole. So it is off by at most half a block of any other layer
that has one to take (where weights are missing) or to give (where there are too many). A block
counts as weights / blocks of its layer.

Every rule raises:
    TypeError: a source, scores, block, taps or names of the wrong kind.
    ValueError: a density outside (0, 1] or below the least that all layers can have together,
        unknown names, no layer to allocate, scores that are not [K, C, R, S], finite and >= 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from hrbp_core.budget import (
    Floats,
    Names,
    Source,
    Task,
    best_shares,
    flat_scores,
    level,
    pose,
    rounded,
)
from hrbp_core.convs import check_names, output_places, weights_of
from hrbp_core.shapes import Pair


@dataclass(frozen=True, eq=False, repr=False)
class Allocation(Mapping[str, float]):
    """Density by layer name, in the order of the layers, and how it came about.

    Attributes:
        densities: of the layers allocated: kept blocks / all blocks, or kept / all weights.
        requested: the density asked for.
        block: (block_k, block_c) or None.
        lifted: layers for which the rule said less than their least density.
        whole: layers of density 1.
        left_dense: reason by name of the layers outside the budget.
        weights, kept_weights: of the layers allocated; rounded where blocks are padded.
    """

    densities: Mapping[str, float]
    requested: float
    block: Pair | None
    lifted: tuple[str, ...]
    whole: tuple[str, ...]
    left_dense: Mapping[str, str]
    weights: int
    kept_weights: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "densities", MappingProxyType(dict(self.densities)))

    @property
    def density(self) -> float:
        """Weights kept / weights, of the layers allocated."""
        return self.kept_weights / self.weights

    def __getitem__(self, name: str) -> float:
        return self.densities[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.densities)

    def __len__(self) -> int:
        return len(self.densities)

    def __reduce__(self) -> tuple[Any, ...]:  # a mappingproxy can be neither pickled nor copied
        return Allocation, (dict(self), *list(vars(self).values())[1:])

    def __repr__(self) -> str:
        blocks = f" in blocks of {self.block[0]}x{self.block[1]}" if self.block else ""
        counts = f"{len(self.lifted)} lifted, {len(self.whole)} whole; {len(self.left_dense)} left"
        return f"Allocation({len(self)} layers, density {self.density:.4g}{blocks}: {counts} dense)"


def uniform(
    source: Source,
    density: float,
    *,
    block: int | Sequence[int] | None = None,
    taps: int | str | None = None,
    keep_dense: Names = None,
) -> Allocation:
    """Return the same density for every layer, as far as their least densities allow.

    Args:
        source: a model, all Conv2d of which are meant, or scores, whose shapes alone are read.
        density: in (0, 1], of the layers allocated together.
        block: (block_k, block_c), or one int for both; None: densities of single weights.
        taps: of each block, or "auto", for the ++ methods, whose densities reach further down;
            a layer of fewer taps keeps all of its own.
        keep_dense: names to leave dense. None: the first and the classifier of a model
            (:func:`hrbp_core.convs.dense_by_default`), the first of the scores.
    """
    task = pose(source, density, block, taps, keep_dense)
    return _settled(task, *level(task, lambda shape: 1.0))


def erk(
    source: Source,
    density: float,
    *,
    block: int | Sequence[int] | None = None,
    taps: int | str | None = None,
    keep_dense: Names = None,
) -> Allocation:
    """Return densities in proportion to (K + C + R + S) / (K * C * R * S): Erdos-Renyi-Kernel.

    Mocanu et al., Nature Communications 2018; Evci et al., ICML 2020. Layers that would pass 1
    stay whole, and the factor of the others is solved exactly. Arguments: see :func:`uniform`.
    """
    task = pose(source, density, block, taps, keep_dense)
    return _settled(task, *level(task, lambda shape: sum(shape) / math.prod(shape)))


def global_(
    scores: Mapping[str, Tensor],
    density: float,
    *,
    block: int | Sequence[int] | None = None,
    taps: int | str | None = None,
    keep_dense: Names = None,
) -> Allocation:
    """Return each layer's share of the best-scored weights of all layers together.

    Counted exactly: of equal scores, those of the earlier layer are the better. Arguments: see
    :func:`uniform`; but a model is no source.
    """
    if isinstance(scores, nn.Module):
        raise TypeError(f"expected scores by layer name, got a model ({type(scores).__name__})")
    task = pose(scores, density, block, taps, keep_dense)
    return _settled(
        task, *best_shares(task, [flat_scores(name, scores[name]) for name in task.shapes])
    )


RULES = {"uniform": uniform, "erk": erk, "global": global_}


@dataclass(frozen=True)
class Costs:
    """What a network costs, dense and at given densities.

    Attributes:
        weights, kept_weights: of all convolutions and linear layers, without biases.
        flops, kept_flops: of these layers in one forward of the example, a multiply-add as two;
            None without an example.
    """

    weights: int
    kept_weights: int
    flops: int | None = None
    kept_flops: int | None = None

    @property
    def density(self) -> float:
        """Weights kept / weights."""
        return self.kept_weights / self.weights

    @property
    def flops_ratio(self) -> float | None:
        """Operations left / operations; None without an example."""
        return None if not self.flops or self.kept_flops is None else self.kept_flops / self.flops


def costs(model: nn.Module, densities: Mapping[str, float], example: Any = None) -> Costs:
    """Return the costs of the whole model; layers without a density count in full.

    Args:
        densities: by layer name, an :class:`Allocation` say; each in [0, 1].
        example: the model's input, or a tuple of its positional arguments. It may lie on the meta
            device, with the model: then nothing is computed.

    Raises:
        ValueError: a name of no convolution or linear layer, a density outside [0, 1], a model
            without such layers.
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    check_names("densities", densities, layers)
    for name, density in densities.items():
        if not 0 <= density <= 1:
            raise ValueError(f"expected densities in [0, 1], got {density} for {name!r}")
    weights = {name: weights_of(module) for name, module in layers.items()}
    if not weights:
        raise ValueError("expected a model with convolutions or linear layers, got none")
    kept = {name: count * densities.get(name, 1.0) for name, count in weights.items()}
    if example is None:
        return Costs(sum(weights.values()), round(sum(kept.values())))
    places = output_places(model, example)
    flops, kept_flops = (
        sum(2 * count * places.get(name, 0) for name, count in counts.items())
        for counts in (weights, kept)
    )
    return Costs(sum(weights.values()), round(sum(kept.values())), round(flops), round(kept_flops))


def _settled(task: Task, targets: Floats, lifted: list[bool]) -> Allocation:
    counts = rounded(task, targets)
    kept = sum(count * unit for count, unit in zip(counts, task.unit, strict=True))
    by_name = dict(zip(task.shapes, zip(counts, task.units, strict=True), strict=True))
    return Allocation(
        densities={name: count / units for name, (count, units) in by_name.items()},
        requested=task.requested,
        block=task.block,
        lifted=tuple(name for name, held in zip(task.shapes, lifted, strict=True) if held),
        whole=tuple(name for name, (count, units) in by_name.items() if count == units),
        left_dense=task.left_dense,
        weights=sum(task.weights),
        kept_weights=round(kept),
    )
