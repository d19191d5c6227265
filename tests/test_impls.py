"""Every baseline against the oracle, and every refusal with its reason."""

from __future__ import annotations

import gc
from dataclasses import replace
from itertools import count

import pytest
import torch

from bench import impls
from bench.impls import cusparse_bsr, cusparse_ell, two_four
from bench.problem import Problem, Unsupported, is_right
from bench.records import Case, Recipe
from hrbp_core.shapes import ConvShape, Pass
from tests.cusparse_stand_in import StandIn

PHASES = count(1)
GEOMETRIES = {
    "same": {"padding": (1, 1)},
    "strided": {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)},
}


def make_case(conv_pass, dtype="float32", layout="canonical", geometry="same", **changes):
    extents = {"N": 2, "C": 32, "H": 7, "W": 9, "K": 48, "R": 3, "S": 2} | changes
    shape = ConvShape(**extents, **GEOMETRIES[geometry])
    entries = round(0.5 * -(-shape.K // 16) * -(-shape.C // 16)) * shape.R * shape.S
    recipe = Recipe("hrbp2", 0.5, (16, 16))
    return Case("test", "layer", shape, dtype, "cpu", conv_pass, recipe, entries, layout)


def errors(problem, prepared):
    """Errors on values that no implementation has seen when it was prepared."""
    problem.refresh(next(PHASES))
    prepared.follow()
    out = prepared.to_oracle(prepared.run())
    return problem.errors(out, masked=prepared.masked, oracle=prepared.oracle)


def on_cpu():
    return [n for n in impls.IMPLS if not n.startswith("cusparse") and n != "two_four"]


@pytest.mark.parametrize("layout", ["canonical", "standalone"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("conv_pass", list(Pass))
def test_every_baseline_agrees_with_its_oracle(conv_pass, geometry, dtype, layout):
    problem = Problem.of(make_case(conv_pass, dtype, layout, geometry))
    for name in on_cpu():
        if name.startswith("torch_bsr") and (conv_pass is Pass.WGRAD or layout == "standalone"):
            continue  # refused, see below
        assert is_right(errors(problem, impls.load(name).prepare(problem))), name


@pytest.mark.parametrize("method", ["hrbp", "hrbp_pp"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("conv_pass", list(Pass))
def test_one_sided_patterns_agree_too(conv_pass, geometry, method):
    case = make_case(conv_pass, "float64", "standalone", geometry)
    problem = Problem.of(replace(case, recipe=replace(case.recipe, method=method)))
    assert not problem.pattern.partitioned
    ran = []
    for name in on_cpu():
        try:
            prepared = impls.load(name).prepare(problem)
        except Unsupported:
            continue
        assert is_right(errors(problem, prepared)), name
        ran.append(name)
    assert {"block_sparse", "dense", "masked_dense"} <= set(ran)


@pytest.mark.parametrize("name", on_cpu())
def test_an_error_in_the_weight_is_seen(name):
    """The comparison is no tautology: other weights than the oracle's must show."""
    problem = Problem.of(make_case(Pass.FPROP))
    prepared = impls.load(name).prepare(problem)
    out = prepared.to_oracle(prepared.run()) * 1.001
    found = problem.errors(out, masked=prepared.masked, oracle=prepared.oracle)
    assert not is_right(found)


def refusal(name, case):
    with pytest.raises(Unsupported) as caught:
        impls.load(name).prepare(Problem.of(case))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("csr", {"dtype": "bfloat16"}, "no kernel: MKL multiplies CSR in float32 and float64"),
        ("csr_product", {"dtype": "float16"}, "no kernel: MKL"),
        ("torch_bsr", {"dtype": "bfloat16"}, "no kernel: MKL multiplies BSR"),
        ("torch_bsr", {"layout": "standalone"}, "needs a canonical pattern"),
        ("torch_bsr_product", {"K": 40}, "whose groups are whole"),
        ("plain_grouped", {"C": 33, "K": 32}, "no groups near 1/density"),
        ("cusparse_bsr", {}, "runs on CUDA alone"),
        ("cusparse_ell", {}, "runs on CUDA alone"),
        ("two_four", {}, "no 2:4 kernels on a CPU"),
    ],
)
def test_what_cannot_run_says_why(name, change, reason):
    assert reason in refusal(name, make_case(Pass.FPROP, **change))


def test_torch_has_no_sddmm_on_bsr():
    assert "no SDDMM" in refusal("torch_bsr", make_case(Pass.WGRAD))


def test_smaller_layers_have_about_equal_flops():
    problem = Problem.of(make_case(Pass.FPROP))
    wanted = problem.case.shape.flops(problem.case.stored_weights)
    for name in ("plain_grouped", "thin_dense"):
        assert impls.load(name).prepare(problem).flops == pytest.approx(wanted, rel=0.05)


def with_device(problem, device):
    """The case as if on a device; its tensors stay here."""
    return replace(problem, case=replace(problem.case, device=device))


@pytest.mark.parametrize("module", [cusparse_bsr, cusparse_ell])
@pytest.mark.parametrize("conv_pass", list(Pass))
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_cusparse_gets_the_right_arguments(module, conv_pass, geometry):
    problem = with_device(Problem.of(make_case(conv_pass, geometry=geometry)), "cuda")
    library = StandIn()
    if module is cusparse_ell and conv_pass is Pass.WGRAD:
        with pytest.raises(Unsupported, match="no SDDMM on Blocked-ELL"):
            module.prepare_with(problem, library)
        return
    prepared = module.prepare_with(problem, library)
    assert is_right(errors(problem, prepared))
    del prepared
    gc.collect()
    assert not library.alive  # every descriptor and the handle are destroyed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": "float64"}, "no block formats in float64"),
        ({"layout": "standalone"}, "canonical"),
    ],
)
def test_cusparse_refuses(change, reason):
    problem = with_device(Problem.of(make_case(Pass.FPROP, **change)), "cuda")
    with pytest.raises(Unsupported, match=reason):
        cusparse_bsr.prepare(problem)


def test_two_of_every_four_are_kept():
    mask = two_four.two_of_four(torch.tensor([[1.0, -4, 3, 2, 0, 0.1, -0.2, 0.3]]))
    assert mask.tolist() == [[0, 1, 1, 0, 0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": "float32"}, "needs float16 or bfloat16"),
        ({"dtype": "float16"}, "1x1 layers"),
    ],
)
def test_two_four_refuses(change, reason):
    problem = with_device(Problem.of(make_case(Pass.FPROP, **change)), "cuda")
    with pytest.raises(Unsupported, match=reason):
        two_four.prepare(problem)
