"""What ``calibrate`` measured and chose, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LayerTimes:
    """One layer's times, in all of its calls of one pass of the model.

    Attributes:
        sparse_s, dense_s: sums over the calls of the medians, in seconds; with several ranks
            the mean of those that called it.
        calls: what it was called with here -> how often.
        choice: "sparse" or "dense".
    """

    name: str
    sparse_s: float
    dense_s: float
    calls: Mapping[str, int]
    choice: str

    @property
    def ratio(self) -> float:
        """Dense time / sparse time: above 1 where the sparse way is faster."""
        return self.dense_s / self.sparse_s

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "name": self.name,
            "sparse_s": self.sparse_s,
            "dense_s": self.dense_s,
            "calls": dict(self.calls),
            "choice": self.choice,
        }


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """What was chosen, and why.

    Attributes:
        layers: name -> times and choice.
        not_called: layers of policy "auto" that the model did not call: their choice stays.
        margin: how much faster the dense way has to be, as a share of its time.
        backward: whether gradients were timed too, where the layers are trained.
        ranks: processes whose times were combined.
    """

    layers: Mapping[str, LayerTimes]
    not_called: tuple[str, ...]
    margin: float
    backward: bool
    ranks: int

    @property
    def choices(self) -> dict[str, str]:
        """Name -> "sparse" or "dense"."""
        return {name: layer.choice for name, layer in self.layers.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "layers": [layer.to_dict() for layer in self.layers.values()],
            "not_called": list(self.not_called),
            "margin": self.margin,
            "backward": self.backward,
            "ranks": self.ranks,
        }

    def __str__(self) -> str:
        if not self.layers and not self.not_called:
            return 'nothing to calibrate: no layer of policy "auto"'
        dense = sum(layer.choice == "dense" for layer in self.layers.values())
        timed = "forward + backward" if self.backward else "forward"
        ranks = f", {self.ranks} ranks" if self.ranks > 1 else ""
        lines = [
            f"{len(self.layers) - dense} layers run sparsely, {dense} densely ({timed}{ranks}; "
            f"densely where that is faster by more than {self.margin:.4g})"
        ]
        width = max(map(len, (*self.layers, *self.not_called)))
        for name, layer in self.layers.items():
            lines.append(
                f"  {name:{width}}  sparse {layer.sparse_s * 1e3:.3f} ms, "
                f"dense {layer.dense_s * 1e3:.3f} ms ({layer.ratio:.2f}x): {layer.choice}"
            )
        lines += [f"  {n:{width}}  not called: its choice stays" for n in self.not_called]
        return "\n".join(lines)
