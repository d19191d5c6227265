"""What ``convert`` did: layer by layer, and in all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hrbp_core.allocate import Costs
from hrbp_core.pattern import BlockPattern


@dataclass(frozen=True, eq=False)
class SparseLayer:
    """One layer that became sparse.

    Attributes:
        requested: the density that was asked for.
        retained: the share of its score that its pattern keeps.
        pattern: the blocks it keeps.
    """

    name: str
    requested: float
    retained: float
    pattern: BlockPattern

    @property
    def density(self) -> float:
        """Kept weights / weights."""
        return self.pattern.density

    @property
    def dead_filters(self) -> int:
        """Filters without a kept weight; none under coverage."""
        return len(self.pattern.dead_filters)

    @property
    def dead_channels(self) -> int:
        """Channels that no filter keeps; none under coverage."""
        return len(self.pattern.dead_channels)

    @property
    def told_dead(self) -> str:
        """What is dead, for a line of text; "" where nothing is."""
        if not self.dead_filters + self.dead_channels:
            return ""
        return f"  dead: {self.dead_filters} filters, {self.dead_channels} channels"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "name": self.name,
            "shape": list(self.pattern.shape),
            "block": list(self.pattern.block),
            "requested": self.requested,
            "density": self.density,
            "retained": self.retained,
            "dead_filters": self.dead_filters,
            "dead_channels": self.dead_channels,
        }


@dataclass(frozen=True, eq=False)
class Conversion:
    """What became sparse, what did not, and what the network costs now.

    Attributes:
        method: of the regrouping.
        layers: name -> what was done.
        left_dense: name -> why it is dense still.
        costs: weights and FLOPs of all convolutions and linear layers.
        untraced: why the layers were regrouped one by one; None when together.
        boxes: submodules that torch.fx could not look into, and why.
    """

    method: str
    layers: Mapping[str, SparseLayer]
    left_dense: Mapping[str, str]
    costs: Costs
    untraced: str | None
    boxes: Mapping[str, str]

    @property
    def density(self) -> float:
        """Kept weights / weights of the layers that became sparse; 1 when none did."""
        sizes = [math.prod(layer.pattern.shape) for layer in self.layers.values()]
        kept = [layer.density * n for layer, n in zip(self.layers.values(), sizes, strict=True)]
        return sum(kept) / sum(sizes) if sizes else 1.0

    @property
    def retained(self) -> float:
        """The share of a layer's score that is kept, on average over the layers; 1 of none."""
        shares = [layer.retained for layer in self.layers.values()]
        return sum(shares) / len(shares) if shares else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "method": self.method,
            "layers": [layer.to_dict() for layer in self.layers.values()],
            "left_dense": dict(self.left_dense),
            "weights": self.costs.weights,
            "kept_weights": self.costs.kept_weights,
            "flops": self.costs.flops,
            "kept_flops": self.costs.kept_flops,
            "untraced": self.untraced,
            "boxes": dict(self.boxes),
        }

    def __str__(self) -> str:
        width = max((len(name) for name in (*self.layers, *self.left_dense)), default=0)
        lines = [f"{len(self.layers)} sparse layers ({self.method}), {len(self.left_dense)} dense"]
        for name, layer in self.layers.items():
            k, c, r, s = layer.pattern.shape
            lines.append(
                f"  {name:{width}}  {k}x{c}x{r}x{s}  density {layer.density:.4g} "
                f"(asked {layer.requested:.4g})  retained {layer.retained:.3f}" + layer.told_dead
            )
        lines += [f"  {name:{width}}  dense: {why}" for name, why in self.left_dense.items()]
        total = self.costs
        lines.append(f"score retained: {self.retained:.3f} on average over the sparse layers")
        lines.append(f"weights kept: {total.kept_weights} of {total.weights} ({total.density:.1%})")
        if total.flops is not None and total.kept_flops is not None:
            lines.append(f"FLOPs of a forward: {total.kept_flops / total.flops:.1%} of dense")
        if self.untraced is not None:
            lines.append(f"regrouped one by one: {self.untraced}")
        lines += [f"closed to torch.fx: {name} ({why})" for name, why in self.boxes.items()]
        return "\n".join(lines)
