"""What a method needs of a layer, and how ``BlockSparseConv2d`` gives it.

A unit is what drops and grows as a whole; units stand in a grid [filter groups, channel groups,
taps]. A caller may bring sites of its own: of single weights under a mask, say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from hrbp_core.dynamic.moving import move_rows, source_rows
from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.padding import split_padding
from hrbp_core.pattern import BlockPattern

BLOCK, ENTRY = "blocks", "entries"


class Site(ABC):
    """A layer whose units move.

    Attributes:
        module: the layer whose calls show x and dy.
        parameter: what the optimizer trains, on the layer's device.
        unit: what a unit is called.
        coverage: whether a group with a unit keeps one.
    """

    module: nn.Module
    parameter: nn.Parameter
    unit: str
    coverage: bool

    @property
    @abstractmethod
    def kept(self) -> Tensor:
        """bool [Gk, Gc, T]."""

    @property
    def allowed(self) -> Tensor | None:
        """bool [Gk, Gc, T]: where units may be; None: everywhere."""
        return None

    @abstractmethod
    def weights(self) -> Tensor:
        """Return int64 [Gk, Gc, T]: the weights of each unit."""

    @abstractmethod
    def magnitudes(self) -> Tensor:
        """Return float [Gk, Gc, T]: the sum of |weight| of each unit, 0 where nothing is kept."""

    @abstractmethod
    def growth(self, gradient: Tensor) -> Tensor:
        """Return float [Gk, Gc, T]: the sum of |gradient| of each unit.

        Args:
            gradient: of the dense weight [K, C, R, S].
        """

    @abstractmethod
    def gradient(self, x: Tensor, dy: Tensor) -> Tensor:
        """Return the gradient [K, C, R, S] of the dense weight, as ``no_gradient`` is."""

    @abstractmethod
    def no_gradient(self) -> Tensor:
        """Return zeros [K, C, R, S], float32 or float64: what a process without a backward has."""

    @abstractmethod
    def apply(self, kept: Tensor, companions: Iterable[Tensor]) -> None:
        """Keep these units: weights that stay do so bit for bit, grown ones are 0.

        Args:
            companions: tensors of the parameter's shape that follow it, 0 where weights grew.
        """


class BlockSite(Site):
    """The blocks of a layer; its entries, where blocks may lack taps.

    Groups stay. Where filter groups have channel lists of their own (method ``hrbp``), entries
    move inside their lists alone: no list may take a channel that another one has.

    Args:
        layer: the layer; its unit is found from the pattern of now.
    """

    coverage = True

    def __init__(self, layer: BlockSparseConv2d) -> None:
        self.module: BlockSparseConv2d = layer
        self.unit = BLOCK if layer.pattern.all_taps else ENTRY

    @property
    def parameter(self) -> nn.Parameter:  # type: ignore[override]
        """``values``."""
        return self.module.values

    @property
    def kept(self) -> Tensor:
        """bool [filter groups, channel groups, 1 or taps]."""
        pattern = self.module.pattern
        if self.unit == BLOCK and not pattern.all_taps:
            raise RuntimeError(
                "expected blocks of all taps as at the start, got a pattern whose blocks lack some"
            )
        return self._on_grid(pattern)

    @property
    def allowed(self) -> Tensor | None:
        """None; a filter group's own lists where it chose its channels."""
        pattern = self.module.pattern
        if pattern.partitioned:
            return None
        kept = self._on_grid(pattern)
        return kept.any(2, keepdim=True).expand_as(kept)

    def _on_grid(self, pattern: BlockPattern) -> Tensor:
        groups = (len(pattern.filters), len(pattern.channels))
        taps = 1 if self.unit == BLOCK else pattern.shape[2] * pattern.shape[3]
        kept = torch.zeros(*groups, taps, dtype=torch.bool, device=pattern.device)
        group, channel, tap = pattern.entries.long().unbind(1)
        kept[group, channel, 0 if self.unit == BLOCK else tap] = True
        return kept

    def weights(self) -> Tensor:
        """Return int64: real weights, padding aside."""
        pattern = self.module.pattern
        rows, columns = ((t >= 0).sum(1) for t in (pattern.filters, pattern.channels))
        taps = pattern.shape[2] * pattern.shape[3]
        each, times = (taps, 1) if self.unit == ENTRY else (1, taps)
        return (rows[:, None] * columns * times)[:, :, None].expand(-1, -1, each).clone()

    def magnitudes(self) -> Tensor:
        """Return the sums of |values|; what lies in padding does not count."""
        pattern = self.module.pattern
        kept = self._on_grid(pattern)
        weight = pattern.unpack(self.parameter.detach())
        return torch.where(kept, self.growth(weight), 0)

    def growth(self, gradient: Tensor) -> Tensor:
        """Return the sums of |gradient| of each unit, in float32 at least.

        Gathered, never scattered: the same bits every time on a GPU too.
        """
        pattern = self.module.pattern
        k, c, r, s = pattern.shape
        sums = gradient.detach().to(wide(gradient.dtype)).abs().reshape(k, c, r * s)
        if self.unit == BLOCK:
            sums = sums.sum(2, keepdim=True)
        # padding of a group is -1: the row of zeros at the end
        sums = torch.cat((sums, sums.new_zeros(1, *sums.shape[1:])))
        sums = sums[pattern.filters.long()].sum(1)
        sums = torch.cat((sums, sums.new_zeros(len(sums), 1, sums.shape[2])), 1)
        return sums[:, pattern.channels.long()].sum(2)

    @torch.no_grad()
    def gradient(self, x: Tensor, dy: Tensor) -> Tensor:
        """Return the dense weight's gradient by one dense wgrad.

        In float32 where the layer runs in half precision: sums of absent blocks must not
        overflow where those of kept ones do not.
        """
        layer = self.module
        padding = split_padding(
            layer.padding, layer.padding_mode, layer.stride, layer.dilation, layer.kernel_size
        )
        dtype = wide(self.parameter.dtype)
        x, dy = padding.apply(x.to(dtype)), dy.to(dtype)
        geometry = layer.stride, padding.inside, layer.dilation
        return conv2d_weight(x, layer.shape, dy, *geometry)

    def no_gradient(self) -> Tensor:
        """Return zeros of the dense weight's shape."""
        values = self.parameter
        return torch.zeros(self.module.shape, dtype=wide(values.dtype), device=values.device)

    @torch.no_grad()
    def apply(self, kept: Tensor, companions: Iterable[Tensor]) -> None:
        """Rearrange ``values`` and its companions in place, and the layer's tables."""
        old = self.module.pattern
        grid = kept.to(old.device)
        if self.unit == BLOCK:
            grid = grid[:, :, 0]
        new = BlockPattern.from_blocks(old.shape, old.block, old.filters, old.channels, grid)
        source = source_rows(old, new)
        for tensor in (self.parameter, *companions):
            move_rows(tensor, source)
        self.module.adopt(new, in_place=True)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that sums of ``dtype`` are taken in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def block_sites(model: nn.Module) -> dict[str, Site]:
    """Return the sites of the ``BlockSparseConv2d`` layers of a model, by name."""
    return {
        name: BlockSite(module)
        for name, module in model.named_modules()
        if isinstance(module, BlockSparseConv2d)
    }
