"""Where torch's own kernels fail, ours must not; and what autocast and meta tensors do."""

from __future__ import annotations

import pytest
import torch

from hrbp_core import BlockPattern, BlockSparseConv2d, block_sparse_conv2d, reference
from hrbp_core.kernels import cpu, grouped
from hrbp_core.shapes import pair


def test_bfloat16_strides_wider_than_the_image():
    """oneDNN's bfloat16 convolution crashes or leaves memory unwritten here (torch 2.13)."""
    geometry = ((1, 2), (1, 3), (1, 3))
    torch.manual_seed(0)
    pattern = BlockPattern.dense((25, 19, 2, 1), (5, 19))
    x = torch.randn(1, 19, 4, 1).bfloat16().requires_grad_()
    weight = torch.randn(25, 19, 2, 1).bfloat16()
    values = pattern.pack(weight).requires_grad_()
    y = block_sparse_conv2d(x, values, pattern, None, *geometry)
    dy = torch.randn_like(y)
    dx, dvalues = torch.autograd.grad(y, (x, values), dy)
    expected = (
        reference.fprop(x.detach(), weight, None, *geometry),
        reference.dgrad(dy, weight, x.shape, None, *geometry),
        reference.wgrad(dy, x.detach(), weight.shape, None, *geometry),
    )
    for ours, right in zip((y, dx, pattern.unpack(dvalues)), expected, strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.double(), right, rtol=2**-7, atol=2**-6)


def test_autocast_leaves_float64_and_refuses_integers():
    pattern = BlockPattern.dense((8, 8, 1, 1), 4)
    values = pattern.pack(torch.randn(8, 8, 1, 1))
    with torch.autocast("cpu", torch.bfloat16):
        x = torch.randn(1, 8, 2, 2, dtype=torch.float64)
        assert block_sparse_conv2d(x, values.double(), pattern).dtype == torch.float64
        assert block_sparse_conv2d(x.float(), values, pattern).dtype == torch.bfloat16
        with pytest.raises(TypeError, match=r"got torch\.int64"):
            block_sparse_conv2d(x.long(), values, pattern)


def test_forward_on_meta_gives_the_shape():
    layer = BlockSparseConv2d(8, 12, 3, padding=1, density=0.5, block=4).to("meta")
    y = layer(torch.empty(2, 8, 5, 5, device="meta"))
    assert y.shape == (2, 12, 5, 5)


def test_summing_copies_stays_below_the_limit(monkeypatch):
    """The form over filters holds the copies of all buckets at once, in x's size."""
    pattern = BlockPattern.dense((64, 16, 3, 3), (16, 8))
    plan = cpu.plan_for(pattern.entries, pattern.shape, pattern.block)
    seen = []
    real = grouped._input_gradient

    def spy(*args):
        out = real(*args)
        seen.append(out.numel() * out.element_size())
        return out

    monkeypatch.setattr(grouped, "_input_gradient", spy)
    monkeypatch.setattr(grouped, "GATHER_LIMIT_BYTES", 64 * 1024)
    dy = torch.randn(8, 64, 12, 12)
    grouped._dgrad_over_filters(
        dy, pattern.pack(torch.randn(64, 16, 3, 3)), plan, (14, 14), GEOMETRY
    )
    assert len(seen) > 1
    assert max(seen) <= 64 * 1024


GEOMETRY = ((1, 1), (0, 0), (1, 1))


@pytest.mark.parametrize("value", [None, 1.5, "11", (1, 2.0), True])
def test_pairs_of_anything_else(value):
    with pytest.raises(TypeError, match="expected stride as an int or two ints, got"):
        pair(value, "stride", least=1)
