"""Sweeps by name. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from bench.accuracy.plan import AccuracyPlan

# RigL on single weights is the accuracy that blocks are held against
_PAPER = (
    "dense", "unstructured:rigl", "aligned:rigl", "shuffled:rigl", "hrbp2:rigl", "hrbp2_pp:rigl",
    "grouped", "thin",
)  # fmt: skip

PRESETS: Mapping[str, AccuracyPlan] = {
    # three seeds left dense - hrbp2 between -0.9 and 2.7 points; five say whether it is under 2
    "digits": AccuracyPlan(densities=(0.25, 0.125), seeds=5),
    # short enough for a lent GPU; runs that are left go on in another call. Not yet timed on one.
    "cifar10-short": AccuracyPlan(
        data="cifar10", model="resnet18", arms=_PAPER, densities=(0.25,), seeds=4, epochs=16,
        batch=512, lr=0.4, block=(32, 32), smoothing=0.1, precision="bfloat16",
        deterministic=False, balance="both",
    ),
    "cifar10-full": AccuracyPlan(
        data="cifar10", model="resnet18", arms=_PAPER, densities=(0.25, 0.125), seeds=4,
        epochs=160, batch=128, lr=0.1, block=(32, 32), precision="bfloat16", deterministic=False,
        balance="both",
    ),
    "imagenet": AccuracyPlan(
        data="imagenet", model="resnet50", arms=_PAPER, densities=(0.25, 0.125), seeds=1,
        epochs=90, batch=256, lr=0.1, weight_decay=1e-4, block=(64, 64), smoothing=0.1,
        precision="bfloat16", deterministic=False, balance="both",
    ),
}  # fmt: skip
