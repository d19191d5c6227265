"""Converts a whole network, absorbs its orders, checks the function, and times the steps."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.accuracy.models import MODELS, example_batch, make
from bench.clocks import clock_for
from bench.session import set_up
from bench.stats import median, median_interval
from bench.timing import StopRule, Timed, spin, time_together
from hrbp_core import absorb, allocate, calibrate, convert, scores
from hrbp_core.calibration_report import CalibrationReport
from hrbp_core.conversion_report import Conversion
from hrbp_core.convs import dense_by_default
from hrbp_core.permute import Absorption
from hrbp_core.policy import POLICIES

RULE = StopRule(precision=0.01, cap_s=20, warmup_cap_s=5)
SCORES = ("magnitude", "random", "snip")
DENSE, NOT_ABSORBED, ABSORBED = "dense", "not absorbed", "absorbed"


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        model: a name in ``bench.accuracy.models.MODELS``.
        scores: one of ``SCORES``; snip takes one batch of random images and labels.
        allocation: a name in ``hrbp_core.allocate.RULES``.
        policy: of the sparse layers; "auto" calibrates each sparse network.

    Raises:
        ValueError: a name that does not exist; a batch below 1.
    """

    model: str
    density: float = 0.25
    block: int = 32
    method: str = "hrbp2"
    balance: str = "none"
    scores: str = "magnitude"
    allocation: str = "uniform"
    batch: int = 8
    seed: int = 0
    joint: bool = True
    policy: str = "sparse"

    def __post_init__(self) -> None:
        for value, known, name in (
            (self.model, MODELS, "model"),
            (self.scores, SCORES, "scores"),
            (self.allocation, allocate.RULES, "allocation"),
            (self.policy, POLICIES, "policy"),
        ):
            if value not in known:
                raise ValueError(f"expected {name} as one of {', '.join(known)}; got {value!r}")
        if self.batch < 1:
            raise ValueError(f"expected batch >= 1, got {self.batch}")


@dataclass(frozen=True, eq=False)
class Converted:
    """The networks, and what was found on the way.

    Attributes:
        seconds: "scores", "allocate", "convert", "absorb", "calibrate".
        difference: "train" and "eval": |y - y'| / |y| of the absorbed network against the one
            that is not, in float32, on one batch.
        calibrations: of the sparse networks, with policy "auto".
    """

    networks: dict[str, nn.Module]
    batch: tuple[Tensor, Tensor]
    report: Conversion
    absorption: Absorption
    seconds: dict[str, float] = field(default_factory=dict)
    difference: dict[str, float] = field(default_factory=dict)
    calibrations: dict[str, CalibrationReport] = field(default_factory=dict)


def run(wish: Wish, device: str) -> Converted:
    """Make the network, and its sparse forms.

    Raises:
        ValueError: what ``convert`` and ``allocate`` refuse.
    """
    set_up(device, "float32")
    seconds: dict[str, float] = {}
    dense = make(wish.model, wish.seed)
    images, labels = example_batch(wish.model, wish.batch, wish.seed)
    found = _timed("scores", seconds, lambda: _scores(wish, dense, images, labels))
    rule = allocate.RULES[wish.allocation]
    source: Any = found if wish.allocation == "global" else dense
    outside = tuple(dense_by_default(dense))
    kept = rule(source, wish.density, block=wish.block, keep_dense=outside)
    sparse, report = _timed(
        "convert",
        seconds,
        lambda: convert(
            dense, kept, method=wish.method, block=wish.block, scores=found,
            balance=wish.balance, seed=wish.seed, joint=wish.joint, policy=wish.policy,
            example=images[:1],
        ),
    )  # fmt: skip
    absorbed, absorption = _timed("absorb", seconds, lambda: absorb(sparse))
    networks = {DENSE: dense, NOT_ABSORBED: sparse, ABSORBED: absorbed}
    difference = {
        mode: _difference(sparse, absorbed, images, training=mode == "train")
        for mode in ("train", "eval")
    }
    networks = {name: net.to(device) for name, net in networks.items()}
    batch = images.to(device), labels.to(device)
    calibrations = {}
    if wish.policy == "auto":
        sparse_ones = {name: net.train() for name, net in networks.items() if name != DENSE}
        calibrations = _timed(
            "calibrate",
            seconds,
            lambda: {name: calibrate(net, batch[0]) for name, net in sparse_ones.items()},
        )
    return Converted(networks, batch, report, absorption, seconds, difference, calibrations)


def _scores(wish: Wish, dense: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    if wish.scores == "magnitude":
        return scores.magnitude(dense)
    if wish.scores == "random":
        return scores.random(dense, seed=wish.seed)
    return scores.snip(dense, (images, labels))


def _timed(name: str, seconds: dict[str, float], call: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    found = call()
    seconds[name] = time.perf_counter() - start
    return found


@torch.no_grad()
def _difference(one: nn.Module, other: nn.Module, images: Tensor, *, training: bool) -> float:
    outs = []
    for network in (one, other):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # dropout falls on features, whose order differs: none here
            outs.append(_without_dropout(copy.deepcopy(network).train(training))(images))
    return float((outs[1] - outs[0]).norm() / outs[0].norm())


def _without_dropout(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return network


def step_times(converted: Converted, device: str, rule: StopRule = RULE) -> dict[str, Timed]:
    """Return samples of forward + backward of each network on one batch, in alternating rounds."""
    images, labels = converted.batch

    def step(network: nn.Module) -> Callable[[], object]:
        def once() -> None:
            network.zero_grad(set_to_none=True)
            functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]

        network.train()
        return once

    spin()
    runs = {name: step(network) for name, network in converted.networks.items()}
    return time_together(runs, clock_for(device), rule, reference=DENSE)


def speedups(times: dict[str, Timed]) -> dict[str, tuple[float, float, float]]:
    """Return (median, low, high) of dense over each other network, round by round."""
    dense = times[DENSE].samples_s
    found = {}
    for name, timed in times.items():
        ratios = [d / s for d, s in zip(dense, timed.samples_s, strict=True)]
        found[name] = (median(dense) / median(timed.samples_s), *median_interval(ratios))
    return found
