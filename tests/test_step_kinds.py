"""Operators and kernels sorted into kinds of work, by hand; and a real step's, by the profiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.step_table import (
    BACKWARD,
    DGRAD,
    ELEMENTWISE,
    FPROP,
    NORM,
    OPTIMIZER,
    OTHER,
    PERMUTATION,
    WGRAD,
)
from bench.stepping.kinds import kernel_kind, kind_of
from bench.stepping.spent import sparse_keys, spent
from bench.stepping.stepper import Stepper

ROOT = Path(__file__).parents[1]

NODE = "autograd::engine::evaluate_function: "
OURS = NODE + "GeneratedBackwardFor_hrbp_fprop_defaultBackward"
CONV_BACKWARD = [
    NODE + "ConvolutionBackward0",
    "ConvolutionBackward0",
    "aten::convolution_backward",
]
PATHS = [
    (["aten::conv2d", "aten::convolution", "aten::mkldnn_convolution"], FPROP),
    (["aten::cudnn_convolution"], FPROP),
    (["hrbp::fprop", "GeneratedBackwardFor_hrbp_fprop_default", "aten::add_"], FPROP),
    (["hrbp::one_sided_fprop", "aten::index_select"], FPROP),
    ([OURS, "hrbp::dgrad", "aten::zeros"], DGRAD),
    ([OURS, "hrbp::wgrad"], WGRAD),
    ([OURS], OTHER),
    (["hrbp::permute_channels"], PERMUTATION),
    (CONV_BACKWARD, BACKWARD),
    (["aten::batch_norm", "aten::native_batch_norm", "aten::empty_like"], NORM),
    ([NODE + "NativeBatchNormBackward0", "aten::native_batch_norm_backward"], NORM),
    (["aten::cudnn_batch_norm"], NORM),
    (["aten::layer_norm"], NORM),
    (["aten::relu", "aten::clamp_min"], ELEMENTWISE),
    ([NODE + "ReluBackward0", "ReluBackward0", "aten::threshold_backward"], ELEMENTWISE),
    ([NODE + "AddBackward0"], ELEMENTWISE),
    (["aten::add_"], ELEMENTWISE),
    (["Optimizer.step#SGD.step", "aten::_fused_sgd_"], OPTIMIZER),
    (["Optimizer.step#SGD.step", "aten::mul_"], OPTIMIZER),
    (["Optimizer.zero_grad#SGD.zero_grad"], OPTIMIZER),
    (["aten::addmm"], OTHER),
    ([NODE + "AddmmBackward0", "aten::mm"], OTHER),
    (["aten::max_pool2d"], OTHER),
    ([NODE + "torch::autograd::AccumulateGrad"], OTHER),
    (["aten::convert_element_type"], OTHER),
    (["Torch-Compiled Region: 0/0", "triton_red_fused__native_batch_norm_legit_functional_relu_3"],
     NORM),
    (["Torch-Compiled Region: 0/0", "triton_poi_fused_add_relu_3"], ELEMENTWISE),
]  # fmt: skip


@pytest.mark.parametrize(("path", "kind"), PATHS, ids=lambda v: v[-1] if isinstance(v, list) else v)
def test_operators_by_hand(path: list[str], kind: str) -> None:
    assert kind_of(path) == kind


@pytest.mark.parametrize(
    ("path", "kernel", "kind"),
    [
        (CONV_BACKWARD, "sm90_xmma_dgrad_implicit_gemm_bf16", DGRAD),
        (CONV_BACKWARD, "sm80_xmma_wgrad_implicit_gemm_indexed_tf32", WGRAD),
        (CONV_BACKWARD, "void cudnn::nchwToNhwcKernel", BACKWARD),
        (["aten::convolution"], "void cudnn::nchwToNhwcKernel", FPROP),
        (["hrbp::wgrad"], "wgrad_rows_kernel", WGRAD),
        ([], "triton_poi_fused_add_relu_3", ELEMENTWISE),
    ],
)
def test_kernels_by_hand(path: list[str], kernel: str, kind: str) -> None:
    assert kernel_kind(path, kernel) == kind


class Small(nn.Module):
    """Three convolutions, two of equal extents."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.one = nn.Conv2d(16, 16, 3, padding=1)
        self.two = nn.Conv2d(16, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.two(self.one(self.stem(x)))).relu()
        return y.mean((2, 3))


def test_convolutions_of_equal_extents_share_their_time() -> None:
    images = torch.zeros(2, 3, 8, 8)
    found = sparse_keys(Small(), images, ["one"])
    assert found == {((2, 16, 8, 8), (16, 16, 3, 3)): 0.5}


def test_a_real_step_is_taken_apart(one_thread: None) -> None:
    network, images = Small(), torch.randn(4, 3, 16, 16)
    keys = sparse_keys(network, images, ["one", "two"])
    found = spent(Stepper(network, (images, torch.tensor([0, 1, 2, 3]))), "cpu", keys, steps=2)
    kinds = found["kinds_s"]
    assert {FPROP, BACKWARD, NORM, ELEMENTWISE, OPTIMIZER} <= kinds.keys()
    assert all(seconds > 0 for seconds in kinds.values())
    assert sum(kinds.values()) <= 1.01 * found["span_s"]
    assert 0 < found["sparse_layers_s"] < kinds[FPROP] + kinds[BACKWARD]
    assert not found["on_device"]


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux tells it")
def test_the_peak_is_that_of_what_was_taken_since() -> None:
    """In a fresh process, as a comparison's: one that was larger before has a higher mark."""
    code = (
        "import torch\nfrom bench.stepping.memory import Peak\n"
        "peak = Peak('cpu')\nheld = torch.ones(40 * 2**20 // 4)\ndel held\n"
        "print(peak.bytes(), peak.what)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    held, what = done.stdout.split(" ", 1)
    assert 35 * 2**20 < int(held) < 400 * 2**20
    assert "process" in what
