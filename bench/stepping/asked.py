"""What a comparison of steps is asked: the network, how it becomes sparse, how it is stepped."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bench.accuracy.plan import BALANCES
from bench.conversion import Wish
from bench.records import digest
from hrbp_core.regrouping import BLOCK_METHODS

MODES = ("eager", "compile", "graph")
FLOAT32, AMP = "float32", "bfloat16"
MOST_SCORED = 16  # images that scores, and the check of what absorb did, look at


@dataclass(frozen=True)
class Asked:
    """One comparison.

    Attributes:
        model, density, block, method, balance, scores, allocation, seed: as in
            ``bench.conversion.Wish``.
        batch: images of a step.
        mode: "eager"; "compile", forward and backward by ``torch.compile``; "graph", a CUDA
            graph of the whole step.
        amp: bfloat16 autocast around the forward; otherwise float32.
        device: "cpu" or "cuda".

    Raises:
        ValueError: an unknown name, a number out of range, or a CUDA graph on a CPU.
    """

    model: str
    batch: int
    density: float = 0.25
    block: int = 32
    method: str = "hrbp2"
    balance: str = "none"
    scores: str = "random"
    allocation: str = "uniform"
    seed: int = 0
    mode: str = "eager"
    amp: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        for value, known, name in (
            (self.method, BLOCK_METHODS, "method"),
            (self.balance, BALANCES, "balance"),
            (self.mode, MODES, "mode"),
        ):
            if value not in known:
                raise ValueError(f"expected {name} as one of {', '.join(known)}; got {value!r}")
        if self.batch < 2:
            raise ValueError(f"expected batch >= 2, as BatchNorm needs, got {self.batch}")
        if not 0 < self.density <= 1:
            raise ValueError(f"expected density in (0, 1], got {self.density:g}")
        if self.block < 1:
            raise ValueError(f"expected block >= 1, got {self.block}")
        if self.mode == "graph" and self.device != "cuda":
            raise ValueError(
                "expected mode eager or compile on a CPU, got graph: only CUDA has graphs"
            )
        _ = self.wish

    @property
    def wish(self) -> Wish:
        """What ``bench.conversion`` makes of it."""
        return Wish(
            self.model, self.density, self.block, self.method, self.balance, self.scores,
            self.allocation, min(self.batch, MOST_SCORED), self.seed,
        )  # fmt: skip

    @property
    def precision(self) -> str:
        """The dtype of the convolutions: "float32", or "bfloat16" by autocast."""
        return AMP if self.amp else FLOAT32

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, ``precision`` in place of ``amp``."""
        facts = asdict(self)
        del facts["amp"]
        return facts | {"precision": self.precision}

    @property
    def run_id(self) -> str:
        """Names the comparison, the same on every machine."""
        return digest(self.to_dict())
