"""``BlockSparseConv2d``: a convolution that stores and trains its kept blocks alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hrbp_core import densely
from hrbp_core.launch_tables import Geometry
from hrbp_core.ops import IndexTensors, index_tensors, run
from hrbp_core.padding import Padding, split_padding
from hrbp_core.pattern import BlockPattern
from hrbp_core.policy import TwoWays, checked_policy
from hrbp_core.regrouping import block_pattern
from hrbp_core.shapes import FilterShape, Pair, pair
from hrbp_core.stored import TABLES, read_stored

Ints = int | Sequence[int]
_DERIVED = (
    "tables",
    "channel_order",
    "channel_place",
    "filter_place",
    "filter_order",
    "copies",
)


class BlockSparseConv2d(TwoWays):
    """Convolution over kept blocks; a drop-in for ``torch.nn.Conv2d`` with groups=1.

    >>> layer = BlockSparseConv2d(128, 128, 3, padding=1, density=0.25, block=32)
    >>> layer(torch.randn(2, 128, 8, 8)).shape
    torch.Size([2, 128, 8, 8])

    Attributes:
        values: parameter [entries * block_k, block_c]; see ``hrbp_core.pattern``.
        bias: parameter [out_channels] or None.
        pattern: the BlockPattern, rebuilt from the module's index buffers.

    The pattern's tables are buffers: saved, moved and broadcast with the module. Loading a
    checkpoint adopts its pattern when (K, C, R, S) and block agree, and raises otherwise.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, bias, padding_mode,
            device, dtype: as in ``torch.nn.Conv2d``. "same" with an odd sum and other modes than
            zeros pad in a copy before.
        pattern: the kept blocks, or None to place ``density`` at random.
        draw: False leaves the parameters unset, for a caller that sets them.
        policy: "sparse", "dense" or "auto": which way forward goes; see ``hrbp_core.policy``.
        density, block, seed: for a random pattern (scores uniform, method ``aligned``: blocks
            where they lie, nothing to gather).

    Raises:
        TypeError, ValueError: neither or both of pattern and density; a pattern of other
            extents; an unknown policy; anything ``regroup`` refuses.
    """

    values: nn.Parameter
    layout: Tensor
    filters: Tensor
    channels: Tensor
    entries: Tensor
    tables: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Ints | str = 0,
        dilation: Ints = 1,
        bias: bool = True,
        *,
        padding_mode: str = "zeros",
        pattern: BlockPattern | None = None,
        density: float | None = None,
        block: Ints = (32, 32),
        seed: int = 0,
        draw: bool = True,
        policy: str = "sparse",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._policy = checked_policy(policy)
        shape = (out_channels, in_channels, *pair(kernel_size, "kernel_size", least=1))
        if (pattern is None) == (density is None):
            raise ValueError("expected either a pattern or a density")
        if pattern is None:
            scores = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
            pattern = block_pattern(scores, density, method="aligned", block=block)  # type: ignore[arg-type]
        if pattern.shape != shape:
            raise ValueError(f"expected a pattern of shape {shape}, got {pattern.shape}")
        self.shape: FilterShape = shape
        self.block: Pair = pattern.block
        self.stride = pair(stride, "stride", least=1)
        self.dilation = pair(dilation, "dilation", least=1)
        self.padding = padding if isinstance(padding, str) else pair(padding, "padding", least=0)
        self.padding_mode = padding_mode
        _ = self._padding  # refuse now what forward could not do
        self.register_buffer("layout", torch.tensor([*shape, *self.block]))
        self.adopt(pattern)
        empty = torch.empty(pattern.values_shape, device=device, dtype=dtype)
        self.values = nn.Parameter(empty)
        self.bias = nn.Parameter(empty.new_empty(out_channels)) if bias else None
        if device is not None:
            self.to(device)
        if draw:
            self.reset_parameters()

    @property
    def in_channels(self) -> int:
        """C."""
        return self.shape[1]

    @property
    def out_channels(self) -> int:
        """K."""
        return self.shape[0]

    @property
    def kernel_size(self) -> Pair:
        """(R, S)."""
        return self.shape[2:]

    @property
    def pattern(self) -> BlockPattern:
        """The kept blocks, on the module's device."""
        return BlockPattern(self.shape, self.block, self.filters, self.channels, self.entries)

    @property
    def _padding(self) -> Padding:
        return split_padding(
            self.padding, self.padding_mode, self.stride, self.dilation, self.kernel_size
        )

    @property
    def _geometry(self) -> Geometry:
        return self.stride, self._padding.inside, self.dilation

    def adopt(self, pattern: BlockPattern, *, in_place: bool = False) -> None:
        """Take the pattern's tables as buffers; the caller sees to ``values``.

        Those worked out of them are not saved.

        Args:
            in_place: write into the tensors that are here wherever shapes agree, so that a CUDA
                graph which holds them runs the new pattern; the choice of a way stays.
        """
        self._tables_of = self._geometry
        index = index_tensors(pattern, self._geometry)
        for name in TABLES:
            self._take(name, getattr(pattern, name).clone(), saved=True, in_place=in_place)
        for name in _DERIVED:
            self._take(name, getattr(index, name), saved=False, in_place=in_place)
        self._rounds = index.rounds
        if not in_place:
            self._keep_choice(pattern.device)
        self._settle(pattern, in_place=in_place)

    def _take(self, name: str, table: Tensor | None, *, saved: bool, in_place: bool) -> None:
        """Make ``table`` a buffer, or write it into the one that is here."""
        here = getattr(self, name, None)
        if in_place and table is not None and here is not None and here.shape == table.shape:
            here.copy_(table)
        else:
            self.register_buffer(name, table, persistent=saved)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw as ``torch.nn.Conv2d`` does, with each filter's real fan-in."""
        pattern = self.pattern
        fan_in = pattern.mask().sum((1, 2, 3), dtype=torch.float32).clamp(min=1)
        bound = fan_in.rsqrt().to(self.values.dtype)
        weight = torch.empty(self.shape, dtype=self.values.dtype, device=self.values.device)
        weight.uniform_(-1, 1)
        self.values.copy_(pattern.pack(weight * bound.view(-1, 1, 1, 1)))
        if self.bias is not None:
            self.bias.uniform_(-1, 1).mul_(bound)

    def forward(self, x: Tensor) -> Tensor:
        """Return y [N, K, P, Q], channels_last, of x [N, C, H, W]."""
        padding = self._padding
        geometry = (self.stride, padding.inside, self.dilation)
        x = padding.apply(x)
        sizes = self.shape, self.block, geometry
        if self._densely:
            where = self._unpacking_on(self.values.device)
            return densely.run(x, self.values, self.bias, self.entries, where, *sizes)
        if self._tables_of != geometry:  # someone set another stride, say
            self.adopt(self.pattern)
        derived = [getattr(self, name) for name in _DERIVED]
        index = IndexTensors(self.entries, *derived, self._rounds)  # type: ignore[call-arg]
        return run(x, self.values, self.bias, index, *sizes)

    def extra_repr(self) -> str:
        """The arguments, and what is kept."""
        k, c, r, s = self.shape
        kept = self.entries.shape[0] * math.prod(self.block) / (k * c * r * s)
        mode = "" if self.padding_mode == "zeros" else f"padding_mode={self.padding_mode}, "
        return (
            f"{c}, {k}, kernel_size=({r}, {s}), stride={self.stride}, padding={self.padding}, "
            f"{mode}dilation={self.dilation}, bias={self.bias is not None}, block={self.block}, "
            f"stored={kept:.4g}{self._told_policy()}"
        )

    @classmethod
    @torch.no_grad()
    def from_dense(
        cls, conv: nn.Conv2d, pattern: BlockPattern, *, policy: str = "sparse"
    ) -> BlockSparseConv2d:
        """Return the layer with the weights of ``conv`` that the pattern keeps.

        Raises:
            ValueError: a grouped convolution, a pattern of other extents, an unknown policy.
        """
        if conv.groups != 1:
            raise ValueError(f"expected a convolution with groups=1, got groups={conv.groups}")
        weight = conv.weight
        layer = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.bias is not None,
            padding_mode=conv.padding_mode,
            pattern=pattern,
            draw=False,
            policy=policy,
            device=weight.device,
            dtype=weight.dtype,
        )
        layer.values.copy_(pattern.to(weight.device).pack(weight))
        layer.values.requires_grad_(weight.requires_grad)
        if layer.bias is not None and conv.bias is not None:
            layer.bias.copy_(conv.bias).requires_grad_(conv.bias.requires_grad)
        return layer.train(conv.training)

    @torch.no_grad()
    def to_dense(self) -> nn.Conv2d:
        """Return a ``torch.nn.Conv2d`` of the same function; zeros where nothing is kept."""
        conv = nn.utils.skip_init(  # the caller's random state stays
            nn.Conv2d,
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            bias=self.bias is not None,
            padding_mode=self.padding_mode,
            device=self.values.device,
            dtype=self.values.dtype,
        )
        values = self.values
        conv.weight.copy_(self.pattern.unpack(values)).requires_grad_(values.requires_grad)
        if conv.bias is not None and self.bias is not None:
            conv.bias.copy_(self.bias).requires_grad_(self.bias.requires_grad)
        return conv.train(self.training)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any],
        strict: bool, missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        assign = local_metadata.get("assign_to_params_buffers", False)
        device = None if assign else self.entries.device
        try:
            stored = read_stored(state_dict, prefix, self.shape, self.block, device)
        except (TypeError, ValueError) as error:
            error_msgs.append(f"{prefix.rstrip('.') or type(self).__name__}: {error}")
            return
        if stored.pattern is not None:
            self._make_room(stored.pattern)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if stored.choice is not None:
            self.choose(stored.choice)
        elif prefix + "chosen" in missing_keys:  # a checkpoint from before there was a choice
            missing_keys.remove(prefix + "chosen")

    def _make_room(self, pattern: BlockPattern) -> None:
        """Take a checkpoint's pattern, for the values that come."""
        if self.values.grad is not None and pattern != self.pattern:
            self.values.grad = None  # of entries that go
        self.adopt(pattern)
        if tuple(self.values.shape) != pattern.values_shape:
            self.values.data = self.values.new_empty(pattern.values_shape)
