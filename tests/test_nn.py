"""BlockSparseConv2d: the same function as torch's layer, start, copies, casts, training."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.pattern import BlockPattern
from tests.pattern_samples import random_pattern

SHAPE = (12, 10, 3, 3)
CANONICAL = random_pattern(SHAPE, (4, 3), 0)
PERMUTED = random_pattern(SHAPE, (4, 3), 1, permuted=True, some_taps=True)
BOTH = pytest.mark.parametrize("pattern", [CANONICAL, PERMUTED], ids=["canonical", "permuted"])


def layer(pattern: BlockPattern = PERMUTED, **options) -> BlockSparseConv2d:
    return BlockSparseConv2d(10, 12, 3, padding=1, pattern=pattern, **options)


def image(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 10, 6, 5, generator=torch.Generator().manual_seed(0)).to(dtype)


def assert_same(one: nn.Module, other: nn.Module, x: torch.Tensor | None = None) -> None:
    x = image() if x is None else x
    torch.testing.assert_close(one(x), other(x), rtol=1e-5, atol=1e-5)


@BOTH
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
        {"padding": "same", "dilation": (2, 1)},
        {"padding": "valid"},
        *({"padding": (1, 2), "padding_mode": mode} for mode in ("reflect", "replicate")),
        {"padding": 2, "padding_mode": "circular", "stride": 2},
        {"padding": "same", "padding_mode": "reflect"},
        {"padding": 0, "padding_mode": "circular"},
    ],
)
def test_from_dense_and_back_keep_the_function(pattern, bias: bool, options: dict) -> None:
    conv = nn.Conv2d(10, 12, 3, bias=bias, **options)
    with torch.no_grad():
        conv.weight.mul_(pattern.mask())
    sparse = BlockSparseConv2d.from_dense(conv, pattern)
    assert_same(sparse, conv)
    assert_same(sparse.to_dense(), conv)
    assert torch.equal(sparse.to_dense().weight, conv.weight)
    assert sparse.pattern == pattern
    assert (sparse.bias is None) == (not bias)
    back = sparse.to_dense()
    assert isinstance(back, nn.Conv2d)
    assert back.extra_repr() == conv.extra_repr()


def test_from_dense_drops_what_the_pattern_drops_and_copies_the_rest() -> None:
    conv = nn.Conv2d(10, 12, 3, dtype=torch.float64).eval()
    sparse = BlockSparseConv2d.from_dense(conv, PERMUTED)
    assert torch.equal(sparse.to_dense().weight, conv.weight * PERMUTED.mask())
    assert sparse.values.dtype == torch.float64
    assert not sparse.training
    assert not sparse.to_dense().training
    with torch.no_grad():
        for parameter in sparse.parameters():
            parameter.zero_()
    assert all(parameter.any() for parameter in conv.parameters())


@pytest.mark.parametrize(
    ("conv", "message"),
    [
        (nn.Conv2d(10, 12, 3, groups=2), "expected a convolution with groups=1, got groups=2"),
        (nn.Conv2d(10, 12, 1), r"expected a pattern of shape \(12, 10, 1, 1\), got \(12, 10, 3"),
    ],
)
def test_from_dense_refuses_what_it_cannot_keep(conv: nn.Conv2d, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlockSparseConv2d.from_dense(conv, PERMUTED)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize(
    ("kernel", "dilation"), [((3, 2), (1, 2)), ((2, 4), (1, 1)), ((4, 3), (3, 1)), ((2, 3), (1, 2))]
)
def test_same_padding_of_even_kernels(kernel: tuple, dilation: tuple, mode: str) -> None:
    conv = nn.Conv2d(10, 12, kernel, padding="same", dilation=dilation, padding_mode=mode)  # type: ignore[arg-type]
    pattern = random_pattern((12, 10, *kernel), (4, 3), 0, "dense")
    x = image(torch.float64).requires_grad_()
    conv, sparse = conv.double(), BlockSparseConv2d.from_dense(conv, pattern).double()
    torch.testing.assert_close(sparse(x), conv(x))
    ours, theirs = (torch.autograd.grad(m(x).square().sum(), x)[0] for m in (sparse, conv))
    torch.testing.assert_close(ours, theirs)


def test_from_dense_keeps_what_is_frozen_and_draws_nothing() -> None:
    conv = nn.Conv2d(10, 12, 3).requires_grad_(False)
    before = torch.get_rng_state()
    sparse = BlockSparseConv2d.from_dense(conv, PERMUTED)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(parameter.requires_grad for parameter in sparse.parameters())
    assert not any(parameter.requires_grad for parameter in sparse.to_dense().parameters())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "expected either a pattern or a density"),
        ({"pattern": PERMUTED, "density": 0.5}, ValueError, "expected either a pattern or a dens"),
        ({"pattern": PERMUTED, "kernel_size": 1}, ValueError, "expected a pattern of shape"),
        ({"pattern": PERMUTED, "padding": "some"}, ValueError, "expected padding as ints, 'valid'"),
        ({"pattern": PERMUTED, "padding": "same", "stride": 2}, ValueError, "expected stride 1 wi"),
        ({"pattern": PERMUTED, "padding_mode": "mirror"}, ValueError, "expected padding_mode as"),
        ({"pattern": PERMUTED, "stride": 0}, ValueError, "expected stride as"),
        ({"density": 0.0, "block": 2}, ValueError, "density"),
        ({"density": 0.5, "block": 13}, ValueError, "expected a block no larger"),
    ],
)
def test_errors_of_construction(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BlockSparseConv2d(10, 12, **{"kernel_size": 3} | options)


def test_a_density_makes_a_canonical_pattern_of_about_that_density() -> None:
    sparse = BlockSparseConv2d(64, 32, 3, density=0.25, block=8)
    assert sparse.pattern.is_canonical
    assert sparse.pattern.density == 0.25
    assert sparse.pattern == BlockSparseConv2d(64, 32, 3, density=0.25, block=8).pattern
    assert sparse.pattern != BlockSparseConv2d(64, 32, 3, density=0.25, block=8, seed=1).pattern


def test_attributes() -> None:
    sparse = BlockSparseConv2d(10, 12, 3, (2, 1), 1, 2, False, pattern=PERMUTED)
    assert (sparse.in_channels, sparse.out_channels, sparse.kernel_size) == (10, 12, (3, 3))
    assert (sparse.stride, sparse.padding, sparse.dilation) == ((2, 1), (1, 1), (2, 2))
    assert sparse.block == (4, 3)
    assert [name for name, _ in sparse.named_parameters()] == ["values"]
    assert tuple(sparse.values.shape) == PERMUTED.values_shape
    for part in ("10, 12, kernel_size=(3, 3), stride=(2, 1), padding=(1, 1)", "dilation=(2, 2)",
                 "bias=False", "block=(4, 3)", f"stored={PERMUTED.work:.4g}"):  # fmt: skip
        assert part in repr(sparse)


def test_initial_values_fill_the_bound_of_each_filters_real_fan_in() -> None:
    kept = torch.zeros(4, 8, dtype=torch.bool)
    kept[0, :1] = kept[1, :4] = kept[2, :8] = True
    tables = (torch.arange(64).view(4, 16), torch.arange(128).view(8, 16))
    pattern = BlockPattern.from_blocks((64, 128, 3, 3), (16, 16), *tables, kept)
    torch.manual_seed(0)
    sparse = BlockSparseConv2d(128, 64, 3, pattern=pattern)
    weight, bias = (p.detach() for p in sparse.to_dense().parameters())
    for group, blocks in enumerate((1, 4, 8)):
        bound = (blocks * 16 * 9) ** -0.5
        rows = slice(16 * group, 16 * group + 16)
        most = float(weight[rows].abs().max())
        assert 0.98 * bound < most <= bound
        assert 0.4 * bound < float(bias[rows].abs().max()) <= bound
        kept_weights = weight[rows][weight[rows] != 0]
        assert float(kept_weights.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not weight[48:].any()
    assert float(bias[48:].abs().max()) <= 1


def test_the_dense_pattern_starts_as_torch_does() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(10, 12, 3)
    torch.manual_seed(0)
    sparse = BlockSparseConv2d(10, 12, 3, pattern=BlockPattern.dense(SHAPE, (4, 5)))
    torch.testing.assert_close(sparse.to_dense().weight, conv.weight)
    torch.testing.assert_close(sparse.bias, conv.bias)


@BOTH
def test_copies_are_equal_and_apart(pattern: BlockPattern) -> None:
    one = layer(pattern)
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert torch.equal(one(image()), other(image()))
        assert other.pattern == pattern
        expected = one(image())
        with torch.no_grad():
            other.values.zero_()
        assert torch.equal(one(image()), expected)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_casts_leave_indices_alone(pattern: BlockPattern, dtype: torch.dtype) -> None:
    one = layer(pattern)
    other = copy.deepcopy(one).to(dtype)
    assert all(not buffer.is_floating_point() for buffer in other.buffers())
    assert all(parameter.dtype == dtype for parameter in other.parameters())
    y = other(image(dtype))
    assert y.dtype == dtype
    assert float((y - one(image())).detach().norm()) <= 0.02 * float(one(image()).detach().norm())
    assert layer(pattern, dtype=dtype)(image(dtype)).dtype == dtype


@BOTH
def test_training_decreases_the_loss(pattern: BlockPattern) -> None:
    torch.manual_seed(0)
    sparse, target = layer(pattern), layer(pattern)
    optimizer = torch.optim.SGD(sparse.parameters(), lr=0.1, momentum=0.9)
    x, losses = torch.randn(8, 10, 6, 6), []
    for _ in range(20):
        loss = (sparse(x) - target(x).detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    assert not sparse.to_dense().weight[~pattern.mask()].any()
