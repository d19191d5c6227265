"""Published accuracies, to be shown beside our own and never held against them. No torch.

Another recipe moves accuracy by more than the methods differ, so an anchor says whether a
network of ours is in the right region, no more. :func:`incomparable` names what differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_SYNFLOW = (
    "Tanaka et al. 2020, NeurIPS 33; arrays of github.com/ganguli-lab/Synaptic-Flow, "
    "Results/data/Accuracy_CompRatio"
)
_REPRODUCED = (
    "Sundar and Dwaraknath 2021, ReScience C; github.com/varun19299/rigl-reproducibility, "
    "main results"
)
_RIGL = "Evci et al. 2020, ICML; github.com/google-research/rigl, README, 1x training"
_ITOP = "Liu et al. 2021, ICML, arXiv:2102.02887; sd as in arXiv:2305.19454's repository"
BEST, LAST, UNSAID = "best epoch", "last epoch", "epoch not said"


@dataclass(frozen=True)
class Anchor:
    """One published accuracy.

    Attributes:
        data: "cifar10", "cifar100" or "imagenet", with images as published (lossless for CIFAR).
        model: the network, letters and digits only.
        method, density: how it was made sparse, and what is kept: 1 is that study's dense network.
        accuracy, sd: fractions; sd over its runs as published, or None.
        epoch: which epoch's accuracy it is.
        source: where it stands. checked: False where only a copy of the figure was at hand.
    """

    data: str
    model: str
    method: str
    density: float
    accuracy: float
    sd: float | None
    epoch: str
    source: str
    checked: bool = True


def _synflow(data: str, method: str, accuracies: tuple[float | None, ...]) -> Iterator[Anchor]:
    """Yield dense and the compressions 10^1, 10^1.25 and 10^1.75 of tiny_resnet18."""
    for power, percent in zip((0.0, 1.0, 1.25, 1.75), accuracies, strict=True):
        if percent is not None:
            density, fraction = 10**-power, round(percent / 100, 4)
            yield Anchor(
                data, "resnet18", method, density, fraction, None, BEST, _SYNFLOW, checked=False
            )


ANCHORS: tuple[Anchor, ...] = (
    *_synflow("cifar10", "SNIP", (94.9, 94.29, 93.69, 91.84)),
    *_synflow("cifar10", "GraSP", (95.0, 93.78, 92.83, 91.18)),
    *_synflow("cifar10", "SynFlow", (94.8, 94.07, 93.69, 91.75)),
    *_synflow("cifar10", "random, global", (95.11, 92.92, 91.60, 87.34)),
    *_synflow("cifar100", "SNIP", (78.4, 74.47, 71.25, 63.35)),
    *_synflow("cifar100", "SynFlow", (None, 73.84, 71.59, 64.98)),
    Anchor("cifar10", "wrn222", "static", 0.2, 0.912, 0.0016, UNSAID, _REPRODUCED),
    Anchor("cifar10", "wrn222", "SET", 0.2, 0.927, 0.0028, UNSAID, _REPRODUCED),
    Anchor("cifar10", "wrn222", "RigL, ERK", 0.2, 0.931, 0.0009, UNSAID, _REPRODUCED),
    Anchor("imagenet", "resnet50", "dense", 1.0, 0.768, None, UNSAID, _RIGL),
    Anchor("imagenet", "resnet50", "RigL, ERK", 0.2, 0.7512, None, UNSAID, _RIGL),
    Anchor("imagenet", "resnet50", "RigL, ERK", 0.1, 0.7307, None, UNSAID, _RIGL),
    Anchor("imagenet", "resnet50", "RigL, ERK", 0.05, 0.7039, None, UNSAID, _RIGL, checked=False),
    Anchor("imagenet", "resnet50", "RigL-ITOP", 0.2, 0.7584, 0.0005, UNSAID, _ITOP),
    Anchor("imagenet", "resnet50", "RigL-ITOP", 0.1, 0.7382, 0.0008, UNSAID, _ITOP),
)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def anchors_for(data: str, model: str) -> list[Anchor]:
    """Return the anchors of a data set and network, in order; spelling is forgiven.

    "CIFAR-10 (JPEG-75)" has those of CIFAR-10: they are shown, and said not to compare.
    """
    sets = {anchor.data for anchor in ANCHORS}
    known = [name for name in sets if _plain(data).startswith(name)]
    name = max(known, key=len, default="")  # cifar100, not cifar10
    return [a for a in ANCHORS if a.data == name and a.model == _plain(model)]


def incomparable(anchor: Anchor, run: str) -> str:
    """Return why a run is not comparable with the anchor; never "".

    Args:
        run: what is known of the run's images and recipe, in words.
    """
    reasons = []
    if "jpeg" in run.lower():
        reasons.append("our images are JPEG-coded, theirs as published")
    if anchor.epoch == BEST:
        reasons.append("theirs is the best epoch's")
    elif anchor.epoch == UNSAID:
        reasons.append("which epoch theirs is, is not said")
    return "not comparable: " + "; ".join([*reasons, "another recipe"])
