"""The CPU path at its edges: memory layouts, empty batches, single pixels, unwritten memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hrbp_core.shapes import ConvShape
from tests.cpu_checks import (
    BOTH,
    CL,
    FORMS,
    LOW,
    Results,
    check,
    layer,
    oracle,
    ours,
    through_autograd,
)
from tests.pattern_samples import PRIMES, STYLES, Problem, random_pattern

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "nchw": lambda t: t.contiguous(),
    "nhwc": lambda t: t.contiguous(memory_format=CL),
    "sliced": lambda t: torch.cat((t, t), 3)[..., : t.shape[3]],
    "every second": lambda t: t.repeat_interleave(2, 0)[::2],
    "transposed": lambda t: t.mT.contiguous().mT,
    "batch last": lambda t: t.movedim(0, 3).contiguous().movedim(3, 0),
    "offset": lambda t: torch.cat((t.new_zeros(1), t.reshape(-1)))[1:].view(t.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("style", STYLES)
def test_any_memory_layout(layout: str, style: str) -> None:
    problem = layer(style)

    def run(problem: Problem, x: Tensor, values: Tensor, dy: Tensor) -> Results:
        x, dy = LAYOUTS[layout](x), LAYOUTS[layout](dy)
        return ours(problem, x, values, dy)

    check(problem, torch.float64, run)


@pytest.mark.parametrize("style", STYLES)
def test_expanded_tensors(style: str) -> None:
    problem = layer(style)
    x, values, dy = problem.tensors(torch.float64)
    x, dy = x[:1, :, :, :1].expand(x.shape), dy[:1, :1].expand(dy.shape)
    expected = oracle(problem, x.contiguous(), values, dy.contiguous())
    for name, result in ours(problem, x, values, dy).items():
        torch.testing.assert_close(result, expected[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *LOW])
def test_a_batch_of_none(style: str, dtype: torch.dtype) -> None:
    problem = layer(style, n=1)
    x, values, dy = problem.tensors(dtype)
    shapes = {"fprop": dy[:0].shape, "dgrad": x[:0].shape, "wgrad": values.shape}
    runs: list[Callable[..., Results]] = [ours, *FORMS, through_autograd]
    for run in runs:
        for name, result in run(problem, x[:0], values, dy[:0]).items():
            assert result.shape == shapes[name]
            assert result.dtype == dtype
            assert not result.any()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("channels", PRIMES[:4])
def test_images_of_one_pixel(style: str, n: int, channels: int) -> None:
    pattern = random_pattern((channels, channels, 1, 1), (1, channels), 0, style)
    shape = ConvShape(n, channels, 1, 1, channels, 1, 1)
    for run in (ours, through_autograd):
        check(Problem(pattern, shape, 0), torch.float64, run)
        check(Problem(pattern, shape, 0), torch.float32, run)


@pytest.mark.parametrize("style", STYLES)
def test_inputs_are_not_modified(style: str) -> None:
    problem = layer(style, some_taps=True)
    tensors = problem.tensors(torch.float32)
    before = [t.clone() for t in tensors]
    ours(problem, *tensors)
    for form in FORMS:
        form(problem, *tensors)
    for tensor, copy in zip(tensors, before, strict=True):
        assert torch.equal(tensor, copy)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("some_taps", BOTH)
@pytest.mark.parametrize("permuted", BOTH)
@pytest.mark.parametrize("style", STYLES)
def test_every_element_is_written(style: str, permuted: bool, some_taps: bool) -> None:
    problem = layer(style, permuted=permuted, some_taps=some_taps)
    for dtype in (torch.float64, torch.bfloat16):
        check(problem, dtype, through_autograd)
        if not permuted:
            for form in FORMS:
                check(problem, dtype, form)


@pytest.mark.parametrize("permuted", BOTH)
def test_what_lies_in_padding_does_not_count(permuted: bool) -> None:
    problem = layer("dense", permuted=permuted)
    padding = problem.pattern.pack(torch.ones(problem.pattern.shape)) == 0
    assert padding.any()

    def run(problem: Problem, x: Tensor, values: Tensor, dy: Tensor) -> Results:
        return through_autograd(problem, x, torch.where(padding, 1e6, values), dy)

    check(problem, torch.float64, run)
