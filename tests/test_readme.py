"""The README's code runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from hrbp_core import BlockSparseConv2d

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_all_examples_are_known() -> None:
    assert len(BLOCKS) == 3


def run(number: int) -> dict[str, Any]:
    names: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exec(compile(BLOCKS[number], str(README), "exec"), names)
    return names


def test_a_model_becomes_sparse_and_dense_again(capsys: pytest.CaptureFixture[str]) -> None:
    names = run(0)
    sparse, model, images = names["sparse"], names["model"], names["images"]
    layers = [m for m in sparse.modules() if isinstance(m, BlockSparseConv2d)]
    assert len(layers) == len(names["report"].layers) == 11  # ERK leaves narrow layers whole
    assert all(layer.pattern.is_canonical for layer in layers)
    told = capsys.readouterr().out
    assert "11 sparse layers (hrbp2), 9 dense" in told
    assert "11 of 11 sparse layers permute nothing" in told
    with torch.no_grad():
        expected, got = sparse.eval()(images), model.eval()(images)
    assert float((got - expected).norm()) <= 1e-5 * float(expected.norm())
    # five lines, as the heading says
    steps = BLOCKS[0].split("\n\n")[-2].strip().splitlines()
    assert len(steps) == 5


def test_one_layer() -> None:
    names = run(1)
    layer, conv, dense = names["layer"], names["conv"], names["dense"]
    assert layer.values.grad.shape == names["pattern"].values_shape
    assert torch.equal(dense.weight, conv.weight * names["pattern"].mask())


def test_a_pattern_that_moves() -> None:
    names = run(2)
    assert names["dst"].updates == 1  # after step 2 of 3
    assert names["dst"].explored.whole > 0.5
