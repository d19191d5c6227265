"""Checkpoints of BlockSparseConv2d: they bring their pattern, or change nothing."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.pattern import BlockPattern
from tests.pattern_samples import random_pattern

SHAPE = (12, 10, 3, 3)
CANONICAL = random_pattern(SHAPE, (4, 3), 0)
PERMUTED = random_pattern(SHAPE, (4, 3), 1, permuted=True, some_taps=True)
OTHER = random_pattern(SHAPE, (4, 3), 2, "diagonal", permuted=True)
TABLES = ("layout", "filters", "channels", "entries")
BOTH = pytest.mark.parametrize("pattern", [CANONICAL, PERMUTED], ids=["canonical", "permuted"])


def layer(pattern: BlockPattern = PERMUTED, **options) -> BlockSparseConv2d:
    return BlockSparseConv2d(10, 12, 3, padding=1, pattern=pattern, **options)


def image(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 10, 6, 5, generator=torch.Generator().manual_seed(0)).to(dtype)


@BOTH
def test_state_dict_round_trip(pattern: BlockPattern) -> None:
    one, other = layer(pattern), layer(pattern)
    state = one.state_dict()
    assert set(state) == {*TABLES, "chosen", "values", "bias"}
    assert other.load_state_dict(state) == ([], [])
    assert torch.equal(one(image()), other(image()))


def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("pair", [(CANONICAL, PERMUTED), (PERMUTED, CANONICAL), (PERMUTED, OTHER)])
@pytest.mark.parametrize("assign", [False, True])
def test_loading_adopts_the_pattern_of_the_checkpoint(pair: tuple, assign: bool) -> None:
    one, other = layer(pair[0]), layer(pair[1])
    before, parameter = other.pattern, other.values
    other(image()).sum().backward()
    model = nn.Sequential(other, nn.ReLU())
    model.load_state_dict(through_a_file(nn.Sequential(one).state_dict()), assign=assign)
    assert before == pair[1]
    assert other.pattern == pair[0]
    assert torch.equal(one(image()), other(image()))
    torch.testing.assert_close(other(image()), one.to_dense()(image()), rtol=1e-5, atol=1e-5)
    if not assign:  # an optimizer holds the parameter
        assert other.values is parameter
    other(image()).sum().backward()
    assert other.values.grad is not None
    assert other.values.grad.shape == other.values.shape


def test_a_gradient_of_the_same_pattern_stays() -> None:
    one, other = layer(), layer()
    other(image()).sum().backward()
    gradient = other.values.grad
    other.load_state_dict(one.state_dict())
    assert other.values.grad is gradient


def everything(module: nn.Module) -> dict[str, torch.Tensor]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in tensors}


def checkpoint(change: str) -> dict[str, torch.Tensor]:
    if change == "block":
        return layer(random_pattern(SHAPE, (3, 4), 0)).state_dict()
    if change == "shape":
        pattern = random_pattern((12, 10, 1, 1), (4, 3), 0)
        return BlockSparseConv2d(10, 12, 1, pattern=pattern).state_dict()
    state = layer(OTHER).state_dict()
    if change == "values":
        state["values"] = state["values"][1:]
    elif change == "entries":
        state["entries"] = state["entries"].flip(0)
    elif change == "a float table":
        state["channels"] = state["channels"].float()
    else:
        del state[change.removeprefix("no ")]
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("block", r"conv: expected a checkpoint of .* \[12, 10, 3, 3, 4, 3\], got"),
        ("shape", r"conv: expected a checkpoint of .*, got \[12, 10, 1, 1, 4, 3\]"),
        ("values", "conv: expected values .* for the checkpoint's own pattern"),
        ("entries", "conv: expected distinct entries"),
        ("a float table", "conv: expected channels as an integer tensor"),
        *((f"no {name}", "conv: expected all of") for name in (*TABLES, "values")),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_another_checkpoint_raises_and_changes_nothing(change, message, strict: bool) -> None:
    model = nn.Sequential()
    model.add_module("conv", layer())
    before = everything(model)
    state = {f"conv.{name}": tensor for name, tensor in checkpoint(change).items()}
    with pytest.raises(RuntimeError, match=message):
        model.load_state_dict(state, strict=strict)
    after = everything(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_missing_keys_are_named() -> None:
    state = layer(OTHER).state_dict()
    del state["bias"]
    with pytest.raises(RuntimeError, match=r'Missing key.* "bias"'):
        layer().load_state_dict(state)
    with pytest.raises(RuntimeError, match=r'Missing key.* "values", .*"entries"'):
        layer().load_state_dict({"bias": state["values"].new_zeros(12)})


def test_values_alone_load_into_the_pattern_that_is_here() -> None:
    one, other = layer(), layer()
    other.load_state_dict({"values": one.values, "bias": one.bias}, strict=False)
    assert torch.equal(one(image()), other(image()))


def test_a_layer_on_meta_takes_a_checkpoint_by_assignment() -> None:
    one, other = layer(), layer(OTHER).to("meta")
    assert other.values.is_meta
    other.load_state_dict(one.state_dict(), assign=True)
    assert torch.equal(one(image()), other(image()))
