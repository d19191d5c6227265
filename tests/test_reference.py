"""The oracle is judged by two others: torch's own convolution, and plain Python loops."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from hrbp_core import reference
from tests.pattern_samples import geometries


@given(
    drawn=geometries(),
    n=st.integers(1, 3),
    k=st.integers(1, 7),
    c=st.integers(1, 7),
    masked=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    seed=st.integers(0, 999),
)
def test_agrees_with_torch_in_float64(drawn, n, k, c, masked, dtype, seed) -> None:
    r, s, geometry, (h, w) = drawn
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, c, h, w, generator=generator).to(dtype)
    weight = torch.randn(k, c, r, s, generator=generator).to(dtype)
    mask = torch.rand(k, c, r, s, generator=generator) < 0.5 if masked else None
    keep = 1.0 if mask is None else mask.double()
    x64, w64 = x.double().requires_grad_(), (weight.double() * keep).requires_grad_()
    y64 = functional.conv2d(x64, w64, None, *geometry)
    dy = torch.randn(y64.shape, generator=generator).to(dtype)
    dx64, dw64 = torch.autograd.grad(y64, (x64, w64), dy.double())
    passes = (
        (reference.fprop(x, weight, mask, *geometry), y64),
        (reference.dgrad(dy, weight, x.shape, mask, *geometry), dx64),
        (reference.wgrad(dy, x, weight.shape, mask, *geometry), dw64 * keep),
    )
    for ours, theirs in passes:
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_agrees_with_plain_loops() -> None:
    """y[n,k,p,q] = sum of w[k,c,r,s] * x[n,c,p*u+r*d-a,q*v+s*e-b], and its two transposes."""
    (u, v), (a, b), (d, e) = geometry = ((2, 1), (1, 2), (1, 2))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, 3, 3, 2, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 3, 3, 2, generator=generator) < 0.6
    y = torch.zeros(2, 2, 3, 6, dtype=torch.float64)
    dy = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    dx, dweight = torch.zeros_like(x), torch.zeros_like(weight)
    for n, k, c, r, s, p, q in itertools.product(*map(range, (2, 2, 3, 3, 2, 3, 6))):
        i, j = p * u + r * d - a, q * v + s * e - b
        if mask[k, c, r, s] and 0 <= i < 5 and 0 <= j < 4:
            y[n, k, p, q] += weight[k, c, r, s] * x[n, c, i, j]
            dx[n, c, i, j] += weight[k, c, r, s] * dy[n, k, p, q]
            dweight[k, c, r, s] += x[n, c, i, j] * dy[n, k, p, q]
    torch.testing.assert_close(reference.fprop(x, weight, mask, *geometry), y)
    torch.testing.assert_close(reference.dgrad(dy, weight, x.shape, mask, *geometry), dx)
    torch.testing.assert_close(reference.wgrad(dy, x, weight.shape, mask, *geometry), dweight)


def test_what_the_mask_drops_has_no_say() -> None:
    weight = torch.full((2, 2, 1, 1), float("nan"))
    mask = torch.zeros(2, 2, 1, 1, dtype=torch.bool)
    x = torch.ones(1, 2, 3, 3)
    assert torch.equal(reference.fprop(x, weight, mask), torch.zeros(1, 2, 3, 3).double())
    assert torch.equal(reference.dgrad(x, weight, x.shape, mask), torch.zeros(1, 2, 3, 3).double())
    dweight = reference.wgrad(x * float("inf"), x, weight.shape, mask)
    assert torch.equal(dweight, torch.zeros(2, 2, 1, 1).double())


def test_arguments_are_left_alone() -> None:
    x, weight = torch.randn(1, 2, 4, 4), torch.randn(2, 2, 3, 3)
    mask = torch.zeros(2, 2, 3, 3, dtype=torch.bool)
    copies = x.clone(), weight.clone()
    reference.fprop(x, weight, mask, padding=1)
    reference.wgrad(x, x, weight.shape, mask, padding=1)
    assert torch.equal(x, copies[0])
    assert torch.equal(weight, copies[1])


X, W, DY = torch.zeros(2, 3, 5, 4), torch.zeros(4, 3, 3, 2), torch.zeros(2, 4, 3, 3)
OTHER_MASK = torch.ones(3, 3, 2, dtype=torch.bool)  # would broadcast
REFUSED = [
    (lambda: reference.fprop(X[:, :2], W), "expected x with 3 channels, got 2"),
    (lambda: reference.fprop(X, W, stride=0), "expected stride as"),
    (lambda: reference.fprop(X, W, padding=-1), "expected padding as"),
    (lambda: reference.fprop(X, W, dilation=3), "expected an output with pixels"),
    (lambda: reference.fprop(X, W, OTHER_MASK), r"expected mask \[4, 3, 3, 2\], got \[3, 3, 2\]"),
    (lambda: reference.dgrad(DY, W, (2, 2, 5, 4)), "expected x with 3 channels, got 2"),
    (lambda: reference.dgrad(DY.mT[:, :, :, :2], W, X.shape), r"expected dy \[2, 4, 3, 3\], got"),
    (lambda: reference.dgrad(DY.transpose(0, 1), W, X.shape), r"expected dy \[2, 4, 3, 3\], got"),
    (lambda: reference.dgrad(DY, W, X.shape, OTHER_MASK), "expected mask"),
    (lambda: reference.wgrad(DY, X, (4, 2, 3, 2)), "expected x with 2 channels, got 3"),
    (lambda: reference.wgrad(DY.transpose(0, 1), X, W.shape), "expected dy"),
    (lambda: reference.wgrad(DY, X, W.shape, OTHER_MASK), "expected mask"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_errors(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
