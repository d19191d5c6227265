"""What an update did, and what was ever kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hrbp_core.regrouping.problem import Flags, Integers


@dataclass(frozen=True)
class LayerUpdate:
    """What became of a layer's units (blocks, entries or weights).

    Attributes:
        unit: what is counted.
        kept: how many are kept, before and after.
        dropped: how many left; ``grown``: how many came, as many.
        returned: how many were among the smallest and stayed, with their values.
        lifted: how many grew because coverage or balance asked for them.
    """

    unit: str
    kept: int
    dropped: int
    grown: int
    returned: int
    lifted: int


@dataclass(frozen=True)
class Update:
    """One update of the pattern.

    Attributes:
        step: after which ``step()``.
        fraction: the share of kept units that was put up for dropping.
        layers: by name.
        left_out: layers that stayed as they are, and why.
        postponed: why nothing was updated; the next step is to try again. "" if all went well.
    """

    step: int
    fraction: float
    layers: Mapping[str, LayerUpdate]
    left_out: Mapping[str, str]
    postponed: str = ""

    def __str__(self) -> str:
        if self.postponed:
            return f"step {self.step}: postponed, {self.postponed}"
        lines = [f"step {self.step}: up to {self.fraction:.3g} of each layer moves"]
        for name, each in self.layers.items():
            lines.append(
                f"  {name}  {each.grown} of {each.kept} moved ({each.unit}), "
                f"{each.returned} returned, {each.lifted} lifted"
            )
        lines += [f"  {name}  left out: {why}" for name, why in self.left_out.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Explored:
    """Which share of all weights was ever kept (ITOP's R_s).

    Attributes:
        whole: of all layers together. layers: by name.
    """

    whole: float
    layers: Mapping[str, float]

    @classmethod
    def of(cls, weights: Mapping[str, Integers], explored: Mapping[str, Flags]) -> Explored:
        """Return it, of the weights of each unit and of the units that were ever kept."""
        total = {name: int(each.sum()) for name, each in weights.items()}
        seen = {name: int(each[explored[name]].sum()) for name, each in weights.items()}
        shares = {name: seen[name] / total[name] for name in total}
        return cls(sum(seen.values()) / sum(total.values()), shares)
