"""The CPU path is right: every pass and form, dtype, block, and batch piece."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hrbp_core.kernels import grouped
from hrbp_core.pattern import BlockPattern
from hrbp_core.shapes import ConvShape
from tests.cpu_checks import (
    BOTH,
    FORMS,
    LOW,
    by_convolutions,
    check,
    layer,
    ours,
    plan_of,
    through_autograd,
)
from tests.pattern_samples import Problem, problems, random_pattern


@settings(max_examples=60)
@given(problems(most_channels=67))
def test_three_passes_in_float64(problem: Problem) -> None:
    check(problem, torch.float64, ours)


@settings(max_examples=60)
@given(problems())
def test_both_backward_forms_in_float64(problem: Problem) -> None:
    for form in FORMS:
        check(problem, torch.float64, form)


@given(problems(permuted=True))
def test_permuted_patterns_in_float64(problem: Problem) -> None:
    check(problem, torch.float64, through_autograd)


@given(problems(permuted=True, most_channels=67))
def test_autograd_in_float32(problem: Problem) -> None:
    check(problem, torch.float32, through_autograd)


@given(problems())
def test_both_backward_forms_in_float32(problem: Problem) -> None:
    for form in FORMS:
        check(problem, torch.float32, form)


@pytest.mark.parametrize("dtype", LOW)
@settings(max_examples=20)
@given(problem=problems(narrow=False))
def test_three_passes_in_half_precision(dtype: torch.dtype, problem: Problem) -> None:
    check(problem, dtype, ours)


@pytest.mark.parametrize("dtype", LOW)
@settings(max_examples=20)
@given(problem=problems(narrow=False))
def test_both_backward_forms_in_half_precision(dtype: torch.dtype, problem: Problem) -> None:
    for form in FORMS:
        check(problem, dtype, form)


@pytest.mark.parametrize("dtype", [torch.float32, *LOW])
@pytest.mark.parametrize("block", [(32, 32), (64, 16), (8, 64), (1, 1)])
@pytest.mark.parametrize("style", ["random", "equal_rows", "diagonal"])
def test_layers_of_usual_size(dtype: torch.dtype, block: tuple[int, int], style: str) -> None:
    if block == (1, 1):
        k, c = 24, 16
    else:
        k, c = 128, 192
    pattern = random_pattern((k, c, 3, 3), block, 5, style)
    shape = ConvShape(2, c, 9, 8, k, 3, 3, (2, 1), (1, 1))
    for run in (ours, by_convolutions):
        check(Problem(pattern, shape, 1), dtype, run)


@pytest.mark.parametrize("limit", [1, 20_000, 60_000])
@pytest.mark.parametrize("style", ["random", "same_columns"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_batches_in_pieces(
    limit: int, style: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = layer(style)
    whole = ours(problem, *problem.tensors(torch.float64))
    monkeypatch.setattr(grouped, "GATHER_LIMIT_BYTES", limit)
    check(problem, dtype, ours)
    for form in FORMS:
        check(problem, dtype, form)
    again = ours(problem, *problem.tensors(torch.float64))
    for name in ("fprop", "dgrad"):
        torch.testing.assert_close(again[name], whole[name], rtol=1e-13, atol=1e-13)


@given(batch=st.integers(0, 9), image_bytes=st.integers(0, 400))
def test_pieces_cover_the_batch_below_the_limit(batch: int, image_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouped, "GATHER_LIMIT_BYTES", 100)
        pieces = grouped._pieces(batch, image_bytes)
    images = list(range(batch))
    assert [i for piece in pieces for i in images[piece]] == images
    assert all(len(images[p]) in (0, 1) or len(images[p]) * image_bytes <= 100 for p in pieces)
    assert pieces


@pytest.mark.parametrize("transposed", BOTH)
def test_the_cheaper_cut_is_taken(transposed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One long filter group costs 8 + 3 + 7 + 3 over filters, 8 * 2 + 3 over channels."""
    kept = torch.eye(8, dtype=torch.bool)
    kept[0] = True
    tables = (torch.arange(16).view(8, 2), torch.arange(16).view(8, 2))
    kept = kept.T if transposed else kept
    pattern = BlockPattern.from_blocks((16, 16, 1, 1), (2, 2), *tables, kept)
    problem = Problem(pattern, ConvShape(1, 16, 2, 2, 16, 1, 1), 0)
    costs = (plan_of(problem).by_filter.cost, plan_of(problem).by_channel.cost)
    assert costs == ((19, 21) if transposed else (21, 19))
    taken: list[tuple] = []

    def watch(name: str) -> None:
        real = getattr(grouped, name)

        def record(*args: object) -> Tensor:
            taken.append((name, args[4] if name == "_wgrad_piece" else None))
            return real(*args)

        monkeypatch.setattr(grouped, name, record)

    for name in ("_dgrad_over_channels", "_dgrad_over_filters", "_wgrad_piece"):
        watch(name)
    ours(problem, *problem.tensors(torch.float32))
    over = "filters" if transposed else "channels"
    assert taken == [(f"_dgrad_over_{over}", None), ("_wgrad_piece", transposed)]
