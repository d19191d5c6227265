"""``SET``, ``RigL`` and ``ITOP``: which units grow, and how often."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hrbp_core.dynamic.base import DynamicSparsity
from hrbp_core.dynamic.sites import Site

GROWTHS = ("rigl", "random")


class SET(DynamicSparsity):
    """Random growth (Mocanu et al., Nature Communications 2018); arguments of DynamicSparsity.

    Needs no gradients, and costs no more than the moves.
    """

    def growth_scores(self, site: Site, gradient: Tensor | None) -> Tensor:
        """Return uniform random numbers, drawn on the CPU."""
        return torch.rand(site.kept.shape, generator=self._generator, dtype=torch.float64)


class RigL(DynamicSparsity):
    """Growth where the dense gradient is greatest (Evci et al., ICML 2020, arXiv:1911.11134).

    A unit's score is the sum of |gradient| of its weights, for the loss of this step: summed over
    all backwards since the last ``step()`` first. On such a step each layer costs a dense wgrad
    more, and memory for one dense weight. The paper spends the step on the update instead;
    here the optimizer has stepped before units drop.
    """

    uses_gradients = True

    def growth_scores(self, site: Site, gradient: Tensor | None) -> Tensor:
        """Return the sums of |gradient|."""
        if gradient is None:
            raise ValueError("expected the dense gradient, got none")
        return site.growth(gradient)


class ITOP(DynamicSparsity):
    """Rare, large updates that explore more (Liu et al., ICML 2021, arXiv:2102.02887).

    SET or RigL with half of the units dropped every 1500 steps at the start (the authors'
    settings for CIFAR): weights have time to grow before they are judged. ``explored.whole`` is
    the paper's R_s; every method counts it.

    Args:
        growth: "rigl" or "random". Others as in DynamicSparsity.
    """

    DROP = 0.5
    EVERY = 1500

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        growth: str = "rigl",
        **rest: Any,
    ) -> None:
        if growth not in GROWTHS:
            raise ValueError(f"expected growth as one of {', '.join(GROWTHS)}, got {growth!r}")
        self.growth = growth
        self.uses_gradients = growth == "rigl"
        super().__init__(model, optimizer, **rest)

    @property
    def method(self) -> str:
        """The name of the method and its growth."""
        return f"ITOP({self.growth})"

    def growth_scores(self, site: Site, gradient: Tensor | None) -> Tensor:
        """Return those of SET or RigL."""
        grown = RigL if self.uses_gradients else SET
        return grown.growth_scores(self, site, gradient)  # type: ignore[arg-type]
