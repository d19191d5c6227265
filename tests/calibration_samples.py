"""A clock whose seconds are scripted, and a network that shows whether it was left as it was."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hrbp_core import BlockSparseConv2d
from hrbp_core.trials import Trial
from tests.pattern_samples import random_pattern

SPARSE, DENSE = "sparse", "dense"
PATTERN = random_pattern((8, 8, 3, 3), (4, 4), 1, permuted=True)


class ScriptedClock:
    """``script(trial)`` are the seconds of one call; the trial really runs, once a sample.

    Attributes:
        trials: all trials, as they came. results: what they returned, by (name, way).
    """

    def __init__(self, script: Callable[[Trial], float]) -> None:
        self.script = script
        self.trials: list[Trial] = []
        self.results: dict[tuple[str, str], Any] = {}

    def seconds(self, trial: Trial, calls: int) -> float:
        self.trials.append(trial)
        self.results[trial.name, trial.way] = trial.run()
        return self.script(trial) * calls


def steady(**dense_s: float) -> ScriptedClock:
    """Sparse layers take a second; dense ones what is said of them, by name."""
    return ScriptedClock(lambda t: 1.0 if t.way == SPARSE else dense_s[t.name])


def layer(policy: str = "auto", **options: Any) -> BlockSparseConv2d:
    return BlockSparseConv2d(8, 8, 3, padding=1, pattern=PATTERN, policy=policy, **options)


class Restless(nn.Module):
    """Changes all that it can in a forward: statistics, buffers, weights, modes, dice."""

    count: Tensor
    signed: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = layer(), nn.BatchNorm2d(8), layer(bias=False)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("signed", torch.zeros(3))
        self.register_buffer("replaced", torch.ones(2))
        self.register_buffer("untouched", torch.ones(2))
        self.register_buffer("odd", torch.tensor(float("nan")))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.two(self.norm(self.one(x)).relu()))
        with torch.no_grad():
            self.count += 1
            self.signed.neg_()  # zeros of the other sign
            self.scale.add_(1)
            if self.scale.grad is not None:
                self.scale.grad.zero_()
        self.replaced = torch.zeros(2)
        self.register_buffer("new", torch.zeros(2))
        self.one.values.grad = None
        self.norm.eval()
        random.random()
        np.random.random()
        return x * self.scale


def image(n: int = 2, size: int = 6) -> Tensor:
    return torch.randn(n, 8, size, size, generator=torch.Generator().manual_seed(3))


def everything(module: nn.Module) -> dict[str, Any]:
    """Return all that a calibration may not change, in a form that == compares."""
    found: dict[str, Any] = {"python": random.getstate(), "numpy": str(np.random.get_state())}
    found["torch"] = torch.get_rng_state().tolist()
    for name, each in module.named_modules():
        found[f"{name} training"] = each.training
        found[f"{name} hooks"] = [
            (key, id(hook))
            for kind in (each._forward_pre_hooks, each._forward_hooks, each._backward_hooks)
            for key, hook in kind.items()
        ]
        found[f"{name} hooks with kwargs"] = list(each._forward_pre_hooks_with_kwargs)
        for key, tensor in [*each._parameters.items(), *each._buffers.items()]:
            if tensor is not None and key != "chosen":
                found[f"{name}.{key}"] = (id(tensor), bits(tensor))
                if isinstance(tensor, nn.Parameter):
                    grad = tensor.grad
                    found[f"{name}.{key} gradient"] = (
                        grad if grad is None else (id(grad), bits(grad))
                    )
    return found


def bits(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.dtype, tensor.detach().numpy().tobytes()
