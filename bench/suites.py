"""Named layer tables, and the cases a sweep makes of them. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from bench.layers import RESNET50, VGG16, WRN28_10, Layer
from bench.plans import QUICK as QUICK_PLANS
from bench.plans import Plan, target_layers, target_plans
from bench.records import Case, Recipe
from bench.stop_rule import StopRule
from hrbp_core.shapes import ConvShape, Pair, Pass, block_grid, least_density

# "tf32" is float32 in memory, multiplied as tf32; "float32" never is
DTYPES = ("float32", "tf32", "bfloat16", "float16", "float64")
ONE_SIDED = ("hrbp", "hrbp_pp", "dsb_kernel")  # filter groups choose their own channels
METHODS = ("hrbp2", "aligned", "shuffled", "sorted", "hrbp2_pp", *ONE_SIDED)
RECORDED = StopRule(precision=0.005, cap_s=10)
# With 1 s a cell, the 224 cells of a CPU took 289 s.
QUICK = StopRule(precision=0.02, cap_s=0.8, steady=0.02, warmup_cap_s=0.5)
# Batches that fill the machine without making a quick sweep slow.
BATCH = {"cpu": 8, "cuda": 128}


@dataclass(frozen=True)
class Suite:
    """A table of layers, where it comes from, and the patterns it measures.

    Attributes:
        rule: when a cell of it is warm, and when it has samples enough.
        impls: measured when none are named; all where there are none here.
    """

    name: str
    source: str
    layers: tuple[Layer, ...]
    densities: tuple[float, ...] = (0.5, 0.25, 0.125)
    blocks: tuple[int, ...] = (16, 32, 64)
    plans: tuple[Plan, ...] = ()
    rule: StopRule = RECORDED
    impls: tuple[str, ...] = ()


_HE = "He et al. 2016, arXiv:1512.03385, table 1 (stride in the 3x3 layer, as in torchvision)"

SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "quick",
            _HE,
            tuple(x for x in RESNET50 if x.name in {p.layer for p in QUICK_PLANS}),
            plans=QUICK_PLANS,
            rule=QUICK,
        ),
        Suite("resnet50", _HE, RESNET50),
        Suite(
            "vgg16",
            "Simonyan and Zisserman 2015, arXiv:1409.1556, table 1, column D",
            VGG16,
        ),
        Suite(
            "wrn28_10",
            "Zagoruyko and Komodakis 2016, arXiv:1605.07146, table 1, k = 10",
            WRN28_10,
        ),
        Suite(
            "targets",
            "3x3 layers of resnet50, vgg16 and wrn28_10, mostly at 75 to 90 % sparsity",
            target_layers(),
            plans=tuple(target_plans()),
            rule=QUICK,
            impls=("dense", "block_sparse"),
        ),
    )
}


@dataclass(frozen=True)
class Sweep:
    """What a run measures; None leaves the suite's own choice."""

    suite: str
    device: str
    dtype: str = "float32"
    passes: tuple[Pass, ...] = tuple(Pass)
    densities: tuple[float, ...] | None = None
    blocks: tuple[int, ...] | None = None
    layers: tuple[str, ...] | None = None
    method: str | None = None
    balance: str | None = None
    layout: str | None = None
    batch: int | None = None


@dataclass(frozen=True)
class Infeasible:
    """A pattern a sweep asked for that a layer cannot have, and why."""

    layer: str
    density: float
    block: Pair
    reason: str


def find_suite(name: str) -> Suite:
    """Return the suite, or raise a ValueError that names those that exist."""
    if name not in SUITES:
        raise ValueError(f"expected a suite of {', '.join(SUITES)}; got {name!r}")
    return SUITES[name]


def cases(sweep: Sweep) -> tuple[list[Case], list[Infeasible]]:
    """Return the sweep's cases, and the patterns that no layer can have.

    Raises:
        ValueError: an unknown suite, layer, dtype, method or density outside (0, 1].
    """
    suite = find_suite(sweep.suite)
    _check(sweep, suite)
    wanted, infeasible = [], []
    layers = {layer.name: layer.shape for layer in suite.layers}
    for plan in _plans(sweep, suite):
        shape, block = layers[plan.layer], (plan.block, plan.block)
        shape = replace(shape, N=sweep.batch or BATCH[sweep.device])
        reason = _obstacle(shape, plan)
        if reason:
            infeasible.append(Infeasible(plan.layer, plan.density, block, reason))
            continue
        recipe = Recipe(plan.method, plan.density, block, plan.balance, taps=plan.taps)
        gk, gc = block_grid(shape, plan.block)
        entries = round(plan.density * gk * gc) * shape.R * shape.S
        wanted += [
            Case(
                suite.name, plan.layer, shape, sweep.dtype, sweep.device, conv_pass, recipe,
                entries, plan.layout,
            )
            for conv_pass in sweep.passes
        ]  # fmt: skip
    return wanted, infeasible


def feasible_cases(sweep: Sweep) -> list[Case]:
    """Return the cases of a sweep whose patterns were asked for one by one.

    Raises:
        ValueError: as :func:`cases`; a pattern that its layer cannot have.
    """
    wanted, infeasible = cases(sweep)
    if infeasible:
        first = infeasible[0]
        raise ValueError(f"expected a pattern that {first.layer} can have: {first.reason}")
    return wanted


def suite_of(layer: str) -> Suite:
    """Return the first suite that has a layer of this name.

    Raises:
        ValueError: unknown; names those that exist.
    """
    found = {each.name: suite for suite, each in reversed(layer_table())}
    if layer not in found:
        names = dict.fromkeys(each.name for _, each in layer_table())
        raise ValueError(f"expected a layer of {', '.join(names)}; got {layer!r}")
    return find_suite(found[layer])


def _plans(sweep: Sweep, suite: Suite) -> list[Plan]:
    """Return the sweep's plans: the suite's own, or all that the sweep's lists make."""
    if suite.plans and sweep.densities is None and sweep.blocks is None:
        found = list(suite.plans)
    else:
        found = [
            Plan(layer.name, density, block)
            for layer in suite.layers
            for density in sweep.densities or suite.densities
            for block in sweep.blocks or suite.blocks
        ]
    asked = {n: v for n in ("method", "balance", "layout") if (v := getattr(sweep, n)) is not None}
    if sweep.method is not None:
        asked["taps"] = None
    found = [replace(plan, **asked) for plan in found]
    chosen = (p for p in found if sweep.layers is None or p.layer in sweep.layers)
    return list(dict.fromkeys(chosen))


def _obstacle(shape: ConvShape, plan: Plan) -> str | None:
    block, density = plan.block, plan.density
    if block > min(shape.K, shape.C):
        return f"block {block} is larger than the layer ({shape.K} filters, {shape.C} channels)"
    least = least_density(shape, block) * (plan.taps or shape.R * shape.S) / (shape.R * shape.S)
    if density < least:
        return f"density {density:g} is under the least one that keeps every group, {least:.4g}"
    return None


def _check(sweep: Sweep, suite: Suite) -> None:
    for name, value, choices in (
        ("dtype", sweep.dtype, DTYPES),
        ("method", sweep.method, METHODS),
        ("balance", sweep.balance, ("none", "filters", "both")),
        ("layout", sweep.layout, ("canonical", "standalone")),
        *(("layer", layer, [x.name for x in suite.layers]) for layer in sweep.layers or ()),
    ):
        if value is not None and value not in choices:
            raise ValueError(f"expected a {name} of {', '.join(choices)}; got {value!r}")
    if sweep.method in ONE_SIDED and sweep.layout != "standalone":
        raise ValueError(
            f"expected layout standalone with {sweep.method}, whose channels are gathered in every "
            f"call; got {sweep.layout or 'canonical'}"
        )
    if sweep.dtype == "tf32" and sweep.device != "cuda":
        raise ValueError(f"expected dtype tf32 on cuda alone, got it on {sweep.device}")
    for density in sweep.densities or ():
        if not 0 < density <= 1:
            raise ValueError(f"expected a density in (0, 1], got {density:g}")
    for block in sweep.blocks or ():
        if block < 1:
            raise ValueError(f"expected a block of at least 1, got {block}")
    if sweep.batch is not None and sweep.batch < 1:
        raise ValueError(f"expected a batch of at least 1, got {sweep.batch}")


@cache
def layer_table() -> list[tuple[str, Layer]]:
    """Return (suite, layer) for every layer of every suite."""
    return [(suite.name, layer) for suite in SUITES.values() for layer in suite.layers]


def passes_of(names: tuple[str, ...]) -> tuple[Pass, ...]:
    """Return passes by name, in their usual order.

    Raises:
        ValueError: unknown; names those that exist.
    """
    known = [str(p) for p in Pass]
    for name in names:
        if name not in known:
            raise ValueError(f"expected a pass of {', '.join(known)}; got {name!r}")
    return tuple(p for p in Pass if str(p) in names)
