"""Padding as ``torch.nn.Conv2d`` takes it, as what the kernels do and what goes before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from hrbp_core.shapes import Pair, pair

MODES = ("zeros", "reflect", "replicate", "circular")
WORDS = ("valid", "same")


class Padding(NamedTuple):
    """What a padding means.

    Attributes:
        inside: zeros on both sides of (rows, columns), which the kernels see to.
        before: (left, right, top, bottom) that ``functional.pad`` adds first, or None.
        mode: of ``before``, as ``functional.pad`` spells it.
    """

    inside: Pair
    before: tuple[int, int, int, int] | None
    mode: str

    def apply(self, x: Tensor) -> Tensor:
        """Return x [N, C, H, W] with what goes before."""
        return x if self.before is None else functional.pad(x, self.before, mode=self.mode)


def split_padding(
    padding: int | Sequence[int] | str, mode: str, stride: Pair, dilation: Pair, kernel_size: Pair
) -> Padding:
    """Return what a convolution's padding means.

    Equal zeros on both sides are the kernels' own. "same" with an odd sum puts one more at the
    end, as torch does, and other modes copy pixels: both are made before, which costs a copy.

    Raises:
        TypeError, ValueError: what ``torch.nn.Conv2d`` refuses too.
    """
    if mode not in MODES:
        raise ValueError(f"expected padding_mode as one of {', '.join(MODES)}, got {mode!r}")
    if not isinstance(padding, str):
        rows, columns = pair(padding, "padding", least=0)
        sides = (columns, columns, rows, rows)
    elif padding not in WORDS:
        raise ValueError(f"expected padding as ints, 'valid' or 'same', got {padding!r}")
    elif padding == "same":
        if stride != (1, 1):
            raise ValueError(f"expected stride 1 with padding 'same', got {stride}")
        total = [d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True)]
        first = [t // 2 for t in total]
        sides = (first[1], total[1] - first[1], first[0], total[0] - first[0])
    else:
        sides = (0, 0, 0, 0)
    if not any(sides) or (mode == "zeros" and sides[::2] == sides[1::2]):
        return Padding((sides[2], sides[0]), None, mode)
    return Padding((0, 0), sides, "constant" if mode == "zeros" else mode)
