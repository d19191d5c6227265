"""The arguments of a method, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from hrbp_core.dynamic.schedule import CosineDrop, Schedule
from hrbp_core.dynamic.sites import Site

WRAPPERS = (DistributedDataParallel, DataParallel, AveragedModel)


class Defaults(Protocol):
    """What a method takes where nothing is said."""

    DROP: float
    EVERY: int


def schedule_of(
    schedule: Schedule | None,
    until: int | None,
    *,
    drop: float | None,
    every: int | None,
    defaults: Defaults,
) -> Schedule:
    """Return the schedule that was asked for.

    Raises:
        TypeError: neither a schedule nor ``until``, or both kinds of arguments.
        ValueError: a number out of range.
    """
    given = [n for n, v in (("drop", drop), ("every", every), ("until", until)) if v is not None]
    if schedule is not None:
        if given:
            raise TypeError(f"expected either a schedule or drop, every, until; got both: {given}")
        return schedule
    if until is None:
        raise TypeError("expected until (the step at which updates end) or a schedule, got neither")
    return CosineDrop(
        drop=defaults.DROP if drop is None else drop,
        every=defaults.EVERY if every is None else every,
        until=until,
    )


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside wrappers that add to its layers' names."""
    while True:
        inner = model.module if isinstance(model, WRAPPERS) else getattr(model, "_orig_mod", None)
        if inner is None:
            return model
        model = inner


def found_sites(
    model: nn.Module, sites: Mapping[str, Site] | Callable[[nn.Module], Mapping[str, Site]]
) -> dict[str, Site]:
    """Return the sites of a model, by name.

    Raises:
        TypeError: not a module. ValueError: none, or none whose units could move.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected model as a torch.nn.Module, got {type(model).__name__}")
    found = dict(sites(unwrapped(model)) if callable(sites) else sites)
    if not found:
        raise ValueError("expected a model with a sparse layer at least, got none: convert it")
    if not any(_moves(site) for site in found.values()):
        raise ValueError(
            "expected a layer whose entries can move, got none: every place is taken, or filter "
            "groups have channel lists of their own (method 'hrbp') with all taps kept"
        )
    return found


def follower_sites(
    copy: nn.Module,
    find: Callable[[nn.Module], Mapping[str, Site]] | None,
    sites: Mapping[str, Site],
) -> dict[str, Site]:
    """Return the sites of a copy of the model that has ``sites``.

    Raises:
        TypeError: no function that finds them. ValueError: other layers or patterns.
    """
    if find is None:
        raise TypeError("expected sites as a function, to find a copy's; got them one by one")
    found = found_sites(copy, find)
    if list(found) != list(sites):
        raise ValueError(f"expected a copy with layers {list(sites)}, got {list(found)}")
    for name, site in sites.items():
        found[name].unit = site.unit
        if not torch.equal(found[name].kept.cpu(), site.kept.cpu()):
            raise ValueError(f"expected a copy with the model's pattern in {name}, got another")
    return found


def _moves(site: Site) -> bool:
    kept, allowed = site.kept, site.allowed
    places = kept.numel() if allowed is None else int((allowed | kept).sum())
    return 0 < int(kept.sum()) < places


def trained(optimizer: torch.optim.Optimizer, sites: Mapping[str, Site]) -> torch.optim.Optimizer:
    """Return the optimizer.

    Raises:
        TypeError: none. ValueError: weights that it does not have.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        got = type(optimizer).__name__
        raise TypeError(f"expected optimizer as a torch.optim.Optimizer, got {got}")
    has = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [
        n for n, s in sites.items() if id(s.parameter) not in has and s.parameter.requires_grad
    ]
    if missing:
        raise ValueError(
            f"expected an optimizer over the weights of every sparse layer, got one without "
            f"{missing}: build it of the converted model"
        )
    return optimizer
