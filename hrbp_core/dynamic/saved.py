"""What ``state_dict`` holds of a method, checked before any of it is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hrbp_core.dynamic.sites import Site

FORMAT = "hrbp.dynamic/1"
KINDS: dict[str, type] = {
    "format": str,
    "method": str,
    "steps": int,
    "updates": int,
    "postponed": int,
    "due": bool,
    "stepped": bool,
    "generator": Tensor,
    "layers": dict,
    "gradients": dict,
    "spoilt": dict,
}
LAYER_KINDS: dict[str, type] = {
    "unit": str,
    "filters": bool,
    "channels": bool,
    "kept": Tensor,
    "explored": Tensor,
}


def check(state: Any, method: str, sites: Mapping[str, Site]) -> None:
    """Refuse a state that is not of this method on this model with the pattern it has now.

    Raises:
        TypeError, ValueError: "expected ..., got ...".
    """
    _check_kinds(state, KINDS, "state")
    for name, expected in (("format", FORMAT), ("method", method)):
        if state[name] != expected:
            raise ValueError(f"expected {name} {expected!r}, got {state[name]!r}")
    for name in ("steps", "updates", "postponed"):
        if state[name] < 0:
            raise ValueError(f"expected {name} >= 0, got {state[name]}")
    if list(state["layers"]) != list(sites):
        raise ValueError(f"expected layers {list(sites)}, got {list(state['layers'])}")
    for name, site in sites.items():
        _check_layer(state["layers"][name], name, site)
    _check_generator(state["generator"])
    for part in ("gradients", "spoilt"):
        unknown = set(state[part]) - set(sites)
        if unknown:
            raise ValueError(f"expected {part} of layers {list(sites)}, got {sorted(unknown)}")


def _check_kinds(state: Any, kinds: Mapping[str, type], what: str) -> None:
    if not isinstance(state, dict) or state.keys() != kinds.keys():
        got = list(state) if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"expected {what} as a dict of {list(kinds)}, got {got}")
    for name, kind in kinds.items():
        if not isinstance(state[name], kind) or (kind is int and isinstance(state[name], bool)):
            got = type(state[name]).__name__
            raise TypeError(f"expected {name} of {what} as {kind.__name__}, got {got}")


def _check_layer(layer: Any, name: str, site: Site) -> None:
    _check_kinds(layer, LAYER_KINDS, name)
    unit = site.unit
    try:
        site.unit = layer["unit"]
        now = site.kept.cpu()
    finally:
        site.unit = unit
    for part in ("kept", "explored"):
        tensor = layer[part]
        if tensor.dtype != torch.bool or tensor.shape != now.shape:
            raise ValueError(
                f"expected {part} of {name} as bool {list(now.shape)} (one a unit), "
                f"got {tensor.dtype} {list(tensor.shape)}"
            )
    if not torch.equal(layer["kept"].cpu(), now):
        raise ValueError(
            f"expected the pattern of {name} that the state was saved with, got another: load "
            "the model before this state, and from the same step"
        )


def _check_generator(kept: Tensor) -> None:
    try:
        torch.Generator().set_state(kept.cpu())
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"expected the state of a random generator, got {error}") from error
