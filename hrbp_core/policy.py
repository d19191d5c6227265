"""Which way a sparse layer is run: by the sparse kernels, or densely where that is faster.

=========  ===========================================================================
"sparse"   the sparse kernels, always
"dense"    ``values`` are unpacked, and torch's own dense convolution runs, always
"auto"     the sparse kernels, until ``hrbp_core.calibrate`` found the dense way faster
=========  ===========================================================================

The function, the parameters and their gradients are the same. Nothing is decided in a forward:
it reads one Python bool, so that a trace, an export or a CUDA graph holds what was chosen before,
and ``torch.compile`` compiles again when that changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from hrbp_core.densely import Unpacking, unpacking, unpacking_of_none
from hrbp_core.pattern import BlockPattern
from hrbp_core.shapes import Pair

POLICIES = ("sparse", "dense", "auto")
# What a checkpoint holds of a choice: (one was made, it is dense). Not one number of 0, 1, 2:
# an average of buffers (AveragedModel, use_buffers) is cut to an int, and 1.9999 ends as 1.
CODES = {"undecided": (False, False), "sparse": (True, False), "dense": (True, True)}


def checked_policy(policy: str) -> str:
    """Return the policy.

    Raises:
        ValueError: none of ``POLICIES``.
    """
    if policy not in POLICIES:
        raise ValueError(f"expected policy as one of {', '.join(POLICIES)}, got {policy!r}")
    return policy


def choice_of(chosen: Tensor) -> str:
    """Return the choice that the buffer of a checkpoint holds.

    Raises:
        TypeError, ValueError: anything but one of ``CODES``.
    """
    if chosen.dtype != torch.bool or tuple(chosen.shape) != (2,):
        got = f"{str(chosen.dtype).removeprefix('torch.')} {list(chosen.shape)}"
        raise TypeError(f"expected chosen as bool [2], got {got}")
    code = chosen.tolist()
    for choice, known in CODES.items():
        if list(known) == code:
            return choice
    raise ValueError(f"expected chosen as one of {[list(c) for c in CODES.values()]}, got {code}")


class TwoWays(nn.Module):
    """What a layer needs to run in one of two ways; it has a ``pattern``, ``entries``, ``block``.

    Attributes:
        chosen: bool buffer [2], saved: the choice; see ``CODES``.
    """

    chosen: Tensor
    entries: Tensor
    block: Pair
    _policy = "sparse"
    _choice = "undecided"
    _densely = False
    # No buffer: an AveragedModel pairs the buffers of two modules by their order, and a
    # DistributedDataParallel would send these to all in every step.
    _unpacking: Unpacking | None = None

    @property
    def pattern(self) -> BlockPattern:
        """The kept blocks; the layer's own."""
        raise NotImplementedError

    @property
    def policy(self) -> str:
        """ "sparse", "dense" or "auto"; may be set."""
        return self._policy

    @policy.setter
    def policy(self, policy: str) -> None:
        self._policy = checked_policy(policy)
        self._settle()

    @property
    def choice(self) -> str:
        """ "undecided", "sparse" or "dense": what policy "auto" runs (undecided ones sparsely)."""
        return self._choice

    def choose(self, choice: str) -> None:
        """Take a choice, as ``hrbp_core.calibrate`` does; other policies keep it and do not act.

        Raises:
            ValueError: none of "undecided", "sparse", "dense".
        """
        if choice not in CODES:
            raise ValueError(f"expected choice as one of {', '.join(CODES)}, got {choice!r}")
        self._choice = choice
        with torch.no_grad():
            self.chosen.copy_(torch.tensor(CODES[choice], device=self.chosen.device))
        self._settle()

    def _keep_choice(self, device: torch.device) -> None:
        """Make the buffer that holds the choice."""
        with torch.inference_mode(False):  # written to later, in any mode
            self.register_buffer("chosen", torch.tensor(CODES[self._choice], device=device))

    def _settle(self, pattern: BlockPattern | None = None, *, in_place: bool = False) -> None:
        """Find out which way forward goes, and have ready what it needs."""
        self._densely = self._policy == "dense" or (
            self._policy == "auto" and self._choice == "dense"
        )
        if not self._densely:
            self._unpacking = None
        elif pattern is None and self.entries.is_meta:  # until a checkpoint comes
            self._unpacking = unpacking_of_none(len(self.entries), self.block)
        else:
            made = unpacking(self.pattern if pattern is None else pattern)
            here = self._unpacking if in_place else None
            self._unpacking = made if here is None else here.rewritten(made)

    def _unpacking_on(self, device: torch.device) -> Unpacking:
        """Return where the values go; it follows a layer whose tensors were moved one by one."""
        if self._unpacking is None:
            raise RuntimeError("expected a layer that was told to run densely, got a sparse one")
        if self._unpacking.places.device != device:
            self._unpacking = self._unpacking.to(device)
        return self._unpacking

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Move what is no buffer with the buffers."""
        super()._apply(fn, recurse)
        if self._unpacking is not None:
            self._unpacking = self._unpacking._replace(places=fn(self._unpacking.places))
        return self

    def _told_policy(self) -> str:
        """Return what ``extra_repr`` adds."""
        return "" if self._policy == "sparse" else f", policy={self._policy}, choice={self._choice}"
