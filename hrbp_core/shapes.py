"""Shapes and costs of a convolution and its three passes. Floor 0: no torch.

Letters are cuDNN's: activation N x C x H x W, filter K x C x R x S, output N x K x P x Q.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

FilterShape = tuple[int, int, int, int]
Pair = tuple[int, int]


class Pass(StrEnum):
    """One of the three passes of a convolution in training."""

    FPROP = "fprop"
    DGRAD = "dgrad"
    WGRAD = "wgrad"


def pair(value: int | Sequence[int], name: str, *, least: int) -> Pair:
    """Return ``value`` as two ints, each at least ``least``; ``name`` is used in errors.

    Raises:
        TypeError: not an int or a sequence of ints.
        ValueError: not one or two numbers, or one below ``least``.
    """
    if not isinstance(value, int | Sequence) or isinstance(value, str):
        raise TypeError(f"expected {name} as an int or two ints, got {value!r}")
    items = (value, value) if isinstance(value, int) else tuple(value)
    if any(isinstance(v, bool) or not isinstance(v, int) for v in items):
        raise TypeError(f"expected {name} as an int or two ints, got {value!r}")
    if len(items) == 1:
        items = items * 2
    if len(items) != 2 or min(items) < least:
        raise ValueError(f"expected {name} as one or two ints >= {least}, got {value!r}")
    return items[0], items[1]


def output_extent(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Return the output extent along one axis, by torch's formula."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@dataclass(frozen=True)
class ConvShape:
    """One convolution layer with its batch: extents, stride, padding, dilation.

    >>> shape = ConvShape(N=8, C=256, H=14, W=14, K=256, R=3, S=3, padding=(1, 1))
    >>> shape.P, shape.Q, shape.flops()
    (14, 14, 1849688064)

    Raises:
        ValueError: an extent below 1, or an output without pixels.
    """

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def __post_init__(self) -> None:
        for name in "NCHWKRS":
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"expected {name} as an int >= 1, got {value!r}")
        for name, least in (("stride", 1), ("padding", 0), ("dilation", 1)):
            object.__setattr__(self, name, pair(getattr(self, name), name, least=least))
        if self.P < 1 or self.Q < 1:
            raise ValueError(
                f"expected an output with pixels, got {self.P}x{self.Q} from input "
                f"{self.H}x{self.W}, kernel {self.R}x{self.S}, stride {self.stride}, "
                f"padding {self.padding}, dilation {self.dilation}"
            )

    @property
    def P(self) -> int:
        """Output height."""
        return output_extent(self.H, self.R, self.stride[0], self.padding[0], self.dilation[0])

    @property
    def Q(self) -> int:
        """Output width."""
        return output_extent(self.W, self.S, self.stride[1], self.padding[1], self.dilation[1])

    @property
    def filter_shape(self) -> FilterShape:
        """(K, C, R, S)."""
        return self.K, self.C, self.R, self.S

    def gemm_extents(self, conv_pass: Pass | str) -> tuple[int, int, int]:
        """Return (M, N, K) of the pass as a dense implicit GEMM."""
        pixels, taps = self.N * self.P * self.Q, self.R * self.S
        return {
            Pass.FPROP: (self.K, pixels, self.C * taps),
            Pass.DGRAD: (self.C * taps, pixels, self.K),
            Pass.WGRAD: (self.K, self.C * taps, pixels),
        }[Pass(conv_pass)]

    def flops(self, stored_weights: int | None = None) -> int:
        """Return direct floating-point operations of one pass (the same for all three).

        Args:
            stored_weights: weights kept; all K*C*R*S when left out.
        """
        weights = math.prod(self.filter_shape) if stored_weights is None else stored_weights
        return 2 * weights * self.N * self.P * self.Q

    def least_bytes(
        self, conv_pass: Pass | str, itemsize: int, stored_weights: int | None = None
    ) -> int:
        """Return the least bytes one pass moves: each tensor it reads or writes, once."""
        Pass(conv_pass)  # every pass touches x or dx, y or dy, and the weights or their gradient
        weights = math.prod(self.filter_shape) if stored_weights is None else stored_weights
        x = self.N * self.C * self.H * self.W
        y = self.N * self.K * self.P * self.Q
        return itemsize * (x + y + weights)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ConvShape:
        """Return the shape that :meth:`to_dict` wrote."""
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**given)


def block_grid(shape: ConvShape | Sequence[int], block: int | Sequence[int]) -> Pair:
    """Return (filter groups, channel groups) of a layer cut into blocks.

    Args:
        shape: a ConvShape, or (K, C, ...) extents.
        block: (block_k, block_c), or one int for both.

    Raises:
        ValueError: a block larger than the layer.
    """
    k, c = (shape.K, shape.C) if isinstance(shape, ConvShape) else tuple(shape)[:2]
    block_k, block_c = pair(block, "block", least=1)
    if block_k > k or block_c > c:
        raise ValueError(
            f"expected a block no larger than the layer, got block ({block_k}, {block_c}) "
            f"for {k} filters and {c} channels"
        )
    return -(-k // block_k), -(-c // block_c)


def least_density(
    shape: ConvShape | Sequence[int],
    block: int | Sequence[int],
    *,
    taps: int | str | None = None,
) -> float:
    """Return the least density at which every filter and channel group keeps an entry.

    max(Gk, Gc) / (Gk * Gc) for Gk filter groups and Gc channel groups of all-tap blocks. With
    ``taps`` the same budget makes more blocks, so that it reaches further.

    >>> least_density((256, 256, 3, 3), (32, 32))
    0.125
    >>> least_density((256, 256, 3, 3), (32, 32), taps=3)
    0.046875

    Args:
        shape: a ConvShape, or (K, C, R, S); R and S are read with ``taps`` alone.
        block: (block_k, block_c), or one int for both.
        taps: of each block, or "auto" (one is enough then), for the ++ methods.
    """
    gk, gc = block_grid(shape, block)
    blocks = max(gk, gc)
    if taps is not None:
        extents = shape.filter_shape if isinstance(shape, ConvShape) else tuple(shape)
        all_taps = extents[2] * extents[3]
        count = check_taps(taps, all_taps) or 1
        blocks = (blocks - 1) * count // all_taps + 1
    return blocks / (gk * gc)


def check_taps(taps: int | str | None, most: int) -> int | None:
    """Return how many taps each block has; None when that is free ("auto" or None).

    Raises:
        ValueError: another word, or a count outside [1, most].
        TypeError: neither an int nor a word.
    """
    if taps is None or taps == "auto":
        return None
    if isinstance(taps, bool) or not isinstance(taps, int | str):
        raise TypeError(f"expected taps as an int or 'auto', got {type(taps).__name__}")
    if isinstance(taps, str) or not 1 <= taps <= most:
        raise ValueError(f"expected taps as 'auto' or in [1, {most}], got {taps!r}")
    return taps
