"""What an accuracy sweep can be asked for, by name. No torch.

===============  ========================================================================
``dense``        every weight; once a seed
``unstructured``  the best single weights of each layer, as a mask over dense weights
``aligned``      the best blocks where they lie, as packed values
``shuffled``     the best blocks of channels in random order: what grouping has to beat
``hrbp``         blocks of filter groups that choose their own channels
``hrbp2``        the best blocks after filters and channels are regrouped
``hrbp_pp``      ``hrbp`` with one common set of taps in every block
``hrbp2_pp``     ``hrbp2`` with one common set of taps in every block
``elementwise``  columns of single (channel, tap) under groups of filters, as a mask
``dsb``          Jiang et al. 2022, as a mask
``two_four``     transposable 2:4, as a mask; at density 0.5 alone
``grouped``      torch's grouped convolution of as many multiply-adds; no scores
``thin``         a dense network with fewer channels, of as many multiply-adds
===============  ========================================================================

An arm may move while it trains: ``hrbp2:rigl`` is ``hrbp2`` updated by RigL. Methods: set, rigl,
itop; nothing is "static".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DENSE = "dense"
UNSTRUCTURED = "unstructured"
REGROUPED = ("aligned", "shuffled", "hrbp", "hrbp2", "hrbp_pp", "hrbp2_pp")
MASKED = (UNSTRUCTURED, "elementwise", "dsb", "two_four")
GROUPED, THIN = "grouped", "thin"
ARMS = (DENSE, *MASKED, *REGROUPED, GROUPED, THIN)
SCORELESS = (DENSE, GROUPED, THIN)
BALANCED = ("elementwise", "dsb", *REGROUPED)  # what "filters" means something for
STATIC = "static"
DYNAMIC = ("set", "rigl", "itop")
# filter groups with channel lists of their own (hrbp) have nothing that could move
MOVING = (UNSTRUCTURED, "aligned", "shuffled", "hrbp2", "hrbp_pp", "hrbp2_pp")
TWO_FOUR_DENSITY = 0.5

BALANCES = ("none", "filters", "both")
SCORES = ("snip", "grasp", "synflow", "magnitude", "random")
ALLOCATIONS = ("uniform", "erk")
PRECISIONS = ("float32", "bfloat16")
DEVICES = ("auto", "cpu", "cuda")

_CIFAR = (
    "resnet18", "resnet20", "resnet32", "resnet32_x2", "vgg16", "vgg19", "wrn22_2", "wrn28_10",
)  # fmt: skip
# data -> the networks for its images; the first is the default
NETWORKS: Mapping[str, tuple[str, ...]] = {
    "digits": ("digits-cnn",),
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "imagenet": ("resnet50", "resnet18_imagenet", "vgg16_imagenet", "vgg19_imagenet"),
}


@dataclass(frozen=True)
class Arm:
    """An arm, and how its pattern moves: "static", "set", "rigl" or "itop"."""

    name: str
    dst: str = STATIC

    def __str__(self) -> str:
        return self.name if self.dst == STATIC else f"{self.name}:{self.dst}"


def arm_of(text: str) -> Arm:
    """Return the arm that ``name`` or ``name:method`` says.

    Raises:
        ValueError: an unknown name or method, or an arm that cannot move.
    """
    name, _, dst = text.partition(":")
    if name not in ARMS:
        raise ValueError(f"expected arm as one of {', '.join(ARMS)}; got {text!r}")
    if ":" not in text or dst == STATIC:
        return Arm(name)
    if dst not in DYNAMIC:
        raise ValueError(f"expected {name} or {name}:{{{','.join(DYNAMIC)}}}, got {text!r}")
    if name not in MOVING:
        raise ValueError(f"expected an arm that can move ({', '.join(MOVING)}), got {text!r}")
    return Arm(name, dst)
