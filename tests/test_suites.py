"""Suites are feasible, sized as promised, and refuse what they do not know."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import impls, suites
from bench.quality import plan as quality_plan
from bench.records import Cell
from bench.suites import SUITES, Sweep, cases, passes_of
from hrbp_core import regrouping
from hrbp_core.shapes import Pass, least_density


def test_quick_is_feasible_and_small():
    found, infeasible = cases(Sweep("quick", "cpu"))
    cells = {Cell(case, name, "hot").cell_id for case in found for name in impls.IMPLS}
    assert not infeasible
    assert 200 <= len(cells) <= 400
    assert len(cells) == len(found) * len(impls.IMPLS)


def test_quick_holds_the_layers_of_the_headline_figures():
    found, _ = cases(Sweep("quick", "cpu"))
    blocks32 = [c for c in found if c.recipe.block == (32, 32)]
    assert {c.shape.C for c in blocks32 if c.recipe.density == 0.25} == {128, 256, 512}
    assert {c.shape.C for c in blocks32 if c.recipe.density == 0.125} == {256, 512}


@pytest.mark.parametrize("name", SUITES)
def test_cases_have_feasible_patterns_and_published_sizes(name):
    found, infeasible = cases(Sweep(name, "cuda"))
    for case in found:
        share = (case.recipe.taps or case.shape.R * case.shape.S) / (case.shape.R * case.shape.S)
        assert case.recipe.density >= least_density(case.shape, case.recipe.block) * share
        assert case.shape.N == 128
    assert all("density" in i.reason or "block" in i.reason for i in infeasible)


def test_resnet50_has_the_published_flops():
    """4.1 GFLOPs (multiply-adds) for the network; blocks x layers of table 1 without stem, fc."""
    by_name = {x.name: x.shape.flops() / 2 for x in SUITES["resnet50"].layers}
    # conv5_x: 3 blocks; the first strided 3x3 stands apart
    conv5 = by_name["conv5_3x3_s2"] + 2 * by_name["conv5_3x3"]
    assert conv5 == 3 * 512 * 512 * 9 * 49


def test_targets_ask_for_every_kind_of_pattern_and_what_matters_first():
    found, infeasible = cases(Sweep("targets", "cpu", passes=(Pass.FPROP,)))
    kinds = [(c.recipe.method, c.recipe.balance, c.layout, c.recipe.taps) for c in found]
    assert list(dict.fromkeys(kinds)) == [
        ("hrbp2", "none", "canonical", None),
        ("hrbp2", "both", "canonical", None),
        ("hrbp2_pp", "none", "canonical", 4),
        ("hrbp2", "none", "standalone", None),
    ]
    assert not infeasible
    uneven = {(c.layer, c.recipe.density, c.recipe.block) for c in found[: kinds.count(kinds[0])]}
    balanced, alone = kinds.count(("hrbp2", "both", "canonical", None)), kinds.count(kinds[-1])
    assert len(uneven) == kinds.count(kinds[0]) == balanced + 2 == alone + 2
    for case in found:
        narrow = min(case.shape.K, case.shape.C)
        assert case.shape.R == 3
        assert case.recipe.density in ((0.25, 0.125, 0.1) if narrow >= 128 else (0.5,))
        assert case.recipe.block[0] <= narrow / 2


def test_what_is_asked_replaces_what_a_suite_has():
    asked = Sweep("targets", "cpu", passes=(Pass.FPROP,), method="aligned", layers=("conv4_3x3",))
    found, _ = cases(asked)
    kinds = [(c.recipe.method, c.recipe.balance, c.layout, c.recipe.taps) for c in found]
    assert {k[0] for k in kinds} == {"aligned"}
    assert {k[3] for k in kinds} == {None}
    assert len(set(found)) == len(found)


def test_entries_are_the_exact_budget():
    (case, *_), _ = cases(
        Sweep("quick", "cpu", densities=(0.3,), blocks=(32,), layers=("conv4_3x3",))
    )
    assert case.entries == round(0.3 * 64) * 9


def test_methods_are_those_of_the_library():
    # grouped has densities of its own, and dense layers of its form are a baseline already
    assert set(suites.METHODS) == set(regrouping.BLOCK_METHODS) - {"grouped"}


def test_one_sided_methods_gather_in_every_call():
    sweep = Sweep("quick", "cpu", method="hrbp", densities=(0.5,), layout="standalone")
    assert cases(sweep)[0]
    with pytest.raises(ValueError, match=r"expected layout standalone with hrbp, .* got canonical"):
        cases(replace(sweep, layout="canonical"))


def test_quality_methods_are_those_of_the_library():
    assert {*quality_plan.BLOCK_METHODS} == {*regrouping.BLOCK_METHODS}
    assert {*quality_plan.MASK_METHODS} == {*regrouping.MASK_METHODS}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"suite": "nope"}, "expected a suite of quick"),
        ({"dtype": "int8"}, "expected a dtype of float32"),
        ({"method": "magic"}, "expected a method of hrbp2"),
        ({"balance": "some"}, "expected a balance of none"),
        ({"layers": ("conv9",)}, "expected a layer of conv2_3x3"),
        ({"densities": (0.0,)}, r"expected a density in \(0, 1\], got 0"),
        ({"densities": (1.5,)}, r"expected a density in \(0, 1\], got 1.5"),
        ({"blocks": (0,)}, "expected a block of at least 1"),
        ({"batch": 0}, "expected a batch of at least 1"),
    ],
)
def test_bad_sweeps(change, text):
    with pytest.raises(ValueError, match=text):
        cases(Sweep(**({"suite": "quick", "device": "cpu"} | change)))


def test_infeasible_patterns_are_named():
    found, infeasible = cases(Sweep("quick", "cpu", densities=(0.01,), blocks=(32, 999)))
    assert not found
    reasons = " ".join(i.reason for i in infeasible)
    assert "under the least one" in reasons
    assert "block 999 is larger than the layer" in reasons


def test_passes_by_name():
    assert [str(p) for p in passes_of(("wgrad", "fprop"))] == ["fprop", "wgrad"]
    with pytest.raises(ValueError, match="expected a pass of fprop, dgrad, wgrad; got 'forward'"):
        passes_of(("forward",))
