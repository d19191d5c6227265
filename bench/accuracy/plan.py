"""What an accuracy sweep is to do: data, network, arms, densities, seeds, recipe. No torch.

The arms of one seed share their dense initialisation, their scores, their density a layer, the
order of their batches and their recipe; they differ in which weights are kept and in how these
are stored. (``thin`` has other layers, and so weights of its own.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.accuracy.names import (
    ALLOCATIONS,
    BALANCED,
    BALANCES,
    DENSE,
    DEVICES,
    GROUPED,
    NETWORKS,
    PRECISIONS,
    REGROUPED,
    SCORELESS,
    SCORES,
    STATIC,
    THIN,
    TWO_FOUR_DENSITY,
    Arm,
    arm_of,
)
from bench.records import digest
from hrbp_core.shapes import Pair, pair

LEAST_STEP_ROUNDS = 15


@dataclass(frozen=True)
class Run:
    """One training run of a plan; ``density`` is 1.0 for the dense arm."""

    arm: str
    density: float
    seed: int
    dst: str = STATIC

    def __str__(self) -> str:
        return f"{Arm(self.arm, self.dst)} density {self.density:g} seed {self.seed}"


@dataclass(frozen=True)
class AccuracyPlan:
    """Which networks to train, and how: every run of a sweep shares all but arm, density, seed.

    Attributes:
        data, root: a name in ``NETWORKS``, and the folder that holds it (None for digits).
        model: a network for the data's images; None: its first.
        arms: as ``bench.accuracy.names`` writes them.
        densities: kept fraction of the sparse layers together, each in (0, 1].
        seeds: how many; the seeds are 0, 1, ..., seeds - 1.
        epochs, batch, lr, momentum, weight_decay: of SGD with Nesterov's momentum; the learning
            rate rises over the first quarter of the steps and falls to zero (one-cycle, cosine).
        block: (block_k, block_c) of the arms that keep blocks; all arms have the densities that
            layers of such blocks can have.
        allocation: of the density to layers: "uniform" or "erk".
        balance, coverage: as in ``hrbp_core.regroup``.
        scores: what decides which weights are kept at the start: a rule of ``hrbp_core.scores``,
            on one batch of the dense network at initialisation.
        rescale: multiply each filter's kept weights by sqrt(all / kept) at the start, so that
            its outputs keep their variance; for all sparse arms alike. Off by default: behind
            BatchNorm it only lowers the effective learning rate, and every sparse arm trained
            as well or better without (digits at 0.125, four seeds: 0.1 to 0.8 points).
        dst_every, dst_drop, dst_until: of arms that move: steps from one update to the next
            (None: 100, ITOP 1500, or fewer, so that there are ten), the share dropped at first
            (None: 0.3, ITOP 0.5), the share of all steps after which the pattern stays.
        smoothing: of the labels.
        precision: "float32", or "bfloat16": autocast.
        deterministic: the same bits every time, where torch can; costs time on CUDA.
        take: (training, test) images to use, None each: all.
        skip_unreadable: leave out images that cannot be decoded, and count them.
        device: "auto", "cpu" or "cuda".
        step_rounds: alternating rounds of step times after each sparse run.

    Raises:
        ValueError: an unknown name or a number out of range; the text says what was expected.
    """

    data: str = "digits"
    root: str | None = None
    model: str | None = None
    arms: tuple[str, ...] = (DENSE, "unstructured", "aligned", "hrbp2")
    densities: tuple[float, ...] = (0.5, 0.25, 0.125)
    seeds: int = 3
    epochs: int = 3
    batch: int = 50
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    block: Pair = (16, 16)
    allocation: str = "uniform"
    balance: str = "none"
    coverage: bool = True
    scores: str = "snip"
    rescale: bool = False
    dst_every: int | None = None
    dst_drop: float | None = None
    dst_until: float = 0.75
    smoothing: float = 0.0
    precision: str = "float32"
    deterministic: bool = True
    take: tuple[int | None, int | None] = (None, None)
    skip_unreadable: bool = False
    device: str = "auto"
    step_rounds: int = LEAST_STEP_ROUNDS

    def __post_init__(self) -> None:
        object.__setattr__(self, "arms", tuple(str(arm_of(a)) for a in self.arms))
        object.__setattr__(self, "densities", tuple(float(d) for d in self.densities))
        object.__setattr__(self, "block", pair(self.block, "block", least=1))
        _known("data", [self.data], NETWORKS)
        if self.model is not None and self.model not in NETWORKS[self.data]:
            raise ValueError(
                f"expected a network for {self.data}: {', '.join(NETWORKS[self.data])}; "
                f"got {self.model!r}"
            )
        for name, known in (
            ("allocation", ALLOCATIONS), ("balance", BALANCES), ("scores", SCORES),
            ("precision", PRECISIONS), ("device", DEVICES),
        ):  # fmt: skip
            _known(name, [getattr(self, name)], known)
        self._check_numbers()
        self._check_arms()

    def _check_numbers(self) -> None:
        for name, least in (("seeds", 1), ("epochs", 1), ("batch", 2)):
            _at_least(name, getattr(self, name), least)
        _at_least("step_rounds", self.step_rounds, LEAST_STEP_ROUNDS)
        if self.dst_every is not None:
            _at_least("dst_every", self.dst_every, 1)
        drop = 0.3 if self.dst_drop is None else self.dst_drop
        for name, fits, words in (
            ("lr", self.lr > 0, "> 0"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("weight_decay", self.weight_decay >= 0, ">= 0"),
            ("smoothing", 0 <= self.smoothing < 1, "in [0, 1)"),
            ("dst_until", 0 < self.dst_until <= 1, "in (0, 1]"),
            ("dst_drop", 0 < drop <= 1, "in (0, 1]"),
        ):
            value = getattr(self, name)
            if not fits or (value is not None and not math.isfinite(value)):
                raise ValueError(f"expected {name} {words}, got {value!r}")

    def _check_arms(self) -> None:
        if not self.arms:
            raise ValueError("expected at least one arm, got none")
        _distinct("arm", self.arms)
        _distinct("density", self.densities)
        sparse = [arm for arm in self.arms if arm != DENSE]
        if sparse and not self.densities:
            raise ValueError(f"expected at least one density for {', '.join(sparse)}, got none")
        for density in self.densities:
            if not 0 < density <= 1:
                raise ValueError(f"expected a density in (0, 1], got {density!r}")
        if "two_four" in self.arms and TWO_FOUR_DENSITY not in self.densities:
            raise ValueError(
                f"expected density 0.5 for two_four, which has no other; got {list(self.densities)}"
            )

    def check_ranks(self, ranks: int) -> None:
        """Refuse a batch that so many processes cannot share: each normalises by its own images.

        Raises:
            ValueError: fewer than two images for each.
        """
        if ranks > 1 and self.batch < 2 * ranks:
            raise ValueError(
                f"expected a batch of at least {2 * ranks} images, two for each of {ranks} ranks, "
                f"got {self.batch}"
            )

    @property
    def network(self) -> str:
        """The name of the network that is trained."""
        return self.model or NETWORKS[self.data][0]

    def runs(self) -> list[Run]:
        """Return the runs in order, seed by seed: a sweep cut short compares whole seeds."""
        sparse = [arm_of(arm) for arm in self.arms if arm != DENSE]
        runs = []
        for seed in range(self.seeds):
            if DENSE in self.arms:
                runs.append(Run(DENSE, 1.0, seed))
            runs += [
                Run(arm.name, density, seed, arm.dst)
                for density in self.densities
                for arm in sparse
                if arm.name != "two_four" or density == TWO_FOUR_DENSITY
            ]
        return runs

    def recipe(
        self, run: Run, device: str, data: Mapping[str, Any], ranks: int = 1
    ) -> dict[str, Any]:
        """Return how ``run`` is made, as plain JSON types.

        Args:
            device: "cpu" or "cuda". data: what is known of the images.
            ranks: processes that share each batch; BatchNorm sees a share alone.

        What says how its pattern is made (method, block, balance, coverage, scores, dst) stands
        there for the arms that it concerns; the rest is the same for every arm.
        """
        recipe: dict[str, Any] = {
            "epochs": self.epochs,
            "batch": self.batch,
            "lr": self.lr,
            "optimizer": f"SGD, Nesterov momentum {self.momentum:g}, "
            f"weight decay {self.weight_decay:g}, one-cycle lr",
            "smoothing": self.smoothing,
            "precision": self.precision,
            "deterministic": self.deterministic,
            "images": data.get("label"),
            "digest": data.get("digest"),
            "augmentation": data.get("augmentation"),
            "train_images": data["train_images"],
            "test_images": data["test_images"],
            "device": device,
        }
        if ranks > 1:
            recipe["ranks"] = ranks
        if run.arm == DENSE:
            return recipe
        # every sparse arm has the densities that blocks leave its layers
        recipe |= {"block": list(self.block), "allocation": self.allocation}
        if run.arm not in SCORELESS:
            recipe |= {"scores": self.scores, "rescaled": self.rescale}
        if run.arm in BALANCED:
            recipe |= {"balance": self._balance(run.arm), "coverage": self.coverage}
        if run.arm in REGROUPED or run.arm in (GROUPED, THIN):
            recipe["method"] = run.arm
        if run.dst != STATIC:
            recipe |= {"dst": run.dst, "dst_every": self.dst_every, "dst_drop": self.dst_drop,
                       "dst_until": self.dst_until}  # fmt: skip
        return recipe

    def _balance(self, arm: str) -> str:
        return self.balance if arm in REGROUPED or self.balance != "both" else "filters"

    def options(self, run: Run) -> dict[str, Any]:
        """Return the options of ``regroup`` and ``convert`` for the run's arm."""
        options: dict[str, Any] = {"method": run.arm, "block": self.block, "seed": run.seed}
        if run.arm in BALANCED:
            options |= {"balance": self._balance(run.arm), "coverage": self.coverage}
        return options

    def run_id(self, run: Run, device: str, data: Mapping[str, Any], ranks: int = 1) -> str:
        """Name ``run`` by its recipe, the same on every machine."""
        return digest(
            {
                "arm": run.arm,
                "density": run.density,
                "seed": run.seed,
                "data": self.data,
                "model": self.network,
                "recipe": self.recipe(run, device, data, ranks),
            }
        )


def _known(name: str, given: Sequence[str], known: Sequence[str] | Mapping[str, Any]) -> None:
    for value in given:
        if value not in known:
            raise ValueError(f"expected {name} as one of {', '.join(known)}; got {value!r}")


def _distinct(name: str, values: Sequence[Any]) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"expected each {name} once, got {', '.join(map(str, values))}")


def _at_least(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"expected {name} as an int >= {least}, got {value!r}")
