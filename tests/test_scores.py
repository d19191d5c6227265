"""scores: what each rule gives, on models solved by hand; the model it is given stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from hrbp_core import scores

LAYERS = ["stem", "branch.0", "branch.3", "last"]
FIRST_TWO = {"skip": ("branch.3", "last")}


class Net(nn.Module):
    """[N, 3, 6, 6] -> logits [N, 5]; a depthwise layer, noise from the caller's generator."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.branch = nn.Sequential(
            nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(6, 6, 3)
        )
        self.last = nn.Conv2d(6, 4, (2, 1), bias=False)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(self.depthwise(torch.relu(self.norm(self.stem(x)))))
        y = nn.functional.dropout(y, 1e-9, training=True)
        return self.fc(self.last(y).mean((2, 3)))


class Product(nn.Module):
    """[N, C, 1, 1] -> [N, K, 1, 1]: 1x1 convolutions of the given weights, one after another."""

    def __init__(self, *weights: list[list[float]]) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for weight in weights:
            values = torch.tensor(weight, dtype=torch.float64)[:, :, None, None]
            conv = nn.Conv2d(values.shape[1], values.shape[0], 1, bias=False)
            conv.weight = nn.Parameter(values)
            self.layers.append(conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def pixel(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[None, :, None, None]


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.flatten() - targets).square().sum() / 2


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Layers this small spend their time in the barriers between threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def net() -> Net:
    torch.manual_seed(3)
    model = Net()
    with torch.no_grad():
        for statistics in (model.norm.running_mean, model.norm.running_var):
            assert statistics is not None
            statistics.uniform_(0.5, 2)
    return model


def batch(size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 3, 6, 6, generator=generator)
    return x, torch.randint(5, (size,), generator=generator)


CALLS = {
    "random": lambda model, **kw: scores.random(model, **kw),
    "magnitude": lambda model, **kw: scores.magnitude(model, **kw),
    "snip": lambda model, **kw: scores.snip(model, batch(4), batch(2, 1), **kw),
    "grasp": lambda model, **kw: scores.grasp(model, batch(4), batch(2, 1), **kw),
    "synflow": lambda model, **kw: scores.synflow(
        model, torch.zeros(1, 3, 6, 6), density=0.3, rounds=3, **kw
    ),
}
RUNNING = ("snip", "grasp", "synflow")


def flat(found: dict[str, Tensor]) -> Tensor:
    return torch.cat([s.flatten() for s in found.values()])


def test_the_rules_are_named():
    assert tuple(CALLS) == scores.RULES


@pytest.mark.parametrize("rule", CALLS)
def test_layers_shapes_and_values(net, rule):
    net.stem.weight.requires_grad_(False)  # frozen, and scored all the same
    found = CALLS[rule](net)
    assert list(found) == LAYERS  # the first included, the depthwise one left out
    for name, values in found.items():
        assert values.shape == net.get_submodule(name).weight.shape
        assert values.isfinite().all()
        assert (values >= 0).all()
        assert values.max() > 0
        assert not values.requires_grad
    assert list(CALLS[rule](net, skip=("last", "depthwise"))) == LAYERS[:3]


@pytest.mark.parametrize("rule", CALLS)
def test_the_callers_modes_do_not_matter(net, rule):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = CALLS[rule](net.train())
    assert torch.equal(flat(found), flat(CALLS[rule](net.eval())))  # dropout is off in both


def test_random_depends_on_the_seed_alone(net):
    first = flat(scores.random(net, seed=1))
    torch.rand(7)
    assert torch.equal(first, flat(scores.random(net, seed=1)))
    assert not torch.equal(first, flat(scores.random(net, seed=2)))
    assert first.max() < 1
    assert len(first.unique()) > len(first) / 2  # no layer repeats another's draws


def test_magnitude():
    model = Product([[1.0, -2.0], [0.0, 0.5]])
    found = scores.magnitude(model)["layers.0"]
    assert found.flatten().tolist() == [1.0, 2.0, 0.0, 0.5]
    assert scores.magnitude(model.to(torch.bfloat16))["layers.0"].dtype == torch.float32


# y = a * b * (3 w0 + 2 w1), loss y²/2; w = (1, -2), a = 2, b = 1 -> y = -2. Slopes: of w,
# y a b x = (-12, -8); of a, y b (w x) = 2; of b, y a (w x) = 4. |w * g| = 12, 16, 4, 4.
def test_snip_by_hand():
    model = Product([[1.0, -2.0]], [[2.0]], [[1.0]])
    one = (pixel(3, 2), torch.zeros(1))
    found = scores.snip(model, one, loss=half_square)
    assert flat(found).tolist() == pytest.approx([12 / 36, 16 / 36, 4 / 36, 4 / 36])
    found = scores.snip(model, one, loss=half_square, normalise="layer")
    assert flat(found).tolist() == pytest.approx([12 / 28, 16 / 28, 1, 1])
    for normalise in ("global", "layer"):  # no gradient: y is the target
        found = scores.snip(
            model, (pixel(3, 2), torch.tensor([-2.0])), loss=half_square, normalise=normalise
        )
        assert flat(found).tolist() == [0, 0, 0, 0]


def slope_by_hand(net: Net, bn: str) -> Tensor:
    model = copy.deepcopy(net).eval()
    model.norm.train(bn == "batch")
    x, targets = batch(4)
    weights = [dict(model.named_parameters())[f"{name}.weight"] for name in LAYERS]
    slopes = torch.autograd.grad(nn.functional.cross_entropy(model(x), targets), weights)
    return torch.cat(
        [(w * s).abs().detach().flatten() for w, s in zip(weights, slopes, strict=True)]
    )


@pytest.mark.parametrize("bn", ["batch", "running"])
def test_snip_normalises_by_the_batch_or_by_running_statistics(net, bn):
    expected = slope_by_hand(net, bn)
    found = flat(scores.snip(net.train(), batch(4), bn=bn))
    torch.testing.assert_close(found, expected / expected.sum())
    assert not torch.allclose(expected, slope_by_hand(net, "running" if bn == "batch" else "batch"))


@pytest.mark.parametrize("rule", [scores.snip, scores.grasp])
def test_batches_are_averaged_by_their_targets(net, rule):
    x, targets = batch(6)
    together = rule(net, (x, targets), bn="running")
    split = rule(net, (x[:1], targets[:1]), [x[1:], targets[1:]], bn="running")
    torch.testing.assert_close(flat(split), flat(together))
    first = rule(net, (x[:1], targets[:1]), bn="running")
    assert not torch.allclose(flat(first), flat(together))


@pytest.mark.parametrize("rule", ["snip", "grasp"])
def test_half_precision_is_scored_in_float32(net, rule):
    x, targets = batch(4)
    found = getattr(scores, rule)(net.to(torch.bfloat16), (x.bfloat16(), targets))
    assert {s.dtype for s in found.values()} == {torch.float32}


class Pairs(nn.Module):
    """Two inputs [N, 2, 1, 1] -> logits [N, 2] of x - 2 * more."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, more: Tensor) -> Tensor:
        return self.conv(x - 2 * more).flatten(1)


def test_several_inputs():
    pairs = Pairs(nn.Conv2d(2, 2, 1, bias=False))
    alone = nn.Sequential(pairs.conv, nn.Flatten())
    x, more, targets = torch.randn(3, 2, 1, 1), torch.randn(3, 2, 1, 1), torch.tensor([0, 1, 1])
    for rule in (scores.snip, scores.grasp):
        expected = rule(alone, (x - 2 * more, targets))
        assert torch.equal(flat(rule(pairs, ((x, more), targets))), flat(expected))


# y = w x, loss (y/T)²/2: g = y x / T², H = x xᵀ / T². With w = (3, -1), x = (1, 2): y = 1,
# Hg = (x·x) y x / T⁴ = (5, 10) / T⁴, w * Hg = (15, -10) / T⁴: the second is to go.
def test_grasp_by_hand():
    model, one = Product([[3.0, -1.0]]), (pixel(1, 2), torch.zeros(1))
    for temperature in (1.0, 2.0):
        found = scores.grasp(model, one, loss=half_square, temperature=temperature)
        assert flat(found).tolist() == pytest.approx([25 / temperature**4, 0])
    default = scores.grasp(model, one, loss=half_square)
    assert flat(default).tolist() == pytest.approx([25 / 200**4, 0])


def test_grasp_keeps_what_lets_the_gradient_flow():
    """Drop each of the two weights in turn: the gradient is larger without the lower score."""
    kept = scores.grasp(
        Product([[3.0, -1.0]]), (pixel(1, 2), torch.zeros(1)), loss=half_square, temperature=1.0
    )
    norms = []
    for weights in ([0.0, -1.0], [3.0, 0.0]):
        model = Product([weights])
        half_square(model(pixel(1, 2)), torch.zeros(1)).backward()
        norms.append(float(model.layers[0].weight.grad.norm()))
    assert norms[1] > norms[0]
    assert kept["layers.0"].flatten().argmin() == 1


def test_grasp_takes_the_hessian_of_convolutions_and_linear_layers(net):
    net = net.double()
    x, targets = batch(4)
    names = [*LAYERS[:1], "depthwise", *LAYERS[1:], "fc"]
    weights = [net.get_submodule(n).weight.detach() for n in names]

    def loss_of(*values: Tensor) -> Tensor:
        given = {f"{n}.weight": v for n, v in zip(names, values, strict=True)}
        outputs = torch.func.functional_call(net.eval(), given, (x.double(),)) / 3
        return nn.functional.cross_entropy(outputs, targets)

    everything = torch.cat([w.flatten() for w in weights])
    sizes = [w.numel() for w in weights]

    def loss_of_all(values: Tensor) -> Tensor:
        parts = values.split(sizes)
        return loss_of(*(p.view_as(w) for p, w in zip(parts, weights, strict=True)))

    slope = torch.autograd.functional.jacobian(loss_of_all, everything)
    _, product = torch.autograd.functional.hvp(loss_of_all, everything, slope)
    parts = (everything * product).split(sizes)
    flows = torch.cat([p for n, p in zip(names, parts, strict=True) if n in LAYERS])
    found = scores.grasp(net, (x.double(), targets), bn="running", temperature=3.0)
    torch.testing.assert_close(flat(found), flows - flows.min(), rtol=1e-6, atol=1e-12)
    # the Hessian stays that of all layers when some are not returned
    fewer = flat(
        scores.grasp(net, (x.double(), targets), bn="running", temperature=3.0, **FIRST_TWO)
    )
    flows = flows[: len(fewer)]
    torch.testing.assert_close(fewer, flows - flows.min(), rtol=1e-6, atol=1e-12)


def test_grasp_of_a_linear_loss_is_zero():
    found = scores.grasp(
        Product([[3.0, -1.0]]), (pixel(1, 2), torch.zeros(1)), loss=lambda y, _: y.sum()
    )
    assert flat(found).tolist() == [0, 0]
