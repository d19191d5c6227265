"""Makes the two networks of a comparison, checks a step, and keeps both for the processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.accuracy.models import example_batch, step_multiply_adds
from bench.attempt import status_of
from bench.conversion import ABSORBED, DENSE, Converted
from bench.conversion import run as convert
from bench.environment import environment
from bench.records import Status
from bench.session import set_up
from bench.stepping.asked import Asked
from bench.stepping.rightness import Wrong, check
from hrbp_core.shapes import least_density

FILES = {"dense": "dense.pt", "sparse": "sparse.pt"}
SHOWN = 3
Batch = tuple[Tensor, Tensor]


class Failed(Exception):
    """A comparison that ended without a figure.

    Attributes:
        status, reason: of it. facts: what was found out before.
    """

    def __init__(self, status: Status, reason: str, **facts: Any) -> None:
        super().__init__(reason)
        self.status, self.reason, self.facts = status, reason, facts


def batch_for(asked: Asked) -> Batch:
    """Return the batch of every step, on the device."""
    images, labels = example_batch(asked.model, asked.batch, asked.seed)
    return images.to(asked.device), labels.to(asked.device)


def make(asked: Asked, folder: Path, at: Callable[[str], None]) -> dict[str, Any]:
    """Make and check the networks, and write them to ``folder``.

    Args:
        at: told what is done now.

    Returns:
        ``environment``, ``facts``, ``prep_s`` and ``errors``, as ``steps.jsonl`` has them.

    Raises:
        Failed: nothing to compare, or a step that is not right.
    """
    at("converting")
    try:
        converted = convert(asked.wish, "cpu")
    except (TypeError, ValueError) as error:  # what allocate and convert refuse
        raise Failed(Status.SKIPPED, " ".join(str(error).split())) from error
    found = {
        "environment": asdict(_set_up(asked)),
        "facts": _facts(converted, asked),
        "prep_s": dict(converted.seconds),
    }
    if not converted.report.layers:
        raise Failed(Status.SKIPPED, _nothing(converted), **found)
    for side, name in (("dense", DENSE), ("sparse", ABSORBED)):
        torch.save(converted.networks[name], folder / FILES[side])
    at("checking a step")
    try:
        sparse = converted.networks[ABSORBED].to(asked.device)
        errors = check(sparse, batch_for(asked), asked.mode, asked.amp)
    except Wrong as error:
        raise Failed(Status.WRONG, f"not the masked dense step: {error}", **found) from error
    except Exception as error:
        status, reason = status_of(error)
        raise Failed(status, f"checking a step: {reason}", **found) from error
    return found | {"errors": errors}


def _set_up(asked: Asked) -> Any:
    set_up(asked.device, asked.precision)
    return environment(asked.device)


def load(asked: Asked, folder: Path, side: str) -> nn.Module:
    """Return a network that ``make`` wrote, on the device."""
    network: nn.Module = torch.load(folder / FILES[side], weights_only=False)
    return network.to(asked.device)


def _facts(converted: Converted, asked: Asked) -> dict[str, Any]:
    report, absorption = converted.report, converted.absorption
    images = example_batch(asked.model, 2, asked.seed)[0]
    kept = {
        name: round(layer.density * layer.pattern.mask().numel())
        for name, layer in report.layers.items()
    }
    ours = step_multiply_adds(converted.networks[ABSORBED], images, kept)
    dense = step_multiply_adds(converted.networks[DENSE], images, {})
    return {
        "sparse_layers": len(report.layers),
        "canonical": len(absorption.canonical),
        "standalone": dict(absorption.standalone),
        "left_dense": dict(report.left_dense),
        "lifted": {
            name: layer.density
            for name, layer in report.layers.items()
            if asked.density < least_density(layer.pattern.shape, layer.pattern.block)
        },
        "real_density": report.density,
        "flops_ratio": ours / dense,
        "absorbed_difference": dict(converted.difference),
    }


def _nothing(converted: Converted) -> str:
    left = list(converted.report.left_dense.items())
    told = "; ".join(f"{name}: {why}" for name, why in left[:SHOWN])
    more = f"; and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    return f"expected layers that become sparse, got none: {told}{more}"
