"""An arm turns the dense network and its scores into the network that is trained."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.accuracy.models import sparse_convs, step_multiply_adds
from bench.accuracy.plan import DENSE, UNSTRUCTURED, AccuracyPlan, Run
from hrbp_core import scores as keep_scores
from hrbp_core.convs import convolutions
from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.regrouping import block_pattern

Scores = dict[str, Tensor]


class MaskedConv2d(nn.Module):
    """A dense convolution whose weight is multiplied by a mask in every forward.

    The dropped weights stay in the parameter, where momentum and weight decay may move them,
    but no output and no gradient ever sees them.

    Attributes:
        conv: holds the parameters (groups=1, padded with zeros).
        mask: weight's dtype, [K, C, R, S]; 1 where a weight is kept, else 0.

    Args:
        mask: bool [K, C, R, S].
    """

    mask: Tensor

    def __init__(self, conv: nn.Conv2d, mask: Tensor) -> None:
        super().__init__()
        self.conv = conv
        # in the weight's own memory layout, or every step would pay for a strided product
        kept = torch.empty_like(conv.weight, requires_grad=False).copy_(mask)
        self.register_buffer("mask", kept)

    @property
    def weight(self) -> Tensor:
        """[K, C, R, S]: zero where nothing is kept."""
        return self.conv.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """Return y [N, K, P, Q] of x [N, C, H, W]."""
        conv = self.conv
        return functional.conv2d(
            x, self.weight, conv.bias, conv.stride, conv.padding, conv.dilation
        )


@dataclass(frozen=True)
class ArmFacts:
    """What an arm's network keeps.

    Attributes:
        real_density: kept weights / all weights of the sparse layers.
        flops_ratio: multiply-adds of a training step on kept weights / those of the dense
            network, all layers. A masked layer still does its dense work.
        dead_filters: filters without a kept weight.
    """

    real_density: float
    flops_ratio: float
    dead_filters: int


def scores_for(network: nn.Module, images: Tensor, labels: Tensor, rule: str, seed: int) -> Scores:
    """Return keep-scores [K, C, R, S] >= 0 of each sparse layer; higher is better.

    The network is left as it was.
    """
    wanted = sparse_convs(network)
    skip = [name for name in convolutions(network) if name not in wanted]
    if rule == "magnitude":
        return keep_scores.magnitude(network, skip=skip)
    if rule == "random":
        return keep_scores.random(network, seed=seed, skip=skip)
    return keep_scores.snip(network, (images, labels), skip=skip)


def best_weights(scores: Tensor, density: float) -> Tensor:
    """Return bool [K, C, R, S]: exactly round(density * numel) highest; ties by lower index."""
    flat = scores.contiguous().view(-1)
    order = torch.argsort(flat, descending=True, stable=True)
    mask = torch.zeros(flat.numel(), dtype=torch.bool)
    mask[order[: round(density * flat.numel())]] = True
    return mask.view(scores.shape)


def build(run: Run, plan: AccuracyPlan, dense: nn.Module, scores: Scores) -> nn.Module:
    """Return the arm's network, starting from the weights of ``dense``, which stays as it is."""
    network = copy.deepcopy(dense)
    if run.arm == DENSE:
        return network
    for name, conv in sparse_convs(network).items():
        network.set_submodule(name, _sparse_layer(run, plan, conv, scores[name]))
    return network


def _sparse_layer(run: Run, plan: AccuracyPlan, conv: nn.Conv2d, scores: Tensor) -> nn.Module:
    if run.arm == UNSTRUCTURED:
        mask = best_weights(scores, run.density)
        return MaskedConv2d(_rescaled(conv, mask) if plan.rescale else conv, mask)
    pattern = block_pattern(
        scores,
        run.density,
        method=run.arm,
        block=plan.block,
        seed=run.seed,
        coverage=plan.coverage,
        balance=plan.balance,
    )
    with torch.random.fork_rng(devices=[]):  # the module draws weights before it takes these
        return BlockSparseConv2d.from_dense(
            _rescaled(conv, pattern.mask()) if plan.rescale else conv, pattern
        )


@torch.no_grad()
def _rescaled(conv: nn.Conv2d, mask: Tensor) -> nn.Conv2d:
    """Multiply each filter by sqrt(its weights / its kept weights), in place."""
    kept = mask.sum((1, 2, 3), dtype=conv.weight.dtype).clamp(min=1)
    conv.weight.mul_((mask[0].numel() / kept).sqrt().view(-1, 1, 1, 1))
    return conv


def kept_masks(network: nn.Module) -> dict[str, Tensor]:
    """Return bool [K, C, R, S] of each layer of ``network`` that is not dense, by name."""
    masks = {}
    for name, module in network.named_modules():
        if isinstance(module, MaskedConv2d):
            masks[name] = module.mask.bool()
        elif isinstance(module, BlockSparseConv2d):
            masks[name] = module.pattern.mask()
    return masks


def arm_facts(network: nn.Module, dense: nn.Module, images: Tensor) -> ArmFacts:
    """Return what ``network`` keeps of ``dense``, for a step on ``images``."""
    masks = kept_masks(network)
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    ours, theirs = (step_multiply_adds(*a) for a in ((network, images, kept), (dense, images, {})))
    weights = sum(mask.numel() for mask in masks.values())
    return ArmFacts(
        real_density=sum(kept.values()) / weights if weights else 1.0,
        flops_ratio=ours / theirs,
        dead_filters=sum(int((~mask.flatten(1).any(1)).sum()) for mask in masks.values()),
    )
