"""scores: what the rules leave alone, what they refuse, and how they say so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hrbp_core import scores
from tests.test_scores import CALLS, LAYERS, RUNNING, Net, batch, one_thread  # noqa: F401


@pytest.fixture
def net() -> Net:
    torch.manual_seed(3)
    return Net()


def state_of(model: nn.Module) -> list[object]:
    """Return what must not change: bits, versions, identities, flags, modes, random state."""

    def bits(tensor: Tensor | None) -> object:
        if tensor is None:
            return None
        return id(tensor), tensor._version, tensor.detach().numpy().tobytes()

    state: list[object] = [torch.get_rng_state().tolist()]
    for name, p in model.named_parameters():
        state.append((name, p.requires_grad, bits(p), bits(p.grad)))
    state += [(name, bits(buffer)) for name, buffer in model.named_buffers()]
    return [*state, *((id(m), m.training, len(m._forward_hooks)) for m in model.modules())]


@pytest.mark.parametrize("bn", ["batch", "running"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rule", CALLS)
def test_nothing_of_the_model_or_the_random_state_changes(net, rule, training, bn):
    net.train(training)
    net.branch[1].train(not training)
    net.fc.weight.requires_grad_(False)
    net.stem.weight.grad = torch.ones_like(net.stem.weight)
    before = state_of(net)
    CALLS[rule](net, **({"bn": bn} if rule in ("snip", "grasp") else {}))
    assert state_of(net) == before
    if rule not in RUNNING:
        return
    net.fc.bias.data.fill_(float("nan") if rule != "synflow" else 1.0)
    net.stem.weight.data[0, 0, 0, 0] = float("nan")
    before = state_of(net)
    with pytest.raises(ValueError, match="expected finite"):
        CALLS[rule](net)
    assert state_of(net) == before


@pytest.mark.parametrize("rule", RUNNING)
def test_a_layer_out_of_reach_is_named(net, rule):
    net.side = nn.Conv2d(3, 4, 1)
    with pytest.raises(ValueError, match=r"reaches side \(or skip to name it\)"):
        CALLS[rule](net)
    assert list(CALLS[rule](net, skip=["side"])) == LAYERS


ONE = (torch.ones(1, 2, 1, 1), torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("arguments", "got"),
    [
        ((), r"\(\)"),
        (ONE, r"\(Tensor\)"),
        ((ONE, (*ONE, 3)), r"\(Tensor, Tensor, int\)"),
        (((ONE[0], 0),), r"\(Tensor, int\)"),
        (([ONE],), r"\(tuple\)"),
    ],
)
@pytest.mark.parametrize("rule", [scores.snip, scores.grasp])
def test_wrong_batches(rule, arguments, got):
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Flatten())
    with pytest.raises(TypeError, match=r"of \(inputs, targets as a tensor\), got " + got):
        rule(model, *arguments)


@pytest.mark.parametrize("rule", CALLS)
def test_wrong_layers(net, rule):
    with pytest.raises(ValueError, match=r"expected skip of branch\.0 .*, got 'brunch\.0'"):
        CALLS[rule](net, skip=["brunch.0"])
    with pytest.raises(ValueError, match=r"of stem or depthwise or .*last, got 'QQ'"):
        CALLS[rule](net, skip=["QQ"])
    with pytest.raises(TypeError, match="skip as a collection of names, got 'last'"):
        CALLS[rule](net, skip="last")
    with pytest.raises(ValueError, match=r"stem: skipped; depthwise: depthwise \(groups=8"):
        CALLS[rule](net, skip=LAYERS)
    with pytest.raises(ValueError, match="expected a convolution to score, got none"):
        CALLS[rule](nn.Linear(3, 5))


@pytest.mark.parametrize(
    ("rule", "arguments", "message"),
    [
        ("random", {"seed": -1}, "seed as an int >= 0, got -1"),
        ("random", {"seed": 0.5}, "seed as an int >= 0, got 0.5"),
        ("snip", {"bn": "train"}, "bn as 'batch' or 'running', got 'train'"),
        ("snip", {"normalise": "none"}, "normalise as 'global' or 'layer', got 'none'"),
        ("snip", {"loss": lambda y, _: y}, r"of one number, got tensor\("),
        ("snip", {"loss": lambda y, _: 1.0}, "of one number, got 1.0"),
        ("grasp", {"temperature": 0.0}, "temperature > 0, got 0.0"),
    ],
)
def test_wrong_arguments(net, rule, arguments, message):
    with pytest.raises(ValueError, match=message):
        CALLS[rule](net, **arguments)


def test_what_is_not_finite_is_counted_and_placed(net):
    net.last.weight.data[2, 3, 1, 0] = float("inf")
    with pytest.raises(ValueError, match=r"1 of 48 in 'last', the first at \(2, 3, 1, 0\)"):
        scores.magnitude(net)
    net.stem.weight.data[1, 0] = float("nan")
    with pytest.raises(ValueError, match=r"got NaN or infinity: 9 of 216 in 'stem'.*; 1 of 48 in"):
        scores.magnitude(net)
    x, targets = batch(4)
    x[0, 1] = float("inf")
    for rule in (scores.snip, scores.grasp):
        with pytest.raises(ValueError, match="expected finite gradients, got NaN or infinity: "):
            rule(net, (x, targets))
