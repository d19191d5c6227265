"""Policies and calibration on a CUDA device; skipped, with the reason, where there is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hrbp_core import BlockSparseConv2d, calibrate
from hrbp_core.regrouping import block_pattern
from hrbp_core.trials import DeviceClock, Trial
from tests.score_families import family

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def layer(method: str = "hrbp2", **options: Any) -> BlockSparseConv2d:
    scores = family("clustered", 128, 128, seed=1).expand(-1, -1, 3, 3)
    pattern = block_pattern(scores, 0.25, method=method, block=32)
    torch.manual_seed(0)
    made = BlockSparseConv2d(128, 128, 3, padding=1, pattern=pattern, **options)
    return made.to("cuda")


def image(n: int = 4) -> torch.Tensor:
    x = torch.randn(n, 128, 14, 14, generator=torch.Generator().manual_seed(1))
    return x.to("cuda", memory_format=torch.channels_last)


@pytest.mark.parametrize("method", ["aligned", "hrbp2", "hrbp2_pp", "hrbp"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_both_ways_agree(method: str, dtype: torch.dtype) -> None:
    made, found = layer(method).to(dtype), []
    for way in ("dense", "sparse"):
        made.policy = way
        x = image().to(dtype).requires_grad_()
        y = made(x)
        assert y.is_contiguous(memory_format=torch.channels_last)
        found.append((y, *torch.autograd.grad(y.square().mean(), (x, *made.parameters()))))
    most = {torch.float64: 1e-12, torch.float32: 2e-3, torch.bfloat16: 2e-2}[dtype]
    for ours, theirs in zip(*found, strict=True):
        assert float((ours - theirs).detach().norm()) <= most * float(theirs.detach().norm())


@pytest.mark.parametrize("made_on", ["cpu", "cuda"])
def test_places_move_with_the_layer(made_on: str) -> None:
    made = layer(policy="auto").to(made_on)
    made.choose("dense")
    made.to("cuda")
    assert made._unpacking is not None
    assert made._unpacking.places.is_cuda
    made._unpacking = made._unpacking.to(torch.device("cpu"))  # as FSDP leaves it
    assert made(image()).is_cuda
    assert made._unpacking.places.is_cuda


def test_calibrate_leaves_the_dice_and_chooses_by_device_time() -> None:
    model = nn.Sequential(layer(policy="auto"), nn.Dropout(0.5), layer(policy="auto"))
    before = torch.cuda.get_rng_state()
    with torch.autocast("cuda", torch.bfloat16):
        report = calibrate(model, image(64))
    assert torch.equal(torch.cuda.get_rng_state(), before)
    for name, found in report.layers.items():
        assert 1e-6 < found.sparse_s < 0.1
        assert found.choice == model.get_submodule(name).choice
        assert (found.choice == "dense") == (found.sparse_s > 1.03 * found.dense_s)


def test_the_clock_sees_the_device() -> None:
    clock = DeviceClock(torch.device("cuda", 0))
    a = torch.randn(4096, 4096, device="cuda")
    short: Any = Trial("", "sparse", None, lambda: a.add(1))  # type: ignore[arg-type]
    long: Any = Trial("", "sparse", None, lambda: [a @ a for _ in range(20)])  # type: ignore[arg-type]
    clock.seconds(long, 1)
    assert clock.seconds(long, 2) > 10 * clock.seconds(short, 2) > 0


@pytest.mark.parametrize("choice", ["sparse", "dense"])
def test_a_graph_holds_what_was_chosen_and_no_calibration(choice: str) -> None:
    made, x = layer(policy="auto").bfloat16().requires_grad_(False), image().bfloat16()
    made.choose(choice)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        made(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = made(x)
        with pytest.raises(RuntimeError, match="got it inside the capture of a CUDA graph"):
            calibrate(made, x)
    x.copy_(image().bfloat16() * 2)
    graph.replay()
    torch.testing.assert_close(y, made(x), rtol=0, atol=0)
