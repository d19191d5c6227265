"""What each process knows before an update, what all know together, and the decision of one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hrbp_core.dynamic.choose import Choice, Rules, choose, drop_count, is_balanced
from hrbp_core.dynamic.sites import Site
from hrbp_core.regrouping.problem import Flags

UNSEEN = "no gradient was seen"
FROZEN = "its weights are frozen"
ADVICE = (
    "expected a backward through a sparse layer since the last step, got none: run steps for "
    "which dst.due is True by the model itself, neither compiled nor as a CUDA graph"
)


@dataclass(frozen=True)
class Mine:
    """What a rank tells the others.

    Attributes:
        step: how many it counted. stepped: whether its optimizer moved the weights.
        patterns: a hash of all that is kept.
        seen: layers with a gradient. left_out: layers that stay, and why.
    """

    step: int
    stepped: bool
    patterns: str
    seen: frozenset[str]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class Together:
    """What all ranks know: the layers to update, those left out and why."""

    active: tuple[str, ...]
    left_out: Mapping[str, str]
    stepped: bool


def patterns_hash(kept: Mapping[str, Flags]) -> str:
    """Return SHA-256 over what every layer keeps."""
    digest = hashlib.sha256()
    for name, units in kept.items():
        digest.update(f"{name} {units.shape} ".encode() + np.packbits(units).tobytes())
    return digest.hexdigest()


def together(everyone: Sequence[Mine], names: Sequence[str], *, gradients: bool) -> Together:
    """Return what the ranks know together; the same on all.

    Args:
        names: of all layers, in order.
        gradients: whether a layer needs one.

    Raises:
        RuntimeError: ranks that are not at one; no layer with a gradient.
    """
    for what in ("step", "patterns"):
        for rank, other in enumerate(everyone):
            expected, got = getattr(everyone[0], what), getattr(other, what)
            if got != expected:
                raise RuntimeError(f"expected {what} {expected} on every rank, got {got} on {rank}")
    left_out = {name: why for one in reversed(everyone) for name, why in one.left_out.items()}
    stepped = all(one.stepped for one in everyone)
    if gradients:
        seen = frozenset[str]().union(*(one.seen for one in everyone))
        could = [name for name in names if left_out.get(name) != FROZEN]
        if stepped and could and not seen.intersection(could) and not set(could) & set(left_out):
            raise RuntimeError(ADVICE)
        for name in could:
            if name not in seen:
                left_out.setdefault(name, UNSEEN)
    active = tuple(name for name in names if name not in left_out)
    return Together(active, {n: left_out[n] for n in names if n in left_out}, stepped)


def array(tensor: Tensor) -> np.ndarray:
    """Return the tensor as a numpy array of its own."""
    found: np.ndarray = tensor.detach().cpu().numpy()
    return found


def decide(site: Site, growth: Tensor, rules: Rules, fraction: float) -> Choice | str:
    """Return what the layer keeps from now on, or why it cannot be said.

    Args:
        growth: float [Gk, Gc, T] >= 0.
    """
    kept, scores, magnitudes = (array(t) for t in (site.kept, growth, site.magnitudes()))
    if scores.shape != kept.shape:
        raise ValueError(f"expected growth scores {kept.shape}, got {scores.shape}")
    magnitudes, scores = magnitudes.astype(np.float64), scores.astype(np.float64)
    for what, numbers in (("growth scores", scores), ("weights", magnitudes)):
        if not np.isfinite(numbers).all():
            return f"{what} are not finite"
    allowed = None if site.allowed is None else array(site.allowed)
    count = drop_count(kept, fraction, allowed)
    return choose(kept, magnitudes, scores, count, rules, allowed)


def rules_of(site: Site, balance: str, name: str) -> Rules:
    """Return what updates of a layer leave as it is.

    Raises:
        ValueError: a balance that the layer's pattern does not have.
    """
    kept = array(site.kept)
    filters, channels = is_balanced(kept, 0), is_balanced(kept, 1)
    wanted = {"none": (False, False), "filters": (True, False), "both": (True, True)}
    filters_wanted, channels_wanted = wanted.get(balance, (filters, channels))
    if filters_wanted > filters or channels_wanted > channels:
        side = 0 if filters_wanted > filters else 1
        counts = kept.sum(axis=(1 - side, 2)).tolist()
        raise ValueError(
            f"expected {name} to have balance {balance!r} at the start, got "
            f"{counts} {site.unit} in its {('filter', 'channel')[side]} groups"
        )
    return Rules(site.coverage, filters_wanted, channels_wanted)
