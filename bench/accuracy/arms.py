"""An arm turns the dense network and its scores into the network that is trained."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.accuracy.masked import MaskedConv2d
from bench.accuracy.masked_sites import masked_sites
from bench.accuracy.models import step_multiply_adds
from bench.accuracy.names import DENSE, GROUPED, MASKED, REGROUPED, STATIC, THIN
from bench.accuracy.plan import AccuracyPlan, Run
from bench.accuracy.smaller import grouped, thin
from hrbp_core import dynamic
from hrbp_core import scores as keep_scores
from hrbp_core.allocate import Allocation, erk, uniform
from hrbp_core.conversion import convert
from hrbp_core.convs import dense_by_default
from hrbp_core.mask import WeightMask
from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.permute import absorb
from hrbp_core.regrouping import regroup

Scores = dict[str, Tensor]
LEAST_UPDATES = 10  # of a pattern that moves, where nobody said how often


@dataclass(frozen=True)
class ArmFacts:
    """What an arm's network keeps.

    Attributes:
        real_density: kept weights / all weights of the layers that sparse arms replace.
        flops_ratio: multiply-adds of a training step on kept weights / those of the dense
            network, all layers. A masked layer still does its dense work.
        dead_filters: filters without a kept weight.
        left_dense: reason by name of the convolutions that stay dense in every arm.
        lifted: layers that got more than their share: no pattern keeps less.
        standalone: sparse layers that permute or gather in every call.
    """

    real_density: float
    flops_ratio: float
    dead_filters: int
    left_dense: Mapping[str, str]
    lifted: tuple[str, ...]
    standalone: int


def densities_for(network: nn.Module, plan: AccuracyPlan, density: float) -> Allocation:
    """Return the density of each sparse layer, the same for every arm.

    Raises:
        ValueError: a density that no pattern of such blocks reaches, or no layer for them.
    """
    spread = {"uniform": uniform, "erk": erk}[plan.allocation]
    return spread(network, density, block=plan.block)


def scores_for(
    network: nn.Module, images: Tensor, labels: Tensor, rule: str, seed: int, density: float = 0.1
) -> Scores:
    """Return keep-scores [K, C, R, S] >= 0 of each layer that may be sparse.

    Layers that are dense by default are left out. The network is left as it was. SynFlow alone
    asks for the density.
    """
    skip = list(dense_by_default(network))
    if rule == "magnitude":
        return keep_scores.magnitude(network, skip=skip)
    if rule == "random":
        return keep_scores.random(network, seed=seed, skip=skip)
    if rule == "synflow":
        return keep_scores.synflow(network, images[:1], density=density, skip=skip)
    return getattr(keep_scores, rule)(network, (images, labels), skip=skip)  # type: ignore[no-any-return]


def build(
    run: Run, plan: AccuracyPlan, dense: nn.Module, scores: Scores, classes: int = 10
) -> nn.Module:
    """Return the arm's network, starting from the weights of ``dense``, which stays as it is.

    ``thin`` alone draws weights of its own.
    """
    if run.arm == DENSE:
        return copy.deepcopy(dense)
    densities = densities_for(dense, plan, run.density)
    if run.arm == THIN:
        return thin(plan.network, run.seed, dense, densities, classes)
    if run.arm in REGROUPED:
        options = plan.options(run)
        wanted = {name: scores[name] for name in densities}
        with torch.random.fork_rng(devices=[]):
            network, _ = convert(dense, densities, scores=wanted, rescale=plan.rescale, **options)
            return absorb(network)[0]
    network = copy.deepcopy(dense)
    for name, density in densities.items():
        if density < 1:
            conv = network.get_submodule(name)
            assert isinstance(conv, nn.Conv2d)
            network.set_submodule(name, _replaced(run, plan, conv, scores.get(name), density))
    return network


def _replaced(
    run: Run, plan: AccuracyPlan, conv: nn.Conv2d, scores: Tensor | None, density: float
) -> nn.Module:
    if run.arm == GROUPED:
        return grouped(conv, density)
    assert scores is not None  # the layers that get a density are those that get scores
    mask = regroup(scores, density, **plan.options(run))
    assert isinstance(mask, WeightMask)
    return MaskedConv2d(_rescaled(conv, mask.kept) if plan.rescale else conv, mask.kept)


@torch.no_grad()
def _rescaled(conv: nn.Conv2d, mask: Tensor) -> nn.Conv2d:
    """Multiply each filter by sqrt(its weights / its kept weights), in place."""
    kept = mask.sum((1, 2, 3), dtype=conv.weight.dtype).clamp(min=1)
    conv.weight.mul_((mask[0].numel() / kept).sqrt().view(-1, 1, 1, 1))
    return conv


def mover(
    run: Run, plan: AccuracyPlan, network: nn.Module, optimizer: torch.optim.Optimizer, steps: int
) -> dynamic.DynamicSparsity | None:
    """Return what moves the run's pattern; None where it stays.

    Args:
        steps: of the whole training.
    """
    if run.dst == STATIC:
        return None
    kind = {"set": dynamic.SET, "rigl": dynamic.RigL, "itop": dynamic.ITOP}[run.dst]
    until = max(1, math.floor(plan.dst_until * steps))
    # a short training would never come to its first update
    every = plan.dst_every or min(kind.EVERY, max(1, until // LEAST_UPDATES))
    single = run.arm in MASKED
    return kind(
        network, optimizer, drop=plan.dst_drop, every=every, until=until, seed=run.seed,
        sites=masked_sites if single else dynamic.block_sites,
        balance="none" if single else "keep",
    )  # fmt: skip


def kept_masks(network: nn.Module) -> dict[str, Tensor]:
    """Return bool [K, C, R, S] of each layer of ``network`` that is not dense, by name."""
    masks = {}
    for name, module in network.named_modules():
        if isinstance(module, MaskedConv2d):
            masks[name] = module.mask.bool()
        elif isinstance(module, BlockSparseConv2d):
            masks[name] = module.pattern.mask()
    return masks


def arm_facts(
    network: nn.Module, dense: nn.Module, images: Tensor, allocation: Allocation | None = None
) -> ArmFacts:
    """Return what ``network`` keeps of ``dense``, for a step on ``images``."""
    masks = kept_masks(network)
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    ours, theirs = (step_multiply_adds(*a) for a in ((network, images, kept), (dense, images, {})))
    names = list(masks) if allocation is None else list(allocation)
    return ArmFacts(
        real_density=_real_density(network, dense, names, kept),
        flops_ratio=ours / theirs,
        dead_filters=sum(int((~mask.flatten(1).any(1)).sum()) for mask in masks.values()),
        left_dense={} if allocation is None else dict(allocation.left_dense),
        lifted=() if allocation is None else allocation.lifted,
        standalone=sum(
            isinstance(m, BlockSparseConv2d) and not m.pattern.is_canonical
            for m in network.modules()
        ),
    )


def _real_density(
    network: nn.Module, dense: nn.Module, names: list[str], kept: Mapping[str, int]
) -> float:
    ours = theirs = 0
    for name in names:
        layer = network.get_submodule(name)
        weights = kept.get(name)
        ours += layer.weight.numel() if weights is None else weights  # type: ignore[operator, union-attr]
        theirs += dense.get_submodule(name).weight.numel()  # type: ignore[operator, union-attr]
    return ours / theirs if theirs else 1.0


__all__ = [
    "ArmFacts", "MaskedConv2d", "arm_facts", "build", "densities_for", "kept_masks",
    "mover", "scores_for",
]  # fmt: skip
