"""The arms of the accuracy runs: what is kept, how it starts, and that it trains as it should."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import pytest
import torch

from bench.accuracy import Run, arms, models, smaller, step_times, train
from bench.accuracy.names import REGROUPED
from hrbp_core.conversion import to_dense
from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.pattern import BlockPattern
from tests.accuracy_samples import BLOCK_ARMS, TINY, few, network_of, one_thread, trainer

__all__ = ["few", "one_thread"]  # fixtures: pytest finds them by name


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
def test_every_arm_starts_from_the_dense_weights(arm, rescale, few, monkeypatch):
    # what absorb moves is tested with it; here weights are compared place by place
    monkeypatch.setattr(arms, "absorb", lambda network: (network, None))
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


@pytest.mark.parametrize("arm", ["aligned", "shuffled", "hrbp2", "hrbp2_pp"])
def test_networks_of_blocks_permute_nothing(arm, few):
    network, dense = network_of(arm, few)
    assert arms.arm_facts(network, dense, few.train_x[:2]).standalone == 0


@pytest.mark.parametrize("arm", BLOCK_ARMS)
def test_regrouping_is_asked_for_what_the_plan_says(arm, few, monkeypatch):
    asked = []

    def convert(dense, densities, **options):
        asked.append((dict(densities), options))
        return copy.deepcopy(dense), None

    monkeypatch.setattr(arms, "convert", convert)
    plan = replace(TINY, block=(16, 32), balance="both", coverage=False)
    network_of(arm, few, plan, seed=4)
    ((densities, options),) = asked
    scores = options.pop("scores")
    assert list(densities.values()) == [0.25] * 4
    assert set(scores) == set(densities)
    assert options == {
        "method": arm, "block": (16, 32), "seed": 4, "coverage": False, "balance": "both",
        "rescale": False,
    }  # fmt: skip


@pytest.mark.parametrize("arm", ["unstructured", "elementwise", "dsb", *REGROUPED])
def test_every_arm_keeps_the_same_number_of_weights(arm, few):
    network, dense = network_of(arm, few)
    allocation = arms.densities_for(dense, TINY, 0.25)
    facts = arms.arm_facts(network, dense, few.train_x[:2], allocation)
    assert facts.real_density == 0.25
    assert facts.lifted == ()


def test_two_four_keeps_two_of_four(few):
    network, dense = network_of("two_four", few, density=0.5)
    mask = arms.kept_masks(network)["blocks.0.conv1"]
    assert (mask.view(128, 32, 4, 3, 3).sum(2) == 2).all()
    assert arms.arm_facts(network, dense, few.train_x[:2]).real_density == 0.5


def test_grouped_is_torchs_and_takes_the_diagonal_of_the_weights(few):
    network, dense = network_of("grouped", few)
    conv, whole = network.blocks[0].conv1, dense.blocks[0].conv1
    assert type(conv) is torch.nn.Conv2d
    assert conv.groups == 4
    for i in range(4):
        part = slice(32 * i, 32 * (i + 1))
        assert torch.equal(conv.weight[part], whole.weight[part, part])
    allocation = arms.densities_for(dense, TINY, 0.25)
    facts = arms.arm_facts(network, dense, few.train_x[:2], allocation)
    assert (facts.real_density, facts.dead_filters) == (0.25, 0)


@pytest.mark.parametrize(
    ("density", "groups"), [(1, 1), (1 / 3, 4), (0.3, 4), (0.25, 4), (0.2, 4), (0.17, 8), (0.01, 8)]
)
def test_groups_come_as_near_as_the_channels_let_them(density, groups):
    """As a factor: of 1/3 two groups are 1.5 times, four 1.33 times off."""
    assert smaller.group_count(torch.nn.Conv2d(16, 8, 3), density) == groups


def test_thin_costs_what_the_sparse_network_costs(few):
    thin, dense = network_of("thin", few)
    blocks, _ = network_of("hrbp2", few)
    images = few.train_x[:2]
    wanted = arms.arm_facts(blocks, dense, images).flops_ratio
    allocation = arms.densities_for(dense, TINY, 0.25)
    facts = arms.arm_facts(thin, dense, images, allocation)
    assert thin.stem.out_channels == 64  # a half of the channels: a quarter of the weights
    assert facts.flops_ratio == pytest.approx(wanted, rel=0.02)
    assert facts.real_density == pytest.approx(0.25)


@pytest.mark.parametrize("rule", ["snip", "grasp", "synflow", "magnitude", "random"])
def test_every_rule_scores_the_sparse_layers_alone(rule, few):
    dense = models.make("digits-cnn", 0)
    scores = arms.scores_for(dense, few.train_x[:8], few.train_y[:8], rule, 0)
    assert scores.keys() == models.sparse_convs(dense).keys()


@pytest.mark.parametrize("arm", ["unstructured", "hrbp2", "hrbp2_pp"])
@pytest.mark.parametrize("dst", ["set", "rigl", "itop"])
def test_an_arm_that_moves_keeps_its_count(arm, dst, few):
    plan = replace(TINY, dst_every=1, dst_drop=0.5, epochs=2)
    network, _ = network_of(arm, few, plan)
    before = arms.kept_masks(network)
    training = trainer(network, few, plan, Run(arm, 0.25, 0, dst))
    outcome = training.run()
    after = arms.kept_masks(network)
    assert outcome.updates == 3  # of 6 steps, 3/4 of them: after 1, 2 and 3
    assert outcome.explored > 0.25
    for name, mask in before.items():
        assert int(after[name].sum()) == int(mask.sum())
        assert not torch.equal(after[name], mask)


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
        train.step(network, optimizer, TINY, few.train_x[:30], few.train_y[:30])
    assert not layer.conv.weight.grad[layer.mask == 0].any()
    network.eval()
    expected = network(few.test_x)
    with torch.no_grad():
        layer.conv.weight[layer.mask == 0] = 1e3
    assert torch.equal(network(few.test_x), expected)


@pytest.mark.parametrize("arm", BLOCK_ARMS)
def test_packed_values_train_as_a_masked_dense_control_does(arm, few):
    network, _ = network_of(arm, few, replace(TINY, rescale=False))
    control = to_dense(network).double()  # the dense one, its channels in the network's order
    for name, mask in arms.kept_masks(network).items():
        control.set_submodule(name, arms.MaskedConv2d(control.get_submodule(name), mask))
    losses = []
    for each in (network.double(), control):
        optimizer = train.make_optimizer(each, TINY, 0.05)
        batches = [
            (x.double(), y)
            for seed in (5, 6)
            for x, y in few.train_batches(18, torch.Generator().manual_seed(seed))
        ]
        losses.append([train.step(each, optimizer, TINY, *batch) for batch in batches])
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
        outcome = trainer(network, few, replace(TINY, epochs=3), Run(arm, 0.25, seed)).run()
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
        trainer(network, few, TINY, Run("dense", 1.0, seed)).run()
    assert not torch.equal(networks[0].stem.weight, networks[1].stem.weight)


def test_accuracy_is_taken_in_eval_mode(few):
    network, _ = network_of("dense", few)
    trainer(network, few, TINY, Run("dense", 1.0, 0)).run()
    network.train()
    before = copy.deepcopy(network.state_dict())
    together = train.accuracy(network, few, TINY)
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
    trainer(network, few, TINY, Run("dense", 1.0, 0)).run()
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()


def test_steps_alternate_and_turn(few, monkeypatch):
    network, dense = network_of("aligned", few)
    order = []

    def step(each, *_):
        order.append("sparse" if each is network else "dense")

    monkeypatch.setattr(train, "step", step)
    batch = few.train_x[:30], few.train_y[:30]
    times = step_times.step_times(dense, network, batch, TINY)
    assert len(times["dense_s"]) == len(times["sparse_s"]) == 15
    rounds = [order[i : i + 2] for i in range(0, len(order), 2)]
    assert all(sorted(each) == ["dense", "sparse"] for each in rounds)
    assert all(a != b for a, b in itertools.pairwise(rounds))
    assert len(rounds) == 15 + step_times.STEP_WARM_UP
