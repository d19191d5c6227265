"""What an accuracy sweep is to do: data, arms, densities, seeds, recipe. No torch.

The arms of one seed share their dense initialisation, their scores, the order of their batches
and their recipe; they differ in which weights are kept and in how these are stored.

==============  =========================================================================
``dense``       every weight; once a seed
``unstructured``  the best single weights of each layer, as a mask over dense weights
``aligned``     the best blocks where they lie, as packed values
``hrbp2``       the best blocks after filters and channels are regrouped, as packed values
==============  =========================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.records import digest
from hrbp_core.shapes import FilterShape, Pair, block_grid, least_density, pair

DENSE = "dense"
UNSTRUCTURED = "unstructured"
REGROUPED = ("aligned", "hrbp2")
ARMS = (DENSE, UNSTRUCTURED, *REGROUPED)
BALANCES = ("none", "filters", "both")
SCORES = ("snip", "magnitude", "random")
DEVICES = ("auto", "cpu", "cuda")
LEAST_STEP_ROUNDS = 15


@dataclass(frozen=True)
class DataFacts:
    """One data set and the network that is trained on it.

    Attributes:
        model: the network's name.
        sparse_shapes: (K, C, R, S) of every layer that an arm makes sparse, in order.
        train_images, test_images: how many there are.
    """

    model: str
    sparse_shapes: tuple[FilterShape, ...]
    train_images: int
    test_images: int


DATA: Mapping[str, DataFacts] = {
    "digits": DataFacts("digits-cnn", ((128, 128, 3, 3),) * 4, 1200, 597),
}


@dataclass(frozen=True)
class Run:
    """One training run of a plan; ``density`` is 1.0 for the dense arm."""

    arm: str
    density: float
    seed: int


@dataclass(frozen=True)
class AccuracyPlan:
    """Which networks to train, and how: every run of a sweep shares all but arm, density, seed.

    Attributes:
        data: a name in ``DATA``; it brings its network.
        arms: names in ``ARMS``.
        densities: kept fraction of every sparse layer, each in (0, 1].
        seeds: how many; the seeds are 0, 1, ..., seeds - 1.
        epochs, batch, lr, momentum, weight_decay: of SGD with Nesterov's momentum; the learning
            rate rises over the first quarter of the steps and falls to zero (one-cycle, cosine).
        block: (block_k, block_c) of the arms that keep blocks.
        balance, coverage: as in ``hrbp_core.regroup``, for the arms that keep blocks.
        scores: what decides which weights are kept: "snip" (|weight x gradient| of the dense
            network at initialisation, one batch), "magnitude" or "random".
        rescale: multiply each filter's kept weights by sqrt(all / kept) at the start, so that
            its outputs keep their variance; for all sparse arms alike. Off by default: behind
            BatchNorm it only lowers the effective learning rate, and every sparse arm trained
            as well or better without (digits at 0.125, four seeds: 0.1 to 0.8 points).
        device: "auto", "cpu" or "cuda".
        step_rounds: alternating rounds of step times after each sparse run.

    Raises:
        ValueError: an unknown name, a number out of range, or a density that a block pattern
            cannot reach; the text says what was expected.
    """

    data: str = "digits"
    arms: tuple[str, ...] = ARMS
    densities: tuple[float, ...] = (0.5, 0.25, 0.125)
    seeds: int = 3
    epochs: int = 3
    batch: int = 50
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    block: Pair = (16, 16)
    balance: str = "none"
    coverage: bool = True
    scores: str = "snip"
    rescale: bool = False
    device: str = "auto"
    step_rounds: int = LEAST_STEP_ROUNDS

    def __post_init__(self) -> None:
        object.__setattr__(self, "arms", tuple(self.arms))
        object.__setattr__(self, "densities", tuple(float(d) for d in self.densities))
        object.__setattr__(self, "block", pair(self.block, "block", least=1))
        _known("data", [self.data], DATA)
        _known("arm", self.arms, ARMS)
        _known("balance", [self.balance], BALANCES)
        _known("scores", [self.scores], SCORES)
        _known("device", [self.device], DEVICES)
        _distinct("arm", self.arms)
        _distinct("density", self.densities)
        for name, least in (("seeds", 1), ("epochs", 1), ("batch", 2)):
            _at_least(name, getattr(self, name), least)
        _at_least("step_rounds", self.step_rounds, LEAST_STEP_ROUNDS)
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"expected lr > 0, got {self.lr!r}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"expected momentum in [0, 1), got {self.momentum!r}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"expected weight_decay >= 0, got {self.weight_decay!r}")
        self._check_densities()

    def _check_densities(self) -> None:
        sparse = [arm for arm in self.arms if arm != DENSE]
        if sparse and not self.densities:
            raise ValueError(f"expected at least one density for {', '.join(sparse)}, got none")
        for density in self.densities:
            if not 0 < density <= 1:
                raise ValueError(f"expected a density in (0, 1], got {density!r}")
            for shape in self.facts.sparse_shapes:
                if set(sparse) & set(REGROUPED):
                    self._check_blocks(shape, density)
                if sparse and round(density * math.prod(shape)) < 1:
                    raise ValueError(
                        f"expected a density that keeps a weight of a layer {shape}, "
                        f"got {density!r}"
                    )

    def _check_blocks(self, shape: FilterShape, density: float) -> None:
        gk, gc = block_grid(shape, self.block)
        least = least_density(shape, self.block)
        # without coverage a layer only has to keep a block (regroup's own rule)
        if density < least if self.coverage else round(density * gk * gc) < 1:
            floor = f"at least {least:g}" if self.coverage else f"above {0.5 / (gk * gc):g}"
            raise ValueError(
                f"expected a density of {floor}, the least of {self.facts.model} with blocks of "
                f"{self.block[0]}x{self.block[1]}, got {density:g}"
            )

    @property
    def facts(self) -> DataFacts:
        """The data set's size and network."""
        return DATA[self.data]

    def runs(self) -> list[Run]:
        """Return the runs in order, seed by seed: a sweep cut short compares whole seeds."""
        sparse = [arm for arm in self.arms if arm != DENSE]
        runs = []
        for seed in range(self.seeds):
            if DENSE in self.arms:
                runs.append(Run(DENSE, 1.0, seed))
            runs += [Run(arm, d, seed) for d in self.densities for arm in sparse]
        return runs

    def recipe(self, run: Run, device: str) -> dict[str, Any]:
        """Return how ``run`` is made, as plain JSON types.

        Args:
            device: "cpu" or "cuda".

        What says how its pattern is made (method, block, balance, coverage, scores) stands
        there for the arms that it concerns; the rest is the same for every arm.
        """
        recipe: dict[str, Any] = {
            "epochs": self.epochs,
            "batch": self.batch,
            "lr": self.lr,
            "optimizer": f"SGD, Nesterov momentum {self.momentum:g}, "
            f"weight decay {self.weight_decay:g}, one-cycle lr",
            "rescaled": self.rescale,
            "precision": "float32",
            "train_images": self.facts.train_images,
            "test_images": self.facts.test_images,
            "device": device,
        }
        if run.arm != DENSE:
            recipe["scores"] = self.scores
        if run.arm in REGROUPED:
            recipe |= {
                "method": run.arm,
                "block": list(self.block),
                "balance": self.balance,
                "coverage": self.coverage,
            }
        return recipe

    def run_id(self, run: Run, device: str) -> str:
        """Name ``run`` by its recipe, the same on every machine."""
        return digest(
            {
                "arm": run.arm,
                "density": run.density,
                "seed": run.seed,
                "data": self.data,
                "model": self.facts.model,
                "recipe": self.recipe(run, device),
            }
        )


def _known(name: str, given: Sequence[str], known: Sequence[str] | Mapping[str, Any]) -> None:
    for value in given:
        if value not in known:
            raise ValueError(f"expected {name} as one of {', '.join(known)}; got {value!r}")
    if not given:
        raise ValueError(f"expected at least one {name} of {', '.join(known)}, got none")


def _distinct(name: str, values: Sequence[Any]) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"expected each {name} once, got {', '.join(map(str, values))}")


def _at_least(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"expected {name} as an int >= {least}, got {value!r}")


PRESETS: Mapping[str, AccuracyPlan] = {"digits": AccuracyPlan()}
