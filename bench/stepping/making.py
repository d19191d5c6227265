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
from bench.stepping.layouts import LAYOUTS, faster, step_seconds
from bench.stepping.rightness import Wrong, check
from hrbp_core.shapes import least_density

LAYOUT = "dense_layout.txt"
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


def batch_for(asked: Asked, layout: str = "channels_last") -> Batch:
    """Return the batch of every step, on the device."""
    images, labels = example_batch(asked.model, asked.batch, asked.seed)
    images = images.contiguous(memory_format=LAYOUTS[layout])
    return images.to(asked.device), labels.to(asked.device)


def layout_of(folder: Path, side: str) -> str:
    """Return the memory layout of a network that ``make`` wrote."""
    if side != "dense":
        return "channels_last"
    return (folder / LAYOUT).read_text(encoding="utf-8")


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
    torch.save(converted.networks[ABSORBED], folder / FILES["sparse"])
    at("checking a step")
    try:
        sparse = converted.networks[ABSORBED].to(asked.device)
        errors = check(sparse, batch_for(asked), asked.mode, asked.amp)
    except Wrong as error:
        raise Failed(Status.WRONG, f"not the masked dense step: {error}", **found) from error
    except Exception as error:
        status, reason = status_of(error)
        raise Failed(status, f"checking a step: {reason}", **found) from error
    found["facts"] |= _save_dense(asked, converted.networks[DENSE], folder, at)
    return found | {"errors": errors}


def _save_dense(
    asked: Asked, network: nn.Module, folder: Path, at: Callable[[str], None]
) -> dict[str, Any]:
    """Write the dense network in its faster layout; return ``dense_layouts_s``."""
    layout, seconds = "channels_last", None
    if asked.device == "cpu" and asked.mode == "eager":  # cuDNN and inductor want channels_last
        at("trying the dense network's layouts")
        seconds = step_seconds(network, batch_for(asked), asked.amp)
        layout = faster(seconds)
    moved = network.to(memory_format=LAYOUTS[layout])  # type: ignore[call-overload]
    torch.save(moved, folder / FILES["dense"])
    (folder / LAYOUT).write_text(layout, encoding="utf-8")
    return {"dense_layout": layout, "dense_layouts_s": seconds}


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
