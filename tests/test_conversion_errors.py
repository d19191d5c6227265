"""convert: layers that no blocks can replace, and input that it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from hrbp_core import absorb
from tests.conversion_samples import Residual, converted, dense_again, image, model


class Own(nn.Conv2d):
    """Computes something else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def unsupported(kind: str) -> nn.Conv2d:
    conv = nn.Conv2d(16, 16, 3, padding=1).double()
    if kind == "grouped":
        return nn.Conv2d(16, 16, 3, padding=1, groups=2).double()
    if kind == "depthwise":
        return nn.Conv2d(16, 16, 3, padding=1, groups=16).double()
    if kind == "small":
        return nn.Conv2d(16, 16, 3, padding=1).double()
    if kind == "own":
        return Own(16, 16, 3, padding=1).double()
    if kind == "parametrized":
        return parametrizations.weight_norm(conv)
    conv.register_forward_hook(lambda *_: None)
    return conv


UNSUPPORTED = [
    ("grouped", r"grouped \(groups=2, expected 1\)"),
    ("depthwise", r"depthwise \(groups=16"),
    ("own", "Own has a forward of its own"),
    ("parametrized", "its weight is computed"),
    ("hooked", "hooks are registered on it"),
]


@pytest.mark.parametrize(("kind", "reason"), UNSUPPORTED)
def test_what_blocks_cannot_replace_stays_dense_and_is_told(kind: str, reason: str) -> None:
    dense = model()
    dense.conv1 = unsupported(kind)
    sparse, report = converted(dense, 0.5, block=4)
    assert list(report.layers) == ["conv2"]
    assert isinstance(sparse.conv1, nn.Conv2d)
    with pytest.raises(ValueError, match=f"conv1: {reason}"):
        converted(dense, 0.5, block=4, on_unsupported="raise")
    with pytest.raises(ValueError, match=f"conv1: {reason}"):
        converted(dense, {"conv1": 0.5}, block=4, on_unsupported="raise")
    converted(dense, {"conv2": 0.5}, block=4, on_unsupported="raise")  # nobody asked for conv1
    converted(dense, 0.5, block=4, on_unsupported="raise", keep_dense=["conv1"])


def test_layers_smaller_than_a_block_stay_dense() -> None:
    dense = model()
    dense.conv1, dense.norm = nn.Conv2d(16, 8, 1).double(), nn.BatchNorm2d(8).double()
    dense.conv2 = nn.Conv2d(8, 16, 1).double()
    _, report = converted(dense, {"conv1": 0.5, "stem": 0.5}, block=(16, 16))
    assert report.left_dense["conv1"].startswith("smaller than a block")
    assert report.left_dense["stem"].startswith("smaller than a block")
    assert not report.layers


def test_shared_weights_stay_dense() -> None:
    dense = model()
    dense.conv2.weight = dense.conv1.weight
    sparse, report = converted(dense, {"conv1": 0.5, "conv2": 0.5}, block=4)
    assert report.left_dense["conv2"] == "it shares a parameter with conv1"
    assert sparse.conv2.weight is sparse.conv1.weight


class Branching(Residual):
    """Its forward asks for a value."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if x.sum() > 0 else -x)


def test_what_fx_cannot_trace_is_converted_layer_by_layer() -> None:
    torch.manual_seed(0)
    dense = Branching().double()
    sparse, report = converted(dense, 0.25, block=4)
    assert list(report.layers) == ["conv1", "conv2"]
    assert "torch.fx cannot trace Branching: " in str(report.untraced)
    torch.testing.assert_close(dense_again(sparse)(image()), sparse(image()))


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_a_lazy_model_is_converted_where_it_can_be_and_absorbed_once_it_has_run() -> None:
    dense = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.LazyConv2d(16, 3), nn.Conv2d(16, 16, 1),
        nn.Conv2d(16, 16, 1),
    ).double()  # fmt: skip
    sparse, report = converted(dense, {"2": 0.5, "3": 0.5}, block=4, method="shuffled")
    assert "not initialised yet" in report.left_dense["2"]
    assert list(report.layers) == ["3"]
    assert "is not initialised yet: run the model once" in str(report.untraced)
    assert absorb(sparse)[1].canonical == ()
    expected = sparse(image())
    absorbed, absorption = absorb(sparse)
    assert absorption.canonical == ("3",)
    torch.testing.assert_close(absorbed(image()), expected)


BAD = [
    (
        {"model": nn.Linear(2, 2)},
        ValueError,
        "expected a model with Conv2d layers, got Linear with",
    ),
    ({"model": 3}, TypeError, "expected model as a torch.nn.Module, got int"),
    ({"densities": {"convx": 0.5}}, ValueError, "densities of conv2 or conv1, got 'convx'"),
    ({"keep_dense": ("nothing",)}, ValueError, "keep_dense of stem or .*, got 'nothing'"),
    ({"keep_dense": "conv1"}, TypeError, "expected keep_dense as a collection of names"),
    ({"densities": "0.5"}, TypeError, "expected densities as a number or by name"),
    ({"densities": {"conv1": "much"}}, TypeError, "conv1: expected a density as a number"),
    ({"densities": {"conv1": 0.01}}, ValueError, "conv1: expected density >= 0.25"),
    ({"densities": 0.01}, ValueError, "0.25"),
    ({"scores": {"conv1": torch.ones(16, 16, 3, 3)}}, ValueError, "got none of conv2"),
    (
        {"scores": {"conv1": torch.ones(16, 16, 1, 1)}},
        ValueError,
        r"conv1: expected scores \[16, 16",
    ),
    ({"scores": {"other": torch.ones(1)}}, ValueError, "scores of stem or .*, got 'other'"),
    ({"scores": torch.ones(3)}, TypeError, "expected scores by layer name, got Tensor"),
    ({"on_unsupported": "skip"}, ValueError, "expected on_unsupported as one of dense, raise"),
    ({"method": "unstructured"}, ValueError, "conv1: expected a method whose blocks survive"),
    ({"block": 0}, ValueError, "expected block"),
    ({"balance": "all"}, ValueError, "expected balance as one of"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input_is_named(change: dict, error: type[Exception], message: str) -> None:
    arguments = {"model": model(), "densities": 0.5, "block": 4} | change
    with pytest.raises(error, match=message):
        converted(arguments.pop("model"), arguments.pop("densities"), **arguments)


def test_scores_that_are_not_finite_name_their_layer() -> None:
    scores = {name: torch.ones(16, 16, 3, 3) for name in ("conv1", "conv2")}
    scores["conv2"][0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="conv2: expected scores >= 0 and finite, got 1 NaN"):
        converted(model(), 0.5, block=4, scores=scores)


def test_a_sparse_model_cannot_be_converted_twice() -> None:
    sparse, _ = converted(nn.Sequential(nn.Conv2d(16, 16, 1)), {"0": 0.5}, block=4)
    with pytest.raises(ValueError, match="with 1 that are sparse already"):
        converted(sparse, 0.5, block=4)
