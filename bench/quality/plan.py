"""Presets of the quality sweep, and the cells that they make. Floor 1: no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.records import digest
from hrbp_core.shapes import FilterShape

SYNTHETIC = ("independent", "rank_one", "clustered", "heavy_tailed")
REAL = ("digits_untrained", "digits_trained", "cifar_style_untrained", "cifar_style_trained")
BLOCK_METHODS = (
    "aligned", "shuffled", "sorted", "hrbp2", "hrbp", "hrbp2_pp", "hrbp_pp", "grouped",
    "dsb_kernel",
)  # fmt: skip
MASK_METHODS = (
    "elementwise", "structure_lth", "dsb", "ovw", "two_four", "unstructured", "channel",
)  # fmt: skip
BALANCED_METHODS = ("sorted", "hrbp2", "hrbp", "hrbp2_pp", "hrbp_pp")
FILE = "quality.jsonl"
KEY = "quality_id"
OPTIMUM = "optimum.jsonl"
OPTIMUM_KEY = "optimum_id"


@dataclass(frozen=True)
class QualityCell:
    """One regrouping of one layer's scores.

    Attributes:
        scores: a synthetic family, a network of ``REAL``, or a file. sha: of the scores.
    """

    scores: str
    sha: str
    shape: tuple[int, ...]
    seed: int
    method: str
    block: int
    density: float
    balance: str = "none"
    coverage: bool = True

    @property
    def cell_id(self) -> str:
        """Names the cell by content; a file's place does not matter, what it holds does."""
        return digest({**asdict(self), "scores": self.scores if "/" not in self.scores else ""})


@dataclass(frozen=True)
class QualityPlan:
    """What a quality run covers.

    Attributes:
        shapes: (K, C, R, S) of the synthetic layers.
        balanced: (block, density) at which the balances are compared too; None for nowhere.
    """

    scores: tuple[str, ...]
    methods: tuple[str, ...]
    blocks: tuple[int, ...]
    densities: tuple[float, ...]
    shapes: tuple[FilterShape, ...] = ((256, 256, 3, 3),)
    seed: int = 0
    balanced: tuple[int, float] | None = (32, 0.25)

    def __post_init__(self) -> None:
        known = (*BLOCK_METHODS, *MASK_METHODS)
        for method in self.methods:
            if method not in known:
                raise ValueError(f"expected methods of {', '.join(known)}; got {method!r}")
        for block in self.blocks:
            if block < 1:
                raise ValueError(f"expected blocks of at least 1, got {block}")
        for density in self.densities:
            if not 0 < density <= 1:
                raise ValueError(f"expected densities in (0, 1], got {density:g}")

    def cells(self, name: str, sha: str, shape: Sequence[int]) -> Iterator[QualityCell]:
        """Yield the cells of one layer's scores."""
        first = QualityCell(name, sha, tuple(shape), self.seed, "", 1, 1.0)
        for block in self.blocks:
            for density in self.densities:
                for method in self.methods:
                    yield replace(first, method=method, block=block, density=density)
        if self.balanced is None or self.balanced[0] not in self.blocks:
            return
        block, density = self.balanced
        for balance in ("filters", "both"):
            for method in self.methods:
                if method in BALANCED_METHODS:
                    yield replace(
                        first, method=method, block=block, density=density, balance=balance
                    )


PRESETS = {
    "small": QualityPlan(
        ("clustered", "digits_trained"),
        ("aligned", "shuffled", "sorted", "hrbp2", "hrbp", "hrbp2_pp", "hrbp_pp", "dsb_kernel",
         "unstructured", "channel"),
        (32,),
        (0.5, 0.25),
        shapes=((128, 128, 3, 3),),
    ),
    "full": QualityPlan(
        (*SYNTHETIC, *REAL),
        (*BLOCK_METHODS, *MASK_METHODS),
        (16, 32, 64),
        (0.5, 0.25, 0.125, 0.0625),
    ),
}  # fmt: skip
PRESET_NAMES = (*PRESETS, "exhaustive")


def shape_of(text: str) -> FilterShape:
    """Return (K, C, R, S) of a text such as 512x512x3x3; a ValueError for another."""
    parts = text.lower().split("x")
    if len(parts) != 4 or not all(p.isdigit() and int(p) for p in parts):
        raise ValueError(f"expected a shape such as 512x512x3x3, got {text!r}")
    k, c, r, s = (int(p) for p in parts)
    return k, c, r, s


def make_plan(preset: str, **changes: Any) -> QualityPlan:
    """Return a preset with what is not None changed.

    Raises:
        ValueError: an unknown preset, method, block or density.
    """
    if preset not in PRESETS:
        raise ValueError(f"expected a preset of {', '.join(PRESET_NAMES)}; got {preset!r}")
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(PRESETS[preset], **given)
