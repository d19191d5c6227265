"""convert and to_dense: what becomes sparse, what does not and why, and the way back."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from hrbp_core import BlockSparseConv2d, absorb, allocate, retained
from tests.conversion_samples import converted, dense_again, image, model


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_a_number_makes_all_but_stem_and_classifier_sparse() -> None:
    dense = model()
    before, rng = state(dense), torch.get_rng_state()
    sparse, report = converted(dense, 0.25, block=4, example=image())
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(before[name], tensor) for name, tensor in dense.state_dict().items())
    assert isinstance(dense.conv1, nn.Conv2d)
    assert list(report.layers) == ["conv1", "conv2"]
    assert dict(report.left_dense) == {"stem": "the first convolution"}
    for name, layer in report.layers.items():
        made = sparse.get_submodule(name)
        assert isinstance(made, BlockSparseConv2d)
        assert made.pattern == layer.pattern
        assert (layer.density, layer.requested) == (0.25, 0.25)
        weight = dense.get_submodule(name).weight.detach()
        assert layer.retained == retained(weight.abs(), layer.pattern)
        assert torch.equal(made.to_dense().weight, weight * layer.pattern.mask())
        assert (layer.dead_filters, layer.dead_channels) == (0, 0)
    assert report.density == 0.25


def test_the_costs_are_those_of_the_whole_network() -> None:
    _, report = converted(model(), 0.25, block=4, example=image())
    convs, rest, pixels = 2 * 16 * 16 * 9, 16 * 3 * 9, 2 * 36
    assert report.costs.weights == convs + rest + 16 * 5
    assert report.costs.kept_weights == convs / 4 + rest + 16 * 5
    assert report.costs.flops == 2 * (pixels * (convs + rest) + 2 * 16 * 5)
    assert report.costs.kept_flops == 2 * (pixels * (convs / 4 + rest) + 2 * 16 * 5)
    assert converted(model(), 0.25, block=4)[1].costs.flops is None


def test_the_report_tells_all_and_is_json() -> None:
    _, report = converted(model(), {"conv1": 0.25}, block=4, keep_dense=["stem"], example=image())
    text = str(report)
    for part in ("1 sparse layers (hrbp2), 2 dense", "conv1  16x16x3x3  density 0.25", "retained",
                 "stem   dense: asked for (keep_dense)", "conv2  dense: no density is given",
                 "FLOPs of a forward"):  # fmt: skip
        assert part in text
    facts = json.loads(json.dumps(report.to_dict()))
    assert facts["layers"][0]["shape"] == [16, 16, 3, 3]
    assert facts["left_dense"] == dict(report.left_dense)


def test_without_coverage_what_dies_is_counted() -> None:
    scores = {"conv1": torch.zeros(16, 16, 3, 3)}
    scores["conv1"][:4, :8] = 1
    _, report = converted(
        model(), {"conv1": 2 / 16}, block=4, scores=scores, coverage=False, method="aligned"
    )
    layer = report.layers["conv1"]
    assert (layer.dead_filters, layer.dead_channels) == (12, 8)
    assert "dead: 12 filters, 8 channels" in str(report)


@pytest.mark.parametrize("rule", ["uniform", "erk"])
def test_an_allocation_is_taken_as_it_is(rule: str) -> None:
    densities = allocate.RULES[rule](model(), 0.5, block=4)
    _, report = converted(model(), densities, block=4)
    assert {name: layer.density for name, layer in report.layers.items()} == dict(densities)
    assert report.left_dense["stem"] == "the first convolution"


def test_scores_decide_what_is_kept() -> None:
    place = torch.arange(16)
    wanted = (place[:, None] % 4 == place // 4).float()[:, :, None, None].expand(-1, -1, 3, 3)
    scores = {"conv1": wanted, "conv2": torch.ones(16, 16, 3, 3)}
    sparse, report = converted(model(), {"conv1": 0.25}, block=4, scores=scores)
    assert report.layers["conv1"].retained == 1
    assert torch.equal(sparse.conv1.pattern.mask(), wanted.bool())


def test_layers_that_share_channels_share_their_partition() -> None:
    sparse, _ = converted(model(), 0.25, block=4)
    one, two = sparse.conv1.pattern, sparse.conv2.pattern
    assert torch.equal(one.filters, two.channels)
    assert torch.equal(one.channels, two.filters)  # tied by the addition
    apart, report = converted(model(), 0.25, block=4, joint=False)
    assert "one by one: joint=False" in str(report)
    assert not torch.equal(apart.conv1.pattern.filters, apart.conv2.pattern.channels)
    joined = converted(model(), 0.25, block=4)[1]
    assert report.retained >= joined.retained
    assert joined.retained == sum(layer.retained for layer in joined.layers.values()) / 2


def test_to_dense_loads_into_the_stock_model() -> None:
    sparse, _ = converted(model(), 0.25, block=4)
    back = dense_again(sparse)
    assert not any(isinstance(m, BlockSparseConv2d) for m in back.modules())
    assert any(isinstance(m, BlockSparseConv2d) for m in sparse.modules())
    stock = model(1)
    stock.load_state_dict(back.state_dict())
    for mode in (True, False):
        outs = [copy.deepcopy(m).train(mode)(image()) for m in (sparse, back, stock)]
        torch.testing.assert_close(outs[1], outs[0], rtol=1e-12, atol=1e-12)
        assert torch.equal(outs[1], outs[2])


def test_density_one_stays_dense() -> None:
    sparse, report = converted(model(), {"conv1": 1.0, "conv2": 0.5}, block=4)
    assert type(sparse.conv1) is nn.Conv2d
    assert report.left_dense["conv1"] == "density 1"


def test_rescale_fits_the_weights_to_their_fan_in() -> None:
    dense = model()
    plain, _ = converted(dense, {"conv1": 0.25}, block=4, balance="filters")
    scaled, _ = converted(dense, {"conv1": 0.25}, block=4, balance="filters", rescale=True)
    torch.testing.assert_close(scaled.conv1.values, 2 * plain.conv1.values)
    uneven, _ = converted(dense, {"conv1": 0.5}, block=4, rescale=True)
    pattern, weight = uneven.conv1.pattern, dense.conv1.weight
    kept = pattern.mask().sum((1, 2, 3)).double()
    expected = weight * pattern.mask() * (144 / kept).sqrt().view(-1, 1, 1, 1)
    torch.testing.assert_close(pattern.unpack(uneven.conv1.values), expected, rtol=1e-6, atol=0)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
def test_modes_frozen_weights_and_padding_are_kept() -> None:
    dense = model()
    dense.conv1.requires_grad_(False)
    dense.conv1.padding_mode = "circular"
    dense.conv1._reversed_padding_repeated_twice = [1, 1, 1, 1]
    dense.conv2 = nn.Conv2d(16, 16, 2, padding="same").double()
    dense.eval()
    expected_shape = dense(image()).shape
    sparse, _ = converted(dense, 0.25, block=4)
    assert not sparse.conv1.values.requires_grad
    assert not any(module.training for module in sparse.modules())
    back = dense_again(sparse)
    assert (back.conv1.padding_mode, back.conv2.padding) == ("circular", "same")
    torch.testing.assert_close(back(image()), sparse(image()), rtol=1e-12, atol=1e-12)
    assert sparse(image()).shape == expected_shape


def test_a_layer_under_two_names_is_replaced_under_both() -> None:
    dense = model()
    dense.again = dense.conv1
    sparse, report = converted(dense, 0.25, block=4)
    assert list(report.layers) == ["conv1", "conv2"]
    assert sparse.again is sparse.conv1
    assert isinstance(sparse.again, BlockSparseConv2d)


def test_a_bare_convolution() -> None:
    conv = nn.Conv2d(16, 16, 3)
    sparse, report = converted(conv, {"": 0.25}, block=4)
    assert isinstance(sparse, BlockSparseConv2d)
    assert "single layer" in str(report)
    assert torch.equal(dense_again(sparse).weight, conv.weight * sparse.pattern.mask())


def test_the_whole_way_and_back_is_the_original_function() -> None:
    dense = model()
    _, first = converted(dense, 0.25, block=4, method="shuffled")
    with torch.no_grad():
        for name, layer in first.layers.items():
            dense.get_submodule(name).weight.mul_(layer.pattern.mask())
    masks = {name: layer.pattern.mask().float() for name, layer in first.layers.items()}
    sparse, report = converted(dense, 0.25, block=4, scores=masks)
    assert report.retained == 1  # the hidden blocks are found, so nothing is dropped
    absorbed, absorption = absorb(sparse)
    assert absorption.canonical == ("conv1", "conv2")
    stock = model(1)
    stock.load_state_dict(dense_again(absorbed).state_dict())
    for mode in (True, False):
        expected = copy.deepcopy(dense).train(mode)(image())
        for network in (sparse, absorbed, stock):
            got = copy.deepcopy(network).train(mode)(image())
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
