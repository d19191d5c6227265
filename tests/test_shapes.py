"""ConvShape: output extents are torch's; costs are counted by hand; errors name the fault."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from hrbp_core.shapes import ConvShape, Pass, block_grid, least_density, output_extent, pair
from tests.pattern_samples import geometries

RESNET = ConvShape(N=8, C=256, H=14, W=14, K=512, R=3, S=3, stride=(2, 2), padding=(1, 1))


@given(geometries(most=4))
def test_output_extents_are_those_of_torch(drawn) -> None:
    r, s, (stride, padding, dilation), (h, w) = drawn
    shape = ConvShape(1, 1, h, w, 1, r, s, stride, padding, dilation)
    x, weight = torch.zeros(1, 1, h, w), torch.zeros(1, 1, r, s)
    y = functional.conv2d(x, weight, None, stride, padding, dilation)
    assert tuple(y.shape[2:]) == (shape.P, shape.Q)


@given(
    size=st.integers(1, 9),
    kernel=st.integers(1, 9),
    stride=st.integers(1, 4),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 4),
)
def test_what_torch_refuses_is_refused(
    size: int, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    extent = output_extent(size, kernel, stride, padding, dilation)
    geometry: dict[str, Any] = {
        "stride": (1, stride),
        "padding": (0, padding),
        "dilation": (1, dilation),
    }
    x, weight = torch.zeros(1, 1, 1, size), torch.zeros(1, 1, 1, kernel)
    try:
        y = functional.conv2d(x, weight, **geometry)
    except RuntimeError:
        assert extent < 1
        with pytest.raises(ValueError, match="expected an output with pixels, got 1x"):
            ConvShape(1, 1, 1, size, 1, 1, kernel, **geometry)
    else:
        assert extent == y.shape[3]


def test_costs_by_hand() -> None:
    assert (RESNET.P, RESNET.Q) == (7, 7)
    assert RESNET.filter_shape == (512, 256, 3, 3)
    assert RESNET.flops() == 2 * 512 * 256 * 9 * 8 * 49
    assert RESNET.flops(stored_weights=10) == 2 * 10 * 8 * 49
    assert RESNET.flops(stored_weights=0) == 0


def test_gemm_extents_by_hand() -> None:
    pixels = 8 * 7 * 7
    assert RESNET.gemm_extents("fprop") == (512, pixels, 2304)
    assert RESNET.gemm_extents(Pass.DGRAD) == (2304, pixels, 512)
    assert RESNET.gemm_extents(Pass.WGRAD) == (512, 2304, pixels)
    for each in Pass:
        m, n, k = RESNET.gemm_extents(each)
        assert 2 * m * n * k == RESNET.flops()
    with pytest.raises(ValueError, match="forward"):
        RESNET.gemm_extents("forward")


@pytest.mark.parametrize("each", list(Pass))
def test_least_bytes_by_hand(each: Pass) -> None:
    x, y = 8 * 256 * 14 * 14, 8 * 512 * 7 * 7
    assert RESNET.least_bytes(each, 2) == 2 * (x + y + 512 * 256 * 9)
    assert RESNET.least_bytes(each, 4, stored_weights=1000) == 4 * (x + y + 1000)
    assert RESNET.least_bytes(each.value, 4, stored_weights=0) == 4 * (x + y)


def test_least_bytes_refuses_an_unknown_pass() -> None:
    with pytest.raises(ValueError, match="backward"):
        RESNET.least_bytes("backward", 4)


@pytest.mark.parametrize("name", list("NCHWKRS"))
@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
def test_extents_are_positive_ints(name: str, value: object) -> None:
    extents: dict[str, Any] = dict.fromkeys("NCHWKRS", 1) | {name: value}
    with pytest.raises(ValueError, match=f"expected {name} as an int >= 1, got"):
        ConvShape(**extents)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("stride", 0, ValueError),
        ("stride", (1, 0), ValueError),
        ("padding", -1, ValueError),
        ("dilation", (1, 1, 1), ValueError),
        ("dilation", (), ValueError),
        ("stride", True, TypeError),
        ("stride", (1, 2.0), TypeError),
        ("padding", "same", TypeError),
        ("padding", [True, 1], TypeError),
    ],
)
def test_geometry_errors_name_the_argument(name: str, value: Any, error: type) -> None:
    with pytest.raises(error, match=f"expected {name} as"):
        ConvShape(1, 1, 4, 4, 1, 1, 1, **{name: value})


def test_pair() -> None:
    assert pair(3, "stride", least=1) == (3, 3)
    assert pair([3], "stride", least=1) == (3, 3)
    assert pair([3, 4], "stride", least=1) == (3, 4)
    assert pair(torch.Size([3, 4]), "stride", least=1) == (3, 4)
    assert pair(0, "padding", least=0) == (0, 0)


GIVEN: dict[str, Any] = {"stride": 2, "padding": [1, 0], "dilation": (1, 3)}


def test_ints_become_pairs_and_survive_json() -> None:
    shape = ConvShape(2, 3, 9, 8, 4, 3, 2, **GIVEN)
    assert (shape.stride, shape.padding, shape.dilation) == ((2, 2), (1, 0), (1, 3))
    again = ConvShape.from_dict(json.loads(json.dumps(shape.to_dict())))
    assert again == shape
    assert hash(again) == hash(shape)


def test_block_grid_and_least_density() -> None:
    assert block_grid(RESNET, 32) == (16, 8)
    assert block_grid((65, 31, 3, 3), (32, 31)) == (3, 1)
    assert least_density(RESNET, 32) == 1 / 8
    assert least_density((64, 64), (16, 64)) == 1.0
    assert least_density((64, 128), (16, 16)) == 1 / 4
    for block in ((65, 1), (1, 33)):
        with pytest.raises(ValueError, match="expected a block no larger than the layer, got"):
            block_grid((64, 32), block)


def test_shapes_need_no_torch() -> None:
    code = "import hrbp_core.shapes, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
