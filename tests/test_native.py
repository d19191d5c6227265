"""Machine code written for this processor is right, in every pass, width and shape."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrbp_core.kernels import cpu
from hrbp_core.kernels.native import gradients, layout, machine, passes
from hrbp_core.kernels.native import threads as native_threads
from hrbp_core.shapes import ConvShape
from tests.cpu_checks import LOW, Results, check, oracle, ours, plan_of
from tests.pattern_samples import STYLES, Problem, random_pattern

pytestmark = pytest.mark.skipif(machine.obstacle() != "", reason=machine.obstacle() or "runs")
WIDTHS = (8, 16)  # AVX2 and AVX-512; the wider one runs on either, LLVM splits its vectors
GEOMETRY = ((1, 1), (1, 1), (1, 1))


@pytest.fixture(autouse=True)
def demanded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No pass may fall back to torch's convolutions unseen."""
    monkeypatch.setenv("HRBP_CPU_KERNELS", "native")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def width(lanes: int, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(machine, "lanes", lambda: lanes)


@st.composite
def native_problems(draw: st.DrawFn, lanes: int) -> Problem:
    """Blocks of whole vectors; everything else may be odd."""

    def sizes(low: int, high: int) -> int:
        return draw(st.integers(low, high))

    times = draw(st.sampled_from([(1, 2), (2, 1), (3, 4), (4, 3)]))  # each compiles anew
    block = (lanes * times[0], lanes * times[1])
    k, c = sizes(block[0], 3 * block[0]), sizes(block[1], 3 * block[1])
    r, s, h, w = sizes(1, 4), sizes(1, 4), sizes(1, 12), sizes(1, 12)
    stride, dilation = (sizes(1, 3), sizes(1, 3)), (sizes(1, 3), sizes(1, 3))
    least = [max(0, -(-((n - 1) * d + 1 - e) // 2)) for n, d, e in zip((r, s), dilation, (h, w))]  # noqa: B905
    padding = (least[0] + sizes(0, 3), least[1] + sizes(0, 3))
    style = draw(st.sampled_from(STYLES))
    seed = sizes(0, 2**16)
    pattern = random_pattern((k, c, r, s), block, seed, style, some_taps=draw(st.booleans()))
    shape = ConvShape(sizes(1, 4), c, h, w, k, r, s, stride, padding, dilation)
    return Problem(pattern, shape, seed)


@pytest.mark.parametrize("dtype", [torch.float32, *LOW])
@pytest.mark.parametrize("lanes", WIDTHS)
def test_three_passes(lanes: int, dtype: torch.dtype) -> None:
    @settings(max_examples=25)
    @given(native_problems(lanes))
    def run(problem: Problem) -> None:
        with pytest.MonkeyPatch.context() as patch:
            width(lanes, patch)
            check(problem, dtype, ours)

    run()


@pytest.mark.parametrize("lanes", WIDTHS)
@pytest.mark.parametrize("band_bytes", [1, 6000])
@pytest.mark.parametrize("geometry", [GEOMETRY, ((2, 3), (2, 1), (1, 2)), ((3, 2), (0, 4), (2, 1))])
def test_narrow_bands(
    lanes: int, band_bytes: int, geometry: layout.Geometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image in many bands gives the same numbers, to the last bit forward."""
    width(lanes, monkeypatch)
    problem = usual(3, geometry)
    whole = ours(problem, *problem.tensors(torch.float32))
    monkeypatch.setattr(layout, "BAND_BYTES", band_bytes)
    monkeypatch.setattr(gradients, "SPAN_BYTES", 1500)
    plan_of(problem)._made.clear()
    again = ours(problem, *problem.tensors(torch.float32))
    assert torch.equal(again["fprop"], whole["fprop"])
    assert torch.equal(again["dgrad"], whole["dgrad"])
    check(problem, torch.float32, ours)


def usual(images: int, geometry: layout.Geometry = GEOMETRY, k: int = 96, c: int = 64) -> Problem:
    pattern = random_pattern((k, c, 3, 3), (32, 16), 3, "random")
    return Problem(pattern, ConvShape(images, c, 13, 11, k, 3, 3, *geometry), 3)


@pytest.mark.parametrize("dilation", [5, 9])
def test_dilated_taps_copy_no_row_many_times(dilation: int) -> None:
    """As in DeepLab's heads, where a copy a row of the output would be mostly repetition."""
    taps = ((1, 1), (dilation, dilation), (dilation, dilation))
    check(usual(2, taps), torch.float32, ours)
    rows, columns = layout.axes((3, 3), taps, (33, 33), forward=True)
    band, copy = layout.plan_bands(rows, columns, 33, 64, 32, 8, 2)
    assert -(-33 // band) * copy.rows <= 2 * 33 + 4 * dilation


def test_a_copy_that_is_too_large_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = usual(1)
    x, values, _ = problem.tensors(torch.float32)
    monkeypatch.setattr(cpu, "COPY_LIMIT_BYTES", 10_000)
    with pytest.raises(RuntimeError, match="a copy above 10000 bytes"):
        cpu.fprop(x, values, plan_of(problem), problem.geometry)
    monkeypatch.setenv("HRBP_CPU_KERNELS", "auto")
    check(problem, torch.float32, ours)


def test_one_number_of_threads_for_memory_and_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone else may set torch's threads after the memory of a call was made."""
    problem = usual(5)
    x, values, dy = problem.tensors(torch.float32)
    real, seen = native_threads.parallel(), []

    def late(function: int, slots: int, threads: int, flags: int) -> None:
        seen.append(threads)
        assert real is not None
        real(function, slots, threads, flags)

    def found() -> Callable[..., None]:
        torch.set_num_threads(9)
        return late

    monkeypatch.setattr(native_threads, "parallel", found)
    torch.set_num_threads(2)
    cpu.fprop(x, values, plan_of(problem), problem.geometry)
    torch.set_num_threads(2)
    cpu.wgrad(dy, x, plan_of(problem), problem.geometry)
    assert seen == [2, 2, 2]  # weights, fprop; wgrad


@pytest.mark.parametrize("threads", [1, 2, 5, 16])
@pytest.mark.parametrize("images", [1, 7])
def test_any_number_of_threads(threads: int, images: int) -> None:
    problem = usual(images)
    tensors = problem.tensors(torch.float32)
    torch.set_num_threads(1)
    alone = ours(problem, *tensors)
    torch.set_num_threads(threads)
    together = ours(problem, *tensors)
    again = ours(problem, *tensors)
    for name in ("fprop", "dgrad"):
        assert torch.equal(alone[name], together[name])
    torch.testing.assert_close(alone["wgrad"], together["wgrad"], rtol=1e-5, atol=1e-4)
    assert torch.equal(together["wgrad"], again["wgrad"])
    check(problem, torch.float32, ours)


def test_callers_in_threads_of_their_own() -> None:
    """autograd runs backward passes in other threads than forward ones."""
    problems = [usual(2, k=32 * n) for n in (1, 2, 3, 4)]
    inputs = [p.tensors(torch.float32) for p in problems]
    expected = [ours(p, *t) for p, t in zip(problems, inputs, strict=True)]
    ready = threading.Barrier(4)

    def work(i: int) -> list[Results]:
        ready.wait()
        return [ours(problems[i], *inputs[i]) for _ in range(10)]

    with ThreadPoolExecutor(4) as pool:
        for want, found in zip(expected, pool.map(work, range(4)), strict=True):
            for got in found:
                assert all(torch.equal(got[name], want[name]) for name in want)


@pytest.mark.parametrize("dtype", [torch.float32, *LOW])
def test_the_bias_is_added_before_rounding(dtype: torch.dtype) -> None:
    problem = usual(2, k=90)
    x, values, dy = problem.tensors(dtype)
    bias = torch.linspace(-300, 300, 90).to(dtype)
    y = cpu.fprop(x, values, plan_of(problem), problem.geometry, bias)
    expected = oracle(problem, x, values, dy)["fprop"] + bias.double().view(1, -1, 1, 1)
    bound = 1e-4 if dtype == torch.float32 else torch.finfo(dtype).eps / 2 * 1.05
    torch.testing.assert_close(y.double(), expected, rtol=bound, atol=1e-4)


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("lanes", WIDTHS)
def test_half_precision_rounds_as_torch_does(
    lanes: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ties, infinities, what is no number, and the largest: out of a 1x1 of the identity."""
    width(lanes, monkeypatch)
    pattern = random_pattern((lanes, lanes, 1, 1), (lanes, lanes), 0, "dense")
    plan = cpu.plan_for(pattern.entries, pattern.shape, pattern.block)
    values = pattern.pack(torch.eye(lanes).view(lanes, lanes, 1, 1)).to(dtype)
    edges = torch.tensor([float("inf"), float("-inf"), float("nan"), 0.0, -0.0])
    x = torch.cat([edges, torch.randn(59) * 10 ** torch.linspace(-3, 3, 59)])
    x = x.view(1, 1, 1, 64).expand(1, lanes, 1, 64).to(dtype)
    bias = torch.full((lanes,), 2.0**-9 * 3, dtype=dtype)
    only = torch.zeros(1, lanes, 1, 64, dtype=dtype)
    only[:, 0] = x[:, 0]  # a sum with other infinities would be no number
    y = passes.fprop(
        only.contiguous(memory_format=torch.channels_last), values, bias, plan, (1, 64),
        ((1, 1), (0, 0), (1, 1)),
    )  # fmt: skip
    expected = (only[:, 0].float() + bias[0].float()).to(dtype)
    assert torch.equal(y[:, 0].isnan(), expected.isnan())
    keep = ~expected.isnan()
    assert torch.equal(y[:, 0][keep], expected[keep])


@given(st.integers(0, 400))
def test_tiles_cover_the_pixels(pixels: int) -> None:
    tiles = layout.cut_pixels(pixels)
    assert sum(n * size for n, size in zip(tiles, layout.TILES, strict=True)) == pixels
    assert all(n >= 0 for n in tiles)
    steps = sum(n * max(size, 4) for n, size in zip(tiles, layout.TILES, strict=True))
    simple = pixels // 6 * 6 + (pixels % 6 > 0) * (max(4, pixels % 6) if pixels % 6 != 2 else 8)
    assert steps <= simple + 4


def test_tiles_by_hand() -> None:
    assert layout.cut_pixels(49) == (4, 5, 0, 0)
    assert layout.cut_pixels(14) == (0, 2, 1, 0)
    assert layout.cut_pixels(3) == (0, 0, 0, 3)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=40), st.integers(1, 8))
def test_runs_of_groups_are_even(counts: list[int], most: int) -> None:
    import numpy as np

    runs = gradients.even_runs(np.array(counts), most)
    assert runs[0] == 0
    assert runs[-1] == len(counts)
    assert (np.diff(runs) > 0).all()
    assert len(runs) - 1 <= most
    work = [sum(counts[a:z]) for a, z in pairwise(runs)]
    assert max(work) <= sum(counts) / most + 2 * max(counts)
