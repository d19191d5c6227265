"""What is asked of a network's convolutions: output pixels, shared parameters, modes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hrbp_core.convs import dense_by_default, modes_kept, output_places, shared_parameters


class Odd(nn.Module):
    """A convolution called twice, and a linear layer on four dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 3, stride=2)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(4, 7)
        self.drop = nn.Dropout()

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.head(self.drop(self.norm(self.stem(self.stem(x)))) * scale)


def test_output_pixels_are_counted_over_all_calls_and_nothing_changes() -> None:
    model = Odd()
    model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    example = torch.randn(2, 3, 23, 19)
    found = output_places(model, (example, 2.0))
    assert found == {"stem": 2 * (11 * 9 + 5 * 4), "head": 2 * 3 * 5}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert (model.training, model.norm.training, model.drop.training) == (True, False, True)
    assert not model.stem._forward_hooks


def test_an_image_without_a_batch() -> None:
    assert output_places(nn.Sequential(nn.Conv2d(3, 8, 3)), torch.randn(3, 7, 9)) == {"0": 35}


def test_hooks_and_modes_come_back_after_an_error() -> None:
    model = Odd()
    with pytest.raises(RuntimeError):
        output_places(model, torch.randn(2, 4, 23, 19))
    assert not model.stem._forward_hooks
    assert model.training
    with modes_kept(model):
        model.eval()
    assert model.norm.training


def test_what_stays_dense_by_default() -> None:
    convs = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 5, 1))
    assert dense_by_default(convs) == {"0": "the first convolution", "2": "the classifier"}
    assert dense_by_default(nn.Sequential(*convs, nn.Linear(5, 5))) == {
        "0": "the first convolution"
    }
    assert dense_by_default(nn.Sequential(convs[0])) == {"0": "the first convolution"}
    assert dense_by_default(nn.Linear(2, 2)) == {}


def test_shared_parameters_name_each_other() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    assert shared_parameters(model) == {}
    model[2].bias = model[0].bias
    assert shared_parameters(model) == {"0": "2", "2": "0"}
