"""A convolution pass as a product with a sparse matrix: unfold, product, fold.

fprop: weight [K, R*S*C] @ columns [R*S*C, N*P*Q]. dgrad: its transpose, stored apart, @ dy
[K, N*P*Q], then fold. wgrad: dy @ columns^T, sampled where the weight is stored.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.problem import Prepared, Problem, Unsupported
from hrbp_core.shapes import Pass

Product = Callable[[Tensor], Tensor]


@contextmanager
def quiet() -> Iterator[None]:
    """Hide torch's notices that sparse layouts are in beta."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Ss]parse.*")
        yield


@dataclass(frozen=True)
class Unfolding:
    """The dense side of the products: columns are tap-major, pixels run over the batch."""

    problem: Problem

    def columns(self) -> Tensor:
        """Return x as columns [R*S*C, N*P*Q]."""
        shape, (stride, padding, dilation) = self.problem.case.shape, self.problem.geometry
        taps = (shape.R, shape.S)
        found = functional.unfold(self.problem.x, taps, dilation, padding, stride)
        found = found.view(shape.N, shape.C, shape.R * shape.S, shape.P * shape.Q)
        return found.permute(2, 1, 0, 3).reshape(shape.R * shape.S * shape.C, -1)

    def pixels(self) -> Tensor:
        """Return dy as [K, N*P*Q], row-major: torch's BSR is a fifth slower on a transposed one."""
        shape = self.problem.case.shape
        return self.problem.dy.permute(1, 0, 2, 3).reshape(shape.K, -1).contiguous()

    def image(self, product: Tensor) -> Tensor:
        """Return y [N, K, P, Q] from a product [K, N*P*Q]."""
        shape = self.problem.case.shape
        return product.view(shape.K, shape.N, shape.P, shape.Q).permute(1, 0, 2, 3)

    def fold(self, product: Tensor) -> Tensor:
        """Return dx [N, C, H, W] from columns' gradients [R*S*C, N*P*Q]."""
        shape, (stride, padding, dilation) = self.problem.case.shape, self.problem.geometry
        found = product.view(shape.R * shape.S, shape.C, shape.N, shape.P * shape.Q)
        found = found.permute(2, 1, 0, 3).reshape(shape.N, shape.C * shape.R * shape.S, -1)
        taps = (shape.R, shape.S)
        return functional.fold(found, (shape.H, shape.W), taps, dilation, padding, stride)

    def matrix(self) -> Tensor:
        """Return the masked weight as [K, R*S*C]."""
        masked = torch.where(self.problem.pattern.mask(), self.problem.weight, 0)
        return self.flat(masked)

    def flat(self, weight: Tensor) -> Tensor:
        """Return weight-like [K, C, R, S] as [K, R*S*C], a copy."""
        return weight.permute(0, 2, 3, 1).reshape(len(weight), -1).clone()

    def unflat(self, matrix: Tensor) -> Tensor:
        """Return [K, R*S*C] as [K, C, R, S]."""
        k, c, r, s = self.problem.case.shape.filter_shape
        return matrix.view(k, r, s, c).permute(0, 3, 1, 2)


def prepare_product(
    problem: Problem, unfolding: Unfolding, product: Product, detail: dict[str, Any], *, alone: bool
) -> Prepared:
    """Return fprop or dgrad by a product with a sparse matrix.

    Args:
        product: the matrix times a dense one. alone: leave unfold and fold out of the time.
    """
    forward = problem.case.conv_pass is Pass.FPROP
    make = unfolding.columns if forward else unfolding.pixels
    finish = unfolding.image if forward else unfolding.fold
    if not alone:
        return Prepared(lambda: finish(product(make())), masked=True, detail=detail)
    dense = make()
    return Prepared(
        lambda: product(dense),
        masked=True,
        to_oracle=finish,
        detail=detail,
        follow=lambda: _copy(dense, make()),
    )


def _copy(mine: Tensor, theirs: Tensor) -> None:
    mine.copy_(theirs)


def tried(call: Callable[[], Tensor], what: str) -> None:
    """Raise Unsupported, in the library's own words, when a call refuses its dtype or layout."""
    try:
        call()
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except (RuntimeError, NotImplementedError) as error:
        text = " ".join(str(error).split())
        if "allocate memory" in text:
            raise
        raise Unsupported(f"no kernel: {what}: {text[:160]}") from error
