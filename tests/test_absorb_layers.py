"""absorb: all kinds of patterns, what parameters keep, and what can be done with the copy."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from hrbp_core.conversion import to_dense
from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.pattern import BlockPattern
from hrbp_core.permute import CHOSEN, absorb, reordered
from tests.network_checks import (
    absorbed,
    assert_same,
    assert_same_in_both_modes,
    image,
    one_thread,
    randomised,
    sparse,
    train_a_little,
)
from tests.network_samples import CONCATENATED, FLATTENED, PASSED, conv, graph, head
from tests.pattern_samples import random_pattern


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


def residual(*, width: int = 8, **parts: nn.Module) -> Any:
    """Return a network of everything that moves: norms, a shortcut, a concatenation, a view."""

    def run(s: Any, x: torch.Tensor) -> torch.Tensor:
        y = s.bn(s.a(s.stem(x))).relu()
        y = s.p(y + s.c(s.dw(s.bn2(s.b(y)).relu())))
        y = torch.cat((s.d(y), y.abs()), 1)
        y = s.pool(s.w(y)).flatten(1)
        return s.fc(s.norm(y).tanh())

    made: dict[str, Any] = {
        "stem": conv(3, width), "a": conv(width), "b": conv(width, bias=False), "c": conv(width),
        "bn": nn.BatchNorm2d(width), "bn2": nn.BatchNorm2d(width), "d": conv(width, taps=1),
        "dw": conv(width, groups=width), "p": nn.PReLU(width), "w": conv(2 * width, width),
        "pool": nn.AdaptiveMaxPool2d(2), "norm": nn.BatchNorm1d(4 * width),
        "fc": nn.Linear(4 * width, 5),
    }  # fmt: skip
    return graph(run, **(made | parts))


LAYERS = ("a", "b", "c", "d", "w")
METHODS: dict[str, dict[str, Any]] = {
    "shuffled": {"method": "shuffled"},
    "layer by layer": {"method": "shuffled", "joint": False},
    "common taps": {"method": "hrbp2_pp", "taps": "auto"},
    "aligned": {"method": "aligned"},
    "one-sided": {"method": "hrbp", "densities": {"b": 0.5, "c": 0.6, "d": 0.5}},
    "blocks of 4 x 2": {"block": (4, 2)},
    "blocks of 2 x 4": {"block": (2, 4), "joint": False},
    "blocks of 3 x 4": {"block": (3, 4), "densities": 0.7},
    "one-sided blocks of 3": {"method": "hrbp", "block": 3, "densities": {"b": 0.6, "w": 0.5}},
    "half dense": {"densities": {"a": 0.5, "c": 0.5, "w": 0.5}},
    "nothing kept of some": {"densities": {"a": 0.25, "b": 0.5}, "coverage": False},
}


EVEN = [(name, 8) for name in METHODS if "one-sided" not in name]
RAGGED = [(n, 10) for n in METHODS if n == "shuffled" or "one-sided" in n]


@pytest.mark.parametrize(("name", "width"), [*EVEN, *RAGGED, ("blocks of 4 x 2", 10)])
def test_patterns(name: str, width: int) -> None:
    network = sparse(residual(width=width), **METHODS[name])
    copied, report = absorbed(network)
    assert_same_in_both_modes(network, copied)
    assert_weights_moved(network, copied)
    layers = {n: m for n, m in network.named_modules() if isinstance(m, BlockSparseConv2d)}
    if name in ("shuffled", "common taps", "aligned"):
        assert report.canonical == tuple(LAYERS[: 5 if width == 8 else 4]), str(report)
    for layer in layers:
        if not layers[layer].pattern.partitioned:
            assert report.standalone[layer] == CHOSEN
    assert ("one-sided" in name) == any(not m.pattern.partitioned for m in layers.values())
    assert (report.moved == 0) == (name == "aligned")


def assert_weights_moved(network: nn.Module, copied: nn.Module) -> None:
    """Fail unless each parameter holds the numbers that it held, and each pattern its blocks."""
    for one, other in zip(network.modules(), copied.modules(), strict=True):
        for key, mine in one.named_parameters(recurse=False):
            theirs = other.get_parameter(key)
            assert torch.equal(mine.reshape(-1).sort().values, theirs.reshape(-1).sort().values)
        if isinstance(one, BlockSparseConv2d) and isinstance(other, BlockSparseConv2d):
            assert len(one.entries) == len(other.entries)
            assert int(one.pattern.mask().sum()) == int(other.pattern.mask().sum())


def test_the_order_that_serves_most_blocks_is_taken() -> None:
    # a's filters, and a's channels under them, hold more blocks than what reads them
    for most, least in (("a", "b"), ("b", "a")):
        model = graph(lambda s, x: head(s, s.b(s.a(s.stem(x)))))
        network = sparse(model, densities={most: 1 - 1e-9, least: 0.5}, joint=False)
        assert len(network.get_submodule(most).entries) > len(network.get_submodule(least).entries)
        copied, report = absorbed(network)
        assert report.canonical == (most,), str(report)
        assert_same_in_both_modes(network, copied)


def test_float32_and_channels_last() -> None:
    network = sparse(residual()).float()
    x = image(dtype=torch.float32)
    assert_same_in_both_modes(network, absorbed(network)[0], (x,))
    network = network.to(memory_format=torch.channels_last)
    copied, _ = absorbed(network)
    assert copied.stem.weight.is_contiguous(memory_format=torch.channels_last)
    assert_same_in_both_modes(network, copied, (x.to(memory_format=torch.channels_last),))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_move_bit_for_bit(dtype: torch.dtype) -> None:
    network = sparse(residual()).to(dtype)
    expected, got = (absorb(n)[0].double().eval() for n in (network.double(), network.to(dtype)))
    assert torch.equal(expected(image()), got(image()))


def test_flags_of_parameters_and_modules() -> None:
    network = sparse(residual())
    for name in ("a.values", "b.values", "bn.weight", "fc.bias"):
        network.get_parameter(name).requires_grad_(False)
    network.bn2.eval()
    network.norm.train()
    network.w.eval()
    copied, _ = absorbed(network)  # compares them all
    assert not copied.a.values.requires_grad
    assert copied.c.values.requires_grad
    assert [copied.bn2.training, copied.bn.training, copied.w.training] == [False, True, False]
    network.eval()
    assert not any(module.training for module in absorbed(network)[0].modules())


def test_gradients_of_the_model_stay_with_it() -> None:
    network = sparse(residual())
    network(image()).square().sum().backward()
    before = {name: p.grad.clone() for name, p in network.named_parameters()}
    copied, _ = absorbed(network)
    assert all(torch.equal(before[name], p.grad) for name, p in network.named_parameters())
    assert all(p.grad is None for p in copied.parameters())


TRAINED = [
    PASSED["InstanceNorm with statistics"], FLATTENED["view, 4 pixels"],
    CONCATENATED["dense block"],
]  # fmt: skip


@pytest.mark.parametrize("method", ["shuffled", "hrbp2_pp"])
def test_training_goes_the_same_way(method: str) -> None:
    models = [residual()]
    if method == "shuffled":
        models += [sample.make() for sample in TRAINED]
    for model in models:
        network = sparse(model, method=method)
        copied, _ = absorbed(network)
        for each in (network, copied):
            train_a_little(each, (image(),), steps=2)
        assert_same(network.train(), copied.train(), (image(seed=2),))


@pytest.mark.parametrize("joint", [True, False])
def test_absorbing_again_changes_nothing(joint: bool) -> None:
    for options in ({"block": (4, 2)}, {"block": 3, "densities": 0.7}):
        once, first = absorbed(sparse(residual(), joint=joint, **options))
        twice, second = absorbed(once)
        assert second.moved == 0
        assert (second.canonical, second.standalone) == (first.canonical, first.standalone)
        for (name, mine), theirs in zip(
            once.state_dict().items(), twice.state_dict().values(), strict=True
        ):
            assert torch.equal(mine, theirs), name


def test_the_state_of_the_standalone_model_loads() -> None:
    network = sparse(residual())
    copied, _ = absorbed(network)
    saved = copy.deepcopy(copied.state_dict())
    assert copied.load_state_dict(network.state_dict()) == ([], [])
    assert_same_in_both_modes(network, copied)
    fresh = sparse(residual())
    assert fresh.load_state_dict(saved) == ([], [])
    assert fresh.w.pattern.is_canonical
    assert_same(absorbed(sparse(residual()))[0].eval(), fresh.eval(), (image(),))


def test_to_dense_after_absorb_loads_into_the_stock_model() -> None:
    network = sparse(residual(), method="shuffled")
    copied, _ = absorbed(network)
    plain = to_dense(copied)
    assert not any(isinstance(module, BlockSparseConv2d) for module in plain.modules())
    assert_same_in_both_modes(network, plain)
    stock = randomised(residual(), seed=5)
    assert stock.load_state_dict(plain.state_dict()) == ([], [])
    assert_same_in_both_modes(network, stock)


def test_a_model_without_sparse_layers_and_what_is_none() -> None:
    model = randomised(residual())
    copied, report = absorbed(model)
    assert_same_in_both_modes(model, copied)
    assert (report.canonical, report.moved, dict(report.standalone)) == ((), 0, {})
    with pytest.raises(TypeError, match=r"expected model as a torch.nn.Module, got dict"):
        absorb({})  # type: ignore[arg-type]


@pytest.mark.parametrize("one_sided", [False, True])
def test_reordered_is_the_pattern_of_the_reordered_weight(one_sided: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    for seed in range(8):
        shape = (10 + seed % 3, 9 + seed % 4, 2, 3)
        pattern = random_pattern(shape, (4, 3), seed, permuted=True, some_taps=seed % 2 == 0)
        if one_sided:
            tables = pattern.channels, torch.flip(pattern.channels[:-1], (0,))
            overlapping = torch.cat((tables[0], tables[1][:1]))
            pattern = BlockPattern(shape, (4, 3), pattern.filters, overlapping, pattern.entries)
        filters = torch.randperm(shape[0], generator=generator)
        channels = torch.randperm(shape[1], generator=generator)
        new = reordered(pattern, filters, channels)
        assert torch.equal(new.mask(), pattern.mask()[filters][:, channels])
        assert len(new.entries) == len(pattern.entries)
        assert new.partitioned == pattern.partitioned
        values = torch.randn(pattern.values_shape, generator=generator)
        weight = pattern.unpack(values)[filters][:, channels]
        assert torch.equal(new.unpack(new.pack(weight)), weight)


def test_one_convolution_reads_its_own_filters() -> None:
    def run(s: Any, x: torch.Tensor) -> torch.Tensor:
        y = s.stem(x)
        for _ in range(3):
            y = s.bn(s.a(y)).relu() + y
        return head(s, y)

    for joint in (True, False):
        network = sparse(graph(run), joint=joint)
        copied, report = absorbed(network)
        assert_same_in_both_modes(network, copied)
        if joint:
            assert report.canonical == ("a",), str(report)
