"""SynFlow: by hand, against its definition in numpy, exact counts, no data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hrbp_core import scores
from tests.test_scores import Net, Pairs, Product, flat, one_thread  # noqa: F401


def synflow_of(model: nn.Module, density: float, rounds: int, **options) -> list[np.ndarray]:
    example = torch.zeros(1, next(model.parameters()).shape[1], 1, 1)
    found = scores.synflow(model, example, density=density, rounds=rounds, **options)
    return [s[:, :, 0, 0].numpy() for s in found.values()]


def by_definition(weights: list[np.ndarray], density: float, rounds: int) -> list[np.ndarray]:
    """Scores |w| * (all that leaves it) * (all that reaches it), round by round."""
    weights = [np.abs(w) for w in weights]
    found: list[np.ndarray] = []
    for k in range(rounds):
        if k:
            every = np.concatenate([s.ravel() for s in found])
            kept = np.zeros(len(every), dtype=bool)
            count = max(round(len(every) * density ** (k / rounds)), 1)
            kept[np.argsort(-every, kind="stable")[:count]] = True
            masks = np.split(kept, np.cumsum([w.size for w in weights])[:-1])
            weights = [w * m.reshape(w.shape) for w, m in zip(weights, masks, strict=True)]
        before = [np.ones(weights[0].shape[1])]
        for w in weights:
            before.append(w @ before[-1])
        after = [np.ones(weights[-1].shape[0])]
        for w in reversed(weights):
            after.append(after[-1] @ w)
        pairs = zip(weights, before, after[-2::-1], strict=False)
        found = [w * np.outer(a, b) for w, b, a in pairs]
    return found


# R = 5 (1 + 2) + 6 (3 + 4) = 57: each weight's score is what flows through it.
def test_by_hand():
    model = Product([[1, -2], [3, 4]], [[5, -6]])
    first, second = synflow_of(model, 0.25, 1)
    assert first.tolist() == [[5, 10], [18, 24]]
    assert second.tolist() == [[15, 42]]
    # 6 * 0.25 ** 0.5 = 3 weights are left for the second round
    first, second = synflow_of(model, 0.25, 2)
    assert first.tolist() == [[0, 0], [18, 24]]
    assert second.tolist() == [[0, 42]]


layer_sizes = st.lists(st.integers(1, 4), min_size=2, max_size=4)


@given(layer_sizes, st.integers(0, 10**6), st.floats(0.01, 1), st.integers(1, 6))
def test_the_definition(sizes, seed, density, rounds):
    rng = np.random.default_rng(seed)  # small whole numbers: sums are exact, ties abound
    pairs = zip(sizes[1:], sizes[:-1], strict=True)
    weights = [rng.integers(-2, 3, pair).astype(float) for pair in pairs]
    model = Product(*(w.tolist() for w in weights))
    for found, expected in zip(
        synflow_of(model, density, rounds), by_definition(weights, density, rounds), strict=True
    ):
        assert np.array_equal(found, expected)


def test_equal_scores_are_counted_exactly():
    model = Product([[1, 1], [1, 1]], [[1, 1], [1, 1]])
    first, second = synflow_of(model, 0.5, 2)  # round(8 * 0.5 ** 0.5) = 6 of 8 equal ones
    assert first.tolist() == [[1, 1], [1, 1]]
    assert second.tolist() == [[2, 2], [0, 0]]


def test_rounds_and_density_are_those_asked_for():
    torch.manual_seed(0)
    weights = torch.randn(20, 20).tolist()
    for rounds in (1, 2, 100):  # in one layer no path is cut: what is left has a score
        (found,) = synflow_of(Product(weights), 0.1, rounds)
        assert np.count_nonzero(found) == round(400 * 0.1 ** ((rounds - 1) / rounds))
    default = scores.synflow(Product(weights), torch.zeros(1, 20, 1, 1), density=0.1)
    assert np.array_equal(flat(default).numpy(), found.ravel())
    # the density is that of the scored layers, which alone are masked
    (found,) = synflow_of(Product(weights, weights), 0.25, 2, skip=["layers.0"])
    assert np.count_nonzero(found) == 200


def test_signs_and_inputs_do_not_matter():
    torch.manual_seed(0)
    model = Net()
    assert model.norm.running_mean is not None
    model.norm.running_mean.normal_()
    x = torch.zeros(2, 3, 6, 6)

    def found(example: Tensor) -> Tensor:
        return flat(scores.synflow(model, example, density=0.2, rounds=4))

    expected = found(x)
    assert expected.dtype == torch.float64
    assert torch.equal(found(x + 7), expected)
    model.norm.running_mean.neg_()
    assert torch.equal(found(x), expected)
    for p in model.parameters():
        p.data.mul_(torch.randn_like(p).sign())
    assert torch.equal(found(x), expected)
    model.norm.running_mean.mul_(2)  # statistics count: BatchNorm is in eval mode
    assert not torch.equal(found(x), expected)


def test_several_inputs_are_all_ones():
    conv = nn.Conv2d(2, 1, 1, bias=False)
    x = torch.zeros(1, 2, 1, 1)
    found = scores.synflow(Pairs(conv), (x, x + 5), density=0.5, rounds=1)["conv"]
    assert torch.equal(found, conv.weight.detach().double().abs())  # |w| * |1 - 2 * 1|


def test_a_range_too_narrow_is_refused():
    model = Product(*[[[1e10]]] * 5)
    with pytest.raises(ValueError, match=r"finite .* 1 of 1 in 'layers.0', the first at \(0, 0"):
        synflow_of(model, 0.5, 2, dtype=torch.float32)
    assert synflow_of(model, 0.5, 1)[0] == pytest.approx(1e50)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"density": 0.0}, r"density in \(0, 1\], got 0.0"),
        ({"density": 1.5}, r"density in \(0, 1\], got 1.5"),
        ({"rounds": 0}, "rounds as an int >= 1, got 0"),
        ({"rounds": 2.5}, "rounds as an int >= 1, got 2.5"),
        ({"dtype": torch.float16}, "dtype float32 or float64, got torch.float16"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        synflow_of(Product([[1]]), **{"density": 0.5, "rounds": 2, **arguments})
