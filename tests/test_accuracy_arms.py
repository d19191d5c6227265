"""The arms of the accuracy runs: what is kept, how it starts, and that it trains as it should."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import pytest
import torch

from bench.accuracy import arms, models, train
from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.pattern import BlockPattern
from tests.accuracy_samples import BLOCK_ARMS, TINY, few, network_of, one_thread

__all__ = ["few", "one_thread"]  # fixtures: pytest finds them by name


@pytest.mark.parametrize("density", [0.5, 0.1, 1 / 3])
def test_unstructured_keeps_exactly_the_highest(density):
    scores = torch.rand(6, 5, 3, 3, generator=torch.Generator().manual_seed(1))
    mask = arms.best_weights(scores, density)
    assert int(mask.sum()) == round(density * 270)
    assert scores[mask].min() > scores[~mask].max()


def test_ties_fall_to_the_lower_index_in_any_layout():
    scores = torch.ones(4, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    mask = arms.best_weights(scores, 0.25)
    assert mask.flatten().nonzero().flatten().tolist() == list(range(36))


def test_snip_scores_are_weight_times_gradient_and_leave_the_network_alone(few):
    network = models.make("digits-cnn", 3)
    before = copy.deepcopy(network.state_dict())
    scores = arms.scores_for(network, few.train_x, few.train_y, "snip", 0)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    torch.nn.functional.cross_entropy(network(few.train_x), few.train_y).backward()
    convs = models.sparse_convs(network)
    expected = {n: (c.weight * c.weight.grad).abs().detach() for n, c in convs.items()}
    total = sum(float(score.sum()) for score in expected.values())
    assert scores.keys() == convs.keys()
    for name, score in expected.items():
        torch.testing.assert_close(scores[name] * total, score)


@pytest.mark.parametrize("arm", ["unstructured", *BLOCK_ARMS])
@pytest.mark.parametrize("rescale", [True, False])
def test_every_arm_starts_from_the_dense_weights(arm, rescale, few):
    network, dense = network_of(arm, few, replace(TINY, rescale=rescale))
    masks = arms.kept_masks(network)
    assert len(masks) == 4
    for name, conv in models.sparse_convs(dense).items():
        mask, layer = masks[name], network.get_submodule(name)
        weight = layer.to_dense().weight if arm in BLOCK_ARMS else layer.weight
        assert int(mask.sum()) == conv.weight.numel() // 4
        gain = (1152 / mask.sum((1, 2, 3)).clamp(min=1)).sqrt() if rescale else torch.ones(128)
        torch.testing.assert_close(weight, conv.weight * mask * gain.view(-1, 1, 1, 1))
    assert torch.equal(network.stem.weight, dense.stem.weight)


@pytest.mark.parametrize("arm", BLOCK_ARMS)
def test_regrouping_is_asked_for_what_the_plan_says(arm, few, monkeypatch):
    asked = []

    def block_pattern(scores, density, **options):
        asked.append((density, options))
        return BlockPattern.dense(scores.shape, options["block"])

    monkeypatch.setattr(arms, "block_pattern", block_pattern)
    plan = replace(TINY, block=(16, 32), balance="both", coverage=False)
    network_of(arm, few, plan, seed=4)
    options = {
        "method": arm, "block": (16, 32), "seed": 4, "coverage": False, "balance": "both",
    }  # fmt: skip
    assert asked == [(0.25, options)] * 4


def test_building_an_arm_leaves_the_dense_network_and_the_random_state_alone(few):
    state = torch.get_rng_state()
    _, dense = network_of("hrbp2", few)
    assert torch.equal(torch.get_rng_state(), state)
    fresh = models.make("digits-cnn", 0).state_dict()
    assert all(torch.equal(v, fresh[k]) for k, v in dense.state_dict().items())


def test_dropped_weights_never_act_whatever_momentum_and_decay_do(few):
    network, _ = network_of("unstructured", few)
    layer = network.get_submodule("blocks.0.conv1")
    optimizer = train.make_optimizer(network, replace(TINY, weight_decay=0.1), 0.1)
    for _ in range(3):
        train.step(network, optimizer, few.train_x[:30], few.train_y[:30])
    assert not layer.conv.weight.grad[layer.mask == 0].any()
    network.eval()
    expected = network(few.test_x)
    with torch.no_grad():
        layer.conv.weight[layer.mask == 0] = 1e3
    assert torch.equal(network(few.test_x), expected)


@pytest.mark.parametrize("arm", BLOCK_ARMS)
def test_packed_values_train_as_a_masked_dense_control_does(arm, few):
    network, dense = network_of(arm, few, replace(TINY, rescale=False))
    control = copy.deepcopy(dense).double()
    for name, mask in arms.kept_masks(network).items():
        control.set_submodule(name, arms.MaskedConv2d(control.get_submodule(name), mask))
    losses = []
    for each in (network.double(), control):
        optimizer = train.make_optimizer(each, TINY, 0.05)
        batches = train.batches(90, 18, torch.Generator().manual_seed(5))
        rows = [*batches, *train.batches(90, 18, torch.Generator().manual_seed(6))]
        losses.append(
            [train.step(each, optimizer, few.train_x[r].double(), few.train_y[r]) for r in rows]
        )
    assert len(losses[0]) == 10
    torch.testing.assert_close(*(torch.stack(x) for x in losses), rtol=0, atol=1e-10)
    assert losses[0][-1] < losses[0][0] / 2  # they do train


def test_facts_count_dead_filters_and_the_whole_networks_multiply_adds(few):
    dense = models.make("digits-cnn", 0)
    network = copy.deepcopy(dense)
    mask = torch.ones(128, 128, 3, 3, dtype=torch.bool)
    mask[:5] = False
    network.blocks[0].conv1 = arms.MaskedConv2d(network.blocks[0].conv1, mask)
    kept = torch.eye(8, dtype=torch.bool)
    whole = BlockPattern.dense((128, 128, 3, 3), 16)
    pattern = BlockPattern.from_blocks(whole.shape, 16, whole.filters, whole.channels, kept)
    network.blocks[1].conv2 = BlockSparseConv2d.from_dense(network.blocks[1].conv2, pattern)
    facts = arms.arm_facts(network, dense, few.train_x[:7])
    conv = 128 * 128 * 9 * 16 * 3  # multiply-adds of an image in three passes
    rest = 128 * 9 * 16 * 2 + 1280 * 3  # the stem's input needs no gradient
    kept_convs = conv * (2 + 123 / 128 + 1 / 8)
    assert facts.dead_filters == 5
    assert facts.real_density == pytest.approx((123 / 128 + 1 / 8) / 2)
    assert facts.flops_ratio == pytest.approx((kept_convs + rest) / (4 * conv + rest), rel=1e-12)


@pytest.mark.parametrize("arm", ["unstructured", "hrbp2"])
def test_one_seed_gives_one_curve(arm, few):
    curves = []
    for seed in (0, 0, 1):
        network, _ = network_of(arm, few, seed=seed)
        outcome = train.train(network, few, replace(TINY, epochs=3), seed)
        weights = torch.cat([p.detach().flatten() for p in network.parameters()])
        curves.append((outcome.curve, weights))
    assert curves[0][0] == curves[1][0]
    assert torch.equal(curves[0][1], curves[1][1])
    assert not torch.equal(curves[0][1], curves[2][1])


def test_a_seed_sets_the_initial_weights_and_the_batches(few):
    torch.manual_seed(1)
    first = models.make("digits-cnn", 0)
    torch.manual_seed(2)
    networks = [first, models.make("digits-cnn", 0), models.make("digits-cnn", 1)]
    weights = [network.stem.weight.detach().clone() for network in networks]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    for network, seed in zip(networks[:2], (0, 1), strict=True):
        train.train(network, few, TINY, seed)
    assert not torch.equal(networks[0].stem.weight, networks[1].stem.weight)


def test_accuracy_is_taken_in_eval_mode(few):
    network, _ = network_of("dense", few)
    train.train(network, few, TINY, 0)
    network.train()
    before = copy.deepcopy(network.state_dict())
    together = train.accuracy(network, few.test_x, few.test_y)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    network.eval()
    right = (network(few.test_x).argmax(1) == few.test_y).tolist()
    assert together == sum(right) / len(right)


def test_training_leaves_torchs_determinism_as_it_was(few):
    network, _ = network_of("dense", few)
    torch.use_deterministic_algorithms(False)
    seen = []
    network.register_forward_hook(
        lambda *_: seen.append(torch.are_deterministic_algorithms_enabled())
    )
    train.train(network, few, TINY, 0)
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()


def test_steps_alternate_and_turn(few, monkeypatch):
    network, dense = network_of("aligned", few)
    order = []

    def step(each, *_):
        order.append("sparse" if each is network else "dense")

    monkeypatch.setattr(train, "step", step)
    times = train.step_times(dense, network, few, TINY)
    assert len(times["dense_s"]) == len(times["sparse_s"]) == 15
    rounds = [order[i : i + 2] for i in range(0, len(order), 2)]
    assert all(sorted(each) == ["dense", "sparse"] for each in rounds)
    assert all(a != b for a, b in itertools.pairwise(rounds))
    assert len(rounds) == 15 + train.STEP_WARM_UP
