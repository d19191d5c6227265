"""Division of pixel numbers by a run-time extent, as a product and a shift.

Hopper has no integer divider: one ``//`` is about twenty instructions, this is three. Exact for
0 <= n < 2**31 and 1 <= d < 2**31 (Granlund and Montgomery, PLDI 1994).
"""

from __future__ import annotations

import triton
import triton.language as tl


def magic(divisor: int) -> tuple[int, int]:
    """Return (multiplier, shift) for ``divide``; the multiplier's 32 bits as a signed int."""
    if not 1 <= divisor < 2**31:
        raise ValueError(f"expected a divisor in [1, 2**31), got {divisor}")
    shift = (divisor - 1).bit_length()
    multiplier = (2**32 * (2**shift - divisor)) // divisor + 1
    return multiplier - 2**32 if multiplier >= 2**31 else multiplier, shift


@triton.jit
def divide(n, multiplier, shift):
    """Return n // d for int32 n >= 0."""
    number = n.to(tl.uint32)
    high = tl.umulhi(number, tl.zeros_like(number) + multiplier.to(tl.uint32, bitcast=True))
    return ((high + number) >> shift.to(tl.uint32)).to(tl.int32)


@triton.jit
def split_pixel(pixel, extent_hw, extent_w, hw_mult, hw_shift, w_mult, w_shift):
    """Return (image, row, column) of a pixel's number."""
    image = divide(pixel, hw_mult, hw_shift)
    rest = pixel - image * extent_hw
    row = divide(rest, w_mult, w_shift)
    return image, row, rest - row * extent_w
