"""profile on a live device: real on a CPU, scripted events for a GPU."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType
from typer.testing import CliRunner

from bench import cli_live, cli_offline, live_profile, ncu, trace
from bench import profile as offline
from bench.cli import app
from bench.live_profile import LiveProfile, Seen
from bench.records import Cell, Measurement, Status
from bench.suites import Sweep, cases
from bench.trace import Kernel, Profiled
from hrbp_core.shapes import Pass
from tests.store_samples import ENVIRONMENT, measurement
from tests.test_profile_cli import assert_refused

LAYER = ["--layer", "conv5_3x3", "--block", "64", "--density", "0.25", "--device", "cpu"]
SMALL = [*LAYER, "--batch", "1", "--pass", "fprop", "--calls", "3"]


def profile(*words):
    return CliRunner().invoke(app, ["profile", *map(str, words)], env={"COLUMNS": "200"})


def test_a_layer_on_this_cpu(tmp_path) -> None:
    done = profile(*SMALL, "--impls", "dense,block_sparse,cusparse_bsr", "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "conv5_3x3 fprop dense: " in done.stdout
    assert "x dense" in done.stdout
    assert "attainment" in done.stdout
    assert "aten::mkldnn_convolution" in done.stdout
    assert "hrbp::fprop" in done.stdout
    assert done.stdout.count("host and gaps: ") == 2
    assert "cusparse_bsr: skipped\n  cuSPARSE runs on CUDA alone\n" in done.stdout
    report = json.loads((tmp_path / "profile.json").read_text())
    assert report["what"] == "live profile"
    dense, ours, skipped = report["seen"]
    assert skipped["kernels"] is None
    for each in (dense, ours):
        assert each["measurement"]["errors"]["worst_over_bound"] <= 1
        own = sum(kernel["seconds"] for kernel in each["kernels"])
        assert 0 < own < each["span_s"]
        assert each["gaps_s"] == pytest.approx(each["span_s"] - own)
        name = f"{each['measurement']['cell_id']}.json.gz"
        kept = json.loads(gzip.decompress((tmp_path / "traces" / name).read_bytes()))
        # our machine code is no operator of its own: its time is hrbp::fprop's own
        names = {event.get("name") for event in kept["traceEvents"]}
        assert ("aten::mkldnn_convolution" if each is dense else "hrbp::fprop") in names


def test_nothing_is_left_without_a_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = profile(*SMALL, "--impls", "block_sparse", "--json", "p.json")
    assert done.exit_code == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]
    (each,) = json.loads((tmp_path / "p.json").read_text())["seen"]
    assert each["speedup"] is None, "no dense to compare with"


def event(name, kind, own_us, **more):
    return SimpleNamespace(
        name=name, device_type=kind, self_cpu_time_total=own_us, is_user_annotation=False,
        time_range=SimpleNamespace(elapsed_us=lambda: own_us), **more,
    )  # fmt: skip


def test_on_a_gpu_kernels_alone_count() -> None:
    events = SimpleNamespace(
        events=lambda: [
            event("cudaLaunchKernel", DeviceType.CPU, 50.0),
            event("gather_conv", DeviceType.CUDA, 10.0),
            event("gather_conv", DeviceType.CUDA, 14.0),
            event("Memset (Device)", DeviceType.CUDA, 2.0),
        ]
    )
    conv, fill = trace._kernels(events, "cuda", 2)
    assert (conv.name, conv.launches) == ("gather_conv", 1.0)
    assert (fill.name, fill.launches) == ("Memset (Device)", 0.5)
    assert (conv.seconds, fill.seconds) == pytest.approx((12e-6, 1e-6))


def test_the_profiler_counts_each_call_once() -> None:
    x = torch.randn(32, 32)
    found = trace.profiled(lambda: torch.mm(x, x), "cpu", calls=4)
    (product,) = [k for k in found.kernels if k.name == "aten::mm"]
    assert product.launches == 1
    assert 0 < product.seconds < found.span_s


def seen(status=Status.OK, device="cuda", counters=None):
    case = replace(measurement(0).cell.case, device=device)
    ok = status is Status.OK
    found = Measurement(
        Cell(case, "block_sparse", "hot"), "env", status, None if ok else "so it is",
        (1e-4,) if ok else (), detail={"enqueue_s": 2e-5},
    )  # fmt: skip
    row = {"median_s": 1e-4, "low_s": 9e-5, "high_s": 1.1e-4, "speedup": 2.0,
           "attainment": float("nan"), "flags": "noisy"}  # fmt: skip
    kernels = (Kernel("gather_conv" * 20, 1.0, 8e-5), Kernel("a", 2.0, 1e-7), Kernel("b", 1, 1e-7))
    profiled = Profiled(kernels, 3e-4, None) if ok else None
    return Seen(found, row, profiled, counters)


def test_gaps_on_a_gpu_are_of_the_call_that_was_timed() -> None:
    assert seen().gaps_s == pytest.approx(1e-4 - 8.02e-5)
    assert seen(device="cpu").gaps_s == pytest.approx(3e-4 - 8.02e-5)


def test_what_is_printed_of_a_gpu(capsys) -> None:
    counters = ncu.Report((ncu.Kernel("gather_conv", 2, 8e-5, {"registers": 168.0, "x": None}),))
    cli_live._render(
        LiveProfile(replace(ENVIRONMENT, device="cuda"), (seen(counters=counters),)), calls=20
    )
    told = capsys.readouterr().out
    assert "block_sparse: 100.0 µs (90.0 to 110.0), 2.00x dense, noisy\n" in told
    assert (
        "host and gaps: 19.80 µs of the call have no kernel; the host enqueues it in 20.0 µs"
        in told
    )
    assert "80.00  99.8%      1  gather_convgather_conv" in told
    assert "0.20   0.2%      3  others" in told
    assert "ncu: gather_conv x2: 80.00 µs, registers 168\n" in told
    assert "GPU kernels" in told


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([Status.OK], 0),
        ([Status.OK, Status.SKIPPED], 0),
        ([Status.SKIPPED, Status.CRASHED], 2),
        ([Status.OK, Status.WRONG], 5),
        ([Status.IMPOSSIBLE], 5),
    ],
)
def test_exit_codes(statuses, code) -> None:
    each = tuple(
        Seen(Measurement(measurement(0).cell, "env", s, None if s is Status.OK else "r",
                         (1.0,) if s is Status.OK else ()), {}, None)
        for s in statuses
    )  # fmt: skip
    assert LiveProfile(ENVIRONMENT, each).exit_code == code


def test_counters_are_asked_for_with_the_cell(monkeypatch) -> None:
    asked = []

    def collect(command, nvtx_range):
        asked.append(command)
        return ncu.Report()

    monkeypatch.setattr(ncu, "collect", collect)
    each = seen()
    assert live_profile._count(each.measurement) == ncu.Report()
    assert asked[0][1:3] == ["-m", "bench.repeat"]
    assert Cell.from_dict(json.loads(asked[0][3])) == each.measurement.cell
    assert live_profile._count(seen(Status.WRONG).measurement) is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*LAYER, "--tile", "8x8"], "expected --tile with --offline, got it without it"),
        ([*LAYER, "--gpu-sms", "8"], "expected --gpu-sms with --offline"),
        ([*LAYER, "--offline", "--ncu"], "expected --device without --offline, got it with it"),
        ([*LAYER[:-2], "--offline", "--ncu"], "expected --ncu without --offline, got it with it"),
        (["--all-tiles"], "expected --all-tiles with --offline"),
        ([], "expected --layer, or --offline"),
        (LAYER[:4], "expected --block and --density with --layer"),
        ([*LAYER, "--calls", "0"], "expected --calls of at least 1, got 0"),
        ([*LAYER, "--ncu"], "expected --ncu with a GPU, got it on cpu"),
        ([*LAYER, "--impls", "nothing"], "got 'nothing'"),
        ([*LAYER, "--layer", "conv9"], "expected a layer of conv2_3x3, "),
        ([*LAYER, "--density", "0.001"], "pattern that conv5_3x3 can have: density 0.001"),
        ([*LAYER, "--pass", "x"], "pass of fprop, dgrad, wgrad; got 'x'"),
        ([*LAYER, "--device", "tpu"], "expected a device of auto, cpu, cuda"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(words, told) -> None:
    assert_refused(profile(*words), told)


@pytest.mark.parametrize(
    ("words", "told"),
    [(LAYER, "nothing is kept"), (["--offline", "--all-tiles"], "what is compiled is kept")],
)
def test_an_interrupt_says_what_is_kept(monkeypatch, words, told) -> None:
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_live, "profile_live", interrupted)
    monkeypatch.setattr(cli_offline, "profile_offline", interrupted)
    done = profile(*words)
    assert done.exit_code == 130
    assert f"interrupted; {told}" in done.stderr


def test_the_floor_is_worked_out_from_the_shape() -> None:
    sweep = Sweep(
        "quick", "cuda", dtype="bfloat16", passes=(Pass.FPROP,), densities=(0.25,), blocks=(64,),
        layers=("conv4_3x3",), batch=128,
    )  # fmt: skip
    case = cases(sweep)[0][0]
    model = offline.floor(case, 788.0, 4.3)
    weights = 4 * 9 * 64 * 64  # a quarter of 4 x 4 blocks, 9 taps
    flops, least = 2 * weights * 128 * 14 * 14, 2 * (2 * 128 * 256 * 14 * 14 + weights)
    assert (model["flops"], model["least_bytes"]) == (flops, least)
    assert model["floor_s"] == pytest.approx(flops / 788e12)
    assert model["memory_s"] == pytest.approx(least / 4.3e12)
    assert offline.floor(case, 788.0, 1.0)["floor_s"] == pytest.approx(least / 1e12)
    assert offline.floor(replace(case, dtype="float32"), None, 4.3)["floor_s"] is None
