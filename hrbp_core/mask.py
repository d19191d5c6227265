"""Masks of methods that leave no dense blocks in dgrad, and what any choice of weights retains."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hrbp_core.pattern import BlockPattern
from hrbp_core.tables import INTEGERS


@dataclass(frozen=True, eq=False)
class WeightMask:
    """Which weights a rival method keeps: for quality and accuracy, not for our kernels.

    Attributes:
        method: its name in ``regroup``.
        kept: bool [K, C, R, S].
        survives_dgrad: whether its dense blocks are dense in dgrad too; None where the question
            means nothing (a mask without blocks).
        filters: int32 [G, most filters of a group], -1 in padding: its filter groups; None
            where it has none.

    Raises:
        TypeError, ValueError: ``kept`` that is not a mask of [K, C, R, S].
    """

    method: str
    kept: Tensor
    survives_dgrad: bool | None
    filters: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kept", as_mask(self.kept, "kept"))
        if self.kept.dim() != 4:
            raise ValueError(f"expected kept [K, C, R, S], got {list(self.kept.shape)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(K, C, R, S)."""
        return tuple(self.kept.shape)

    @property
    def density(self) -> float:
        """Weights kept / all weights: what the method really reached."""
        return int(self.kept.sum()) / self.kept.numel()

    @property
    def sparsity(self) -> float:
        """1 - density."""
        return 1.0 - self.density

    def mask(self) -> Tensor:
        """Return bool [K, C, R, S]: True where a weight is kept."""
        return self.kept

    def __repr__(self) -> str:
        return (
            f"WeightMask(method={self.method!r}, shape={self.shape}, density={self.density:.4g}, "
            f"survives_dgrad={self.survives_dgrad})"
        )


def as_mask(mask: Tensor, name: str = "mask") -> Tensor:
    """Return the mask as bool.

    Raises:
        TypeError: not a tensor of bools or real numbers.
        ValueError: values other than 0 and 1; the message counts them.
    """
    if not isinstance(mask, Tensor) or mask.is_complex():
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"expected {name} as a tensor of 0 and 1, got {got}")
    if mask.dtype == torch.bool:
        return mask
    wrong = (mask != 0) & (mask != 1)
    if bool(wrong.any()):
        first = tuple(int(place) for place in wrong.nonzero()[0])
        raise ValueError(
            f"expected {name} of 0 and 1, got {int(wrong.sum())} other values of {mask.numel()}, "
            f"the first at {first}: {mask[first].item():g}"
        )
    return mask.bool()


def retained(scores: Tensor, kept: BlockPattern | WeightMask | Tensor) -> float:
    """Return the score inside the kept weights / all score, in [0, 1]; 1 when all score is 0.

    Args:
        scores: [K, C, R, S], finite and >= 0.
        kept: what ``regroup`` returned, or a mask of 0 and 1 of the scores' shape.

    Raises:
        TypeError, ValueError: scores or a mask that are not as above.
    """
    if not isinstance(scores, Tensor) or scores.is_complex():
        got = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"expected scores as a tensor of real numbers, got {got}")
    mask = as_mask(kept) if isinstance(kept, Tensor) else kept.mask()
    if mask.shape != scores.shape:
        raise ValueError(f"expected scores {list(mask.shape)}, got {list(scores.shape)}")
    integral = scores.dtype == torch.bool or scores.dtype in INTEGERS
    if not integral and not bool(scores.isfinite().all()):
        raise ValueError("expected finite scores, got NaN or infinite ones")
    if not scores.dtype == torch.bool and bool((scores < 0).any()):
        raise ValueError(f"expected scores >= 0, got {scores.min().item():g}")
    exact = scores.detach().double()
    largest = exact.max()
    if not largest > 0:
        return 1.0
    exact = exact / largest  # a sum of large scores could be infinite
    return float(torch.where(mask.to(exact.device), exact, 0.0).sum() / exact.sum())
