"""Scores + density + block -> what to keep, by one of several methods.

Dense blocks in all three passes (a ``BlockPattern`` comes back):

============  ============================================================================
``aligned``   blocks where they lie: no permutation
``shuffled``  groups drawn at random: the control for every claim about grouping
``sorted``    filters and channels in descending order of their norms
``hrbp``      our reading of the paper: each filter group chooses its own channels
``hrbp2``     ours: one partition of filters and one of channels, found together
``hrbp_pp``   hrbp with the best common taps in every block, for as many entries
``hrbp2_pp``  hrbp2 likewise
``grouped``   a plain grouped convolution of equal FLOPs
``dsb_kernel`` ``dsb`` on whole kernels: filters by linkage, each group its own channels
============  ============================================================================

Rivals without such blocks (a ``WeightMask`` comes back, for the quality and accuracy axes):
``elementwise``, ``structure_lth``, ``dsb``, ``ovw``, ``two_four``, ``unstructured``, ``channel``.

A method is a function of a :class:`~hrbp_core.regrouping.problem.Problem` in its own module.
What all share: scores become integers whose sums are exact, and what is kept, given the groups,
is the best there is under budget, coverage and balance
(:mod:`~hrbp_core.regrouping.selection`). So the answer is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, overload

from torch import Tensor

from hrbp_core.mask import WeightMask, retained
from hrbp_core.pattern import BlockPattern
from hrbp_core.regrouping.aligned import aligned
from hrbp_core.regrouping.answer import pattern_of
from hrbp_core.regrouping.by_norm import by_norm
from hrbp_core.regrouping.grouped import grouped
from hrbp_core.regrouping.hrbp import hrbp
from hrbp_core.regrouping.hrbp2 import hrbp2
from hrbp_core.regrouping.hrbp2_pp import hrbp2_pp
from hrbp_core.regrouping.hrbp_pp import hrbp_pp
from hrbp_core.regrouping.problem import BALANCES, Grouping, OneSided, Problem
from hrbp_core.regrouping.request import pose
from hrbp_core.regrouping.rivals import BALANCED_RIVALS, RIVALS
from hrbp_core.regrouping.rivals.dsb import dsb_kernel
from hrbp_core.regrouping.shuffled import shuffled

_BLOCKS: dict[str, Callable[[Problem], Grouping | OneSided]] = {
    "aligned": aligned,
    "shuffled": shuffled,
    "sorted": by_norm,
    "hrbp2": hrbp2,
    "hrbp": hrbp,
    "hrbp2_pp": hrbp2_pp,
    "hrbp_pp": hrbp_pp,
    "grouped": grouped,
    "dsb_kernel": dsb_kernel,
}
PLUS_PLUS = ("hrbp_pp", "hrbp2_pp")
BLOCK_METHODS = tuple(_BLOCKS)
MASK_METHODS = tuple(RIVALS)
METHODS = (*BLOCK_METHODS, *MASK_METHODS)
MaskMethod = Literal[
    "elementwise", "structure_lth", "dsb", "ovw", "two_four", "unstructured", "channel"
]
BlockMethod = Literal[
    "aligned", "shuffled", "sorted", "hrbp2", "hrbp", "hrbp2_pp", "hrbp_pp", "grouped", "dsb_kernel"
]

__all__ = [
    "BALANCES",
    "BLOCK_METHODS",
    "MASK_METHODS",
    "METHODS",
    "block_pattern",
    "regroup",
    "retained",
]


@overload
def regroup(
    scores: Tensor,
    density: float,
    *,
    method: BlockMethod = ...,
    block: int | Sequence[int] = ...,
    seed: int = ...,
    coverage: bool = ...,
    balance: str = ...,
    taps: int | str | None = ...,
) -> BlockPattern: ...


@overload
def regroup(
    scores: Tensor,
    density: float,
    *,
    method: MaskMethod,
    block: int | Sequence[int] = ...,
    seed: int = ...,
    coverage: bool = ...,
    balance: str = ...,
    taps: int | str | None = ...,
) -> WeightMask: ...


@overload
def regroup(
    scores: Tensor,
    density: float,
    *,
    method: str,
    block: int | Sequence[int] = ...,
    seed: int = ...,
    coverage: bool = ...,
    balance: str = ...,
    taps: int | str | None = ...,
) -> BlockPattern | WeightMask: ...


def regroup(
    scores: Tensor,
    density: float,
    *,
    method: str = "hrbp2",
    block: int | Sequence[int] = (32, 32),
    seed: int = 0,
    coverage: bool = True,
    balance: str = "none",
    taps: int | str | None = None,
) -> BlockPattern | WeightMask:
    """Return what keeps most score at a budget of ``round(density * Gk * Gc)`` blocks.

    That is ``round(density * Gk * Gc) * R * S`` entries of block_k x block_c weights for every
    method (``structure_lth`` misses it; its ``density`` says what it reached). Given the groups,
    the choice is optimal for the scores as integers (48 bits in all). Groups that lie where they
    were keep their order; others are numbered by descending block count (those of equal counts
    are then neighbours, and the CPU path reads their weights without a copy), then smallest
    index, a padded group last. Members ascend. Of groupings with equal scores the plainest is
    taken, aligned first, so constant scores change no order. Equal arguments give equal
    answers on every machine.

    Args:
        scores: [K, C, R, S], finite and >= 0, any real dtype, any device; higher is better.
            A mask of 0 and 1 will do: the paper's own input.
        density: share of the Gk * Gc blocks to keep, in (0, 1].
        method: one of ``METHODS``.
        block: (block_k, block_c), or one int for both. Where K or C does not divide, one
            group, then the last, is padded with -1.
        seed: >= 0, of the random draws (of shuffled, and of the starts of the searches).
        coverage: every filter group and channel group keeps a block (++ methods: an entry; masks:
            every filter, or group of them, and every channel a weight). ``grouped``,
            ``two_four`` and ``structure_lth`` follow from their own rule, and ``channel`` drops
            whole channels: it means nothing for them.
        balance: "none"; "filters": block counts of the filter groups differ by one at most;
            "both": those of the channel groups too. Masks take "none", those of filter groups
            (elementwise, dsb, ovw) "filters" too.
        taps: of each block of a ++ method: a count, or "auto" (also None), as many as are best.

    Returns:
        A pattern or a mask on the device of ``scores``. One-sided patterns are not
        ``partitioned`` unless no choice of their own gains.

    Raises:
        TypeError: scores that are not a tensor of real numbers; a seed that is not an int.
        ValueError: any other argument out of its range; the message names the range.
    """
    if method not in METHODS:
        raise ValueError(f"expected method as one of {', '.join(METHODS)}, got {method!r}")
    if taps is not None and method not in PLUS_PLUS:
        raise ValueError(
            f"expected taps with {' or '.join(PLUS_PLUS)} alone, got {taps!r} with {method}"
        )
    _check_balance(method, balance)
    problem = pose(
        scores, density, block, seed=seed, coverage=coverage, balance=balance, taps=taps,
        plus_plus=method in PLUS_PLUS or method in RIVALS,
    )  # fmt: skip
    if method in RIVALS:
        return RIVALS[method](problem, scores)
    return pattern_of(scores, problem, _BLOCKS[method](problem))


def block_pattern(
    scores: Tensor, density: float, *, method: str, **options: object
) -> BlockPattern:
    """Return ``regroup``'s pattern, for callers whose method is data.

    Raises:
        ValueError: a method that leaves no blocks in dgrad; anything ``regroup`` refuses.
    """
    if method in MASK_METHODS:
        raise ValueError(
            f"expected a method whose blocks survive all passes ({', '.join(BLOCK_METHODS)}), "
            f"got {method!r}"
        )
    return regroup(scores, density, method=method, **options)  # type: ignore[call-overload, no-any-return]


def _check_balance(method: str, balance: str) -> None:
    if method in RIVALS and balance in BALANCES:
        able = ("none", "filters") if method in BALANCED_RIVALS else ("none",)
        if balance not in able:
            raise ValueError(
                f"expected balance as one of {', '.join(able)} with {method}, got {balance!r}"
            )
