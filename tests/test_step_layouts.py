"""The dense baseline of ``bench step`` has the faster of two memory layouts."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.accuracy.models import example_batch, make
from bench.stepping import layouts, making
from bench.stepping.asked import Asked
from bench.stepping.stepper import Stepper

ASKED = Asked("digits-cnn", 4, block=16, method="aligned")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch):
    """Return a function that says how long steps take in each layout; their order is kept."""

    def take(**seconds: float) -> list[str]:
        order: list[str] = []

        def timed(stepper: Stepper, steps: int) -> list[float]:
            weight = stepper.network.get_submodule("blocks.0.conv1").weight
            assert isinstance(weight, torch.Tensor)
            last = weight.is_contiguous(memory_format=torch.channels_last)
            name = "channels_last" if last else "contiguous"
            order.append(name)
            return [99.0] * (steps - 1) + [seconds[name]]

        monkeypatch.setattr(Stepper, "timed", timed)
        return order

    return take


@pytest.mark.parametrize(("last", "plain", "wins"), [
    (0.2, 0.1, "contiguous"), (0.1, 0.2, "channels_last"), (0.1, 0.1, "channels_last"),
])  # fmt: skip
def test_the_faster_one_is_kept(slow, tmp_path: Path, last: float, plain: float, wins: str) -> None:
    order = slow(channels_last=last, contiguous=plain)
    network = make("digits-cnn", 0)
    before = copy.deepcopy(network.state_dict())
    facts = making._save_dense(ASKED, network, tmp_path, lambda _: None)
    assert facts == {
        "dense_layout": wins, "dense_layouts_s": {"channels_last": last, "contiguous": plain}
    }  # fmt: skip
    assert order == ["channels_last", "contiguous", "contiguous", "channels_last"] + order[:2]
    saved = making.load(ASKED, tmp_path, "dense")
    weight = saved.get_submodule("blocks.0.conv1").weight
    assert isinstance(weight, torch.Tensor)
    assert weight.is_contiguous(memory_format=layouts.LAYOUTS[wins])
    assert all(torch.equal(v, before[k]) for k, v in saved.state_dict().items())
    assert making.layout_of(tmp_path, "dense") == wins
    assert making.layout_of(tmp_path, "sparse") == "channels_last"


def test_long_steps_are_tried_once(slow) -> None:
    order = slow(channels_last=3.0, contiguous=2.0)
    network, batch = make("digits-cnn", 0), example_batch("digits-cnn", 4, 0)
    assert layouts.faster(layouts.step_seconds(network, batch, False)) == "contiguous"
    assert len(order) == 2


def test_a_compiled_step_is_not_asked(slow, tmp_path: Path) -> None:
    order = slow(channels_last=3.0, contiguous=2.0)
    asked = replace(ASKED, mode="compile")
    facts = making._save_dense(asked, make("digits-cnn", 0), tmp_path, lambda _: None)
    assert (facts["dense_layout"], facts["dense_layouts_s"], order) == ("channels_last", None, [])


def test_the_batch_is_in_the_networks_layout() -> None:
    asked = Asked("resnet20", 2, 0.5, block=8)
    for name, form in layouts.LAYOUTS.items():
        assert making.batch_for(asked, name)[0].is_contiguous(memory_format=form)
