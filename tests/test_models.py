"""The networks of the accuracy runs, against what is published of them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from bench.accuracy import models, vggs
from bench.accuracy.resnets import BasicBlock, Bottleneck, CifarResNet
from bench.accuracy.wide_resnets import WideBlock, WideResNet
from tests.accuracy_samples import one_thread
from tests.published_models import ENTRIES, LAYERS, MULTIPLY_ADDS, PARAMETERS, TORCHVISION

__all__ = ["one_thread"]  # a fixture: pytest finds it by name

MODELS = models.MODELS


def meta(name, **options):
    """Return a network without memory: for all that follows from names and shapes alone."""
    with torch.device("meta"):
        return MODELS[name].make(**options)


def shapes(network):
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


@pytest.fixture
def narrow(monkeypatch):
    """ImageNet's VGGs without their 120 million weights of linear layers."""
    monkeypatch.setattr(vggs, "HIDDEN", 16)


@pytest.mark.parametrize("name", MODELS)
def test_as_many_parameters_as_published(name):
    assert sum(p.numel() for p in meta(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", MULTIPLY_ADDS)
def test_as_many_multiply_adds_as_published(name):
    images = torch.empty(1, *MODELS[name].image, device="meta")
    forward = models.step_multiply_adds(meta(name), images.requires_grad_(), {}) / 3
    published, unit = MULTIPLY_ADDS[name].split()
    digits = len(published.partition(".")[2])
    assert f"{forward / {'G': 1e9, 'M': 1e6}[unit]:.{digits}f}" == published


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_layers_have_the_usual_names_and_shapes(name):
    assert shapes(meta(name)) == LAYERS[name]
    assert len(LAYERS[name]) == ENTRIES.get(name, len(LAYERS[name]))


def test_the_rule_for_names_holds_known_ones():
    assert LAYERS["resnet50"]["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert LAYERS["resnet50"]["layer4.2.conv2.weight"] == (512, 512, 3, 3)
    assert LAYERS["vgg19_imagenet"]["features.50.running_var"] == (512,)
    assert LAYERS["wrn28_10"]["block2.layer.0.convShortcut.weight"] == (320, 160, 1, 1)
    assert "layer1.0.downsample.0.weight" not in LAYERS["resnet18"]


# --- what the networks compute ---------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_logits_have_their_shape_and_every_parameter_its_gradient(name):
    facts = MODELS[name]
    images = torch.empty(2, *facts.image, device="meta")
    assert meta(name).eval()(images).shape == (2, facts.classes)
    network = meta(name, classes=7).train()
    logits = network(images)
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def logits_of(network, images):
    """Return the logits; dropout draws the same each time."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        return network(images)


def assert_alike(ours, theirs, side, channels=3):
    """Both give the same logits when training and when tested."""
    images = torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(1))
    for training in (True, False):
        expected = logits_of(ours.train(training), images)
        assert expected.isfinite().all()
        assert expected.std() > 0
        torch.testing.assert_close(logits_of(theirs.train(training), images), expected)


@pytest.mark.parametrize("name", MODELS)
def test_a_traced_network_computes_the_same(name, narrow):
    network = models.make(name, 0)
    side = 32 if "vgg" in name else 16  # small: the function is the same
    assert_alike(network, fx.symbolic_trace(network), side, MODELS[name].image[0])


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("resnet18", "conv1 bn1 relu maxpool layer1 layer2 layer3 layer4 avgpool fc"),
        ("resnet20", "conv1 bn1 relu layer1 layer2 layer3 avgpool fc"),
        ("vgg16", "features avgpool classifier"),
        ("wrn22_2", "conv1 block1 block2 block3 bn1 relu avgpool fc"),
    ],
)
def test_layers_follow_one_another(name, order):
    nodes = fx.symbolic_trace(meta(name)).graph.nodes
    calls = [node.target.partition(".")[0] for node in nodes if node.op == "call_module"]
    assert [call for call, _ in itertools.groupby(calls)] == order.split()


def test_pooling_and_dropout_are_of_their_kind():
    pools = {name: meta(name).avgpool for name in MODELS if name != "digits-cnn"}
    for name, pool in pools.items():
        assert isinstance(pool, nn.AdaptiveAvgPool2d)
        assert pool.output_size == (7 if name in ("vgg16_imagenet", "vgg19_imagenet") else 1)
    assert isinstance(meta("resnet18").maxpool, nn.Identity)
    stem = meta("resnet50").maxpool
    assert isinstance(stem, nn.MaxPool2d)
    assert (stem.kernel_size, stem.stride, stem.padding) == (3, 2, 1)
    large = list(meta("vgg16_imagenet").modules())
    assert sum(isinstance(m, nn.MaxPool2d) for m in large) == 5
    assert [m.p for m in large if isinstance(m, nn.Dropout)] == [0.5, 0.5]


def test_dropout_stands_before_the_second_convolution():
    graph = fx.symbolic_trace(WideBlock(8, 16, dropout=0.3)).graph
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    assert calls == ["bn1", "relu1", "conv1", "bn2", "relu2", "dropout", "conv2", "convShortcut"]
    assert WideBlock(8, 16, dropout=0.3).dropout.p == 0.3


def test_dropout_follows_the_mode_in_a_traced_network_too():
    network = WideResNet(10, 1, dropout=0.5)
    graph = fx.symbolic_trace(network)
    assert_alike(network, graph, 8)
    images = torch.ones(2, 3, 8, 8)
    assert not torch.equal(graph.train()(images), graph(images))
    assert torch.equal(graph.eval()(images), graph(images))
    assert not any(isinstance(m, nn.Dropout) for m in WideResNet(10, 1).modules())


def shaken(block):
    """Return the block in float64 and eval mode, with BatchNorms that leave nothing as it is."""
    generator = torch.Generator().manual_seed(2)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(module, name).data.uniform_(0.5, 2, generator=generator)
    return block.double().eval()


def normed(bn, x):
    mean, var = bn.running_mean.view(-1, 1, 1), bn.running_var.view(-1, 1, 1)
    scale = bn.weight.view(-1, 1, 1) / (var + 1e-5).sqrt()
    return (x - mean) * scale + bn.bias.view(-1, 1, 1)


def convolved(layer, x, stride=1):
    return functional.conv2d(x, layer.weight, None, stride, layer.weight.shape[-1] // 2)


@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (16, 1), (8, 2), (16, 2)])
@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck, WideBlock])
def test_a_block_is_what_its_paper_draws(kind, channels, stride):
    x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    block = shaken(kind(8, channels // kind.expansion if kind is Bottleneck else channels, stride))
    if kind is WideBlock:
        shortcut, active = x, normed(block.bn1, x).relu()
        if (channels, stride) != (8, 1):
            shortcut = convolved(block.convShortcut, active, stride)
        y = normed(block.bn2, convolved(block.conv1, active, stride)).relu()
        expected = convolved(block.conv2, y) + shortcut
    else:
        first, second = (1, stride) if kind is Bottleneck else (stride, 1)
        y = normed(block.bn1, convolved(block.conv1, x, first)).relu()
        y = normed(block.bn2, convolved(block.conv2, y, second))
        if kind is Bottleneck:
            y = normed(block.bn3, convolved(block.conv3, y.relu()))
        shortcut = x
        if (channels, stride) != (8, 1):
            shortcut = normed(block.downsample[1], convolved(block.downsample[0], x, stride))
        expected = (y + shortcut).relu()
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("make", [CifarResNet, lambda depth: WideResNet(depth, 1)])
@pytest.mark.parametrize("depth", [2, 4, 21])
def test_a_depth_that_is_none_is_refused(make, depth):
    with pytest.raises(ValueError, match=f"expected a depth of 6n .* got {depth}"):
        make(depth)


@pytest.mark.parametrize("name", ["resnet18", "vgg16_imagenet", "wrn22_2"])
def test_weights_start_as_kaiming_says(name, narrow):
    for module in models.make(name, 0).requires_grad_(False).modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if isinstance(module, nn.Conv2d):
            deviation = math.sqrt(2 / (weight.shape[0] * weight[0, 0].numel()))
            noise = 5 / math.sqrt(weight.numel())
            assert weight.std().item() == pytest.approx(deviation, rel=noise)
            assert weight.abs().max() > 2.5 * deviation  # normal, not uniform
            assert bias is None or not bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert (weight == 1).all()
            assert not bias.any()
        elif isinstance(module, nn.Linear) and "vgg" in name:
            assert weight.std().item() == pytest.approx(0.01, rel=5 / math.sqrt(weight.numel()))
            assert not bias.any()


# --- the registry ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits-cnn", "resnet20", "wrn22_2"])
def test_a_seed_decides_the_weights_and_nothing_else_moves(name, monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    state = torch.get_rng_state()
    first, again, other = (models.make(name, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert seeded == []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)  # the same draws as ever: stored runs can be repeated
        plain = MODELS[name].make().state_dict()
    for key, value in first.items():
        assert torch.equal(value, again[key])
        assert torch.equal(value, plain[key])
        if value.dim() == 4:
            assert not torch.equal(value, other[key])
            assert value.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", MODELS)
def test_an_example_batch_fits_its_network(name):
    state = torch.get_rng_state()
    images, labels = models.example_batch(name, 3, 5)
    assert (images.shape, labels.shape) == ((3, *MODELS[name].image), (3,))
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(models.example_batch(name, 3, 5)[0], images)
    assert not torch.equal(models.example_batch(name, 3, 6)[0], images)
    assert torch.equal(torch.get_rng_state(), state)


def test_names_and_classes_are_looked_up():
    assert models.make("resnet20", 0, classes=100).fc.out_features == 100
    labels = models.example_batch("resnet20", 500, 0)[1]
    assert labels.unique().tolist() == list(range(10))
    for ask in (lambda: models.make("alexnet", 0), lambda: models.example_batch("alexnet", 1, 0)):
        with pytest.raises(ValueError, match=r"expected a model of digits-cnn, .*; got 'alexnet'"):
            ask()


# --- the networks of others, where they are installed ----------------------------------------


def assert_same_network(name, make):
    """Same names and shapes in the same order, and the same logits from the same weights."""
    with torch.device("meta"):
        theirs = make()
    assert list(shapes(theirs).items()) == list(shapes(meta(name)).items())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vggs, "HIDDEN", 16)
        ours = models.make(name, 0)
    if "vgg" in name:
        for place in (0, 3, 6):
            layer = ours.classifier[place]
            theirs.classifier[place] = nn.Linear(layer.in_features, layer.out_features)
    theirs.load_state_dict(ours.state_dict(), strict=True, assign=True)
    assert_alike(ours, theirs, 64)


@pytest.mark.filterwarnings("default")  # another's imports may warn
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_networks_are_the_same(name):
    reason = "torchvision is not installed: its own networks are not at hand"
    theirs = pytest.importorskip("torchvision.models", reason=reason)
    assert_same_network(name, getattr(theirs, TORCHVISION[name]))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["resnet18_imagenet", "resnet50"])
def test_timms_networks_are_the_same(name):
    timm = pytest.importorskip("timm", reason="timm is not installed: no networks of its at hand")
    assert_same_network(name, lambda: timm.create_model(TORCHVISION[name]))
