"""The search for the break-even sparsity on scripted speed-ups."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.breakeven import Answer, Failed, Point, search, sentence

MOST = 64


def scripted(curve, width=0.0, asked=None):
    def measure(blocks):
        if asked is not None:
            asked.append(blocks)
        sparsity = 1 - blocks / MOST
        ratio = curve(sparsity)
        return Point(blocks, sparsity, ratio, 1.0, ratio, ratio * (1 - width), ratio * (1 + width))

    return measure


def efficiency(e):
    """A kernel at a share e of dense throughput breaks even at sparsity 1 - e."""
    return lambda sparsity: e / (1 - sparsity)


def test_the_textbook_case():
    asked = []
    found = search(scripted(efficiency(0.6), asked=asked), 8, MOST)
    assert found.answer is Answer.FOUND
    assert found.sparsity == pytest.approx(0.4, abs=0.01)
    assert found.low <= 0.4 <= found.high
    assert len(asked) == len(set(asked)) == 7
    assert "sparsity 0.40 (" in sentence(found, "x")


@given(st.floats(0.15, 0.95), st.floats(0, 0.2), st.integers(5, 9))
def test_the_crossing_lies_in_the_interval(e, width, points):
    found = search(scripted(efficiency(e), width), 8, MOST, points)
    assert found.answer is Answer.FOUND
    assert found.low <= 1 - e <= found.high
    assert found.monotone
    assert len(found.points) <= points


def test_noise_widens_the_interval():
    calm = search(scripted(efficiency(0.6), 0.001), 8, MOST)
    noisy = search(scripted(efficiency(0.6), 0.2), 8, MOST)
    assert noisy.high - noisy.low > calm.high - calm.low


def test_what_is_not_sure_is_no_end_of_the_interval():
    """Slower in the median, but its interval reaches beyond 1: the next slower one counts."""
    widths = {8: 0.01, 64: 0.01, 36: 0.1}
    points = {8: 3.0, 64: 0.5, 36: 0.95, 22: 1.5, 29: 1.2, 32: 1.1, 34: 1.05}

    def measure(blocks):
        ratio, width = points[blocks], widths.get(blocks, 0.01)
        sparsity = 1 - blocks / MOST
        return Point(blocks, sparsity, ratio, 1.0, ratio, ratio * (1 - width), ratio * (1 + width))

    found = search(measure, 8, MOST)
    assert found.low == 0.0, "36 blocks are not surely slower"
    assert found.high == 1 - 34 / MOST


def test_never_and_always():
    asked = []
    found = search(scripted(lambda s: 0.8, 0.1, asked), 8, MOST)
    assert (found.answer, found.sparsity, asked) == (Answer.NEVER, None, [8])
    assert sentence(found, "x") == "x: never; 0.80x (0.72 to 0.88) at sparsity 0.88"
    assert sentence(search(scripted(lambda s: 0.95, 0.1), 8, MOST), "x").endswith("is not sure")
    found = search(scripted(lambda s: 1.2 + s), 8, MOST)
    assert (found.answer, found.sparsity) == (Answer.ALWAYS, None)
    assert "always; 1.20x" in sentence(found, "x")


def test_points_that_contradict_each_other_are_told():
    """Surely slower at 0.56, surely faster at 0.28: the interval spans both."""
    curve = {8: 3.0, 64: 0.5, 36: 0.9, 22: 1.5, 29: 1.2, 32: 1.1, 34: 1.05}
    measure = scripted(lambda s: curve[round((1 - s) * MOST)], 0.01)
    assert search(measure, 8, MOST).monotone
    curve[36], curve[50], curve[43] = 1.1, 1.2, 1.1
    curve |= {57: 1.3, 60: 0.9, 58: 1.1, 59: 1.0}
    found = search(measure, 8, MOST, 5)
    assert found.low <= found.high


def test_a_layer_of_two_densities():
    found = search(scripted(efficiency(0.99)), 63, MOST)
    assert len(found.points) == 2
    assert found.answer in (Answer.FOUND, Answer.ALWAYS, Answer.NEVER)


def test_a_point_that_fails_ends_the_search():
    ok = scripted(efficiency(0.6))

    def measure(blocks):
        if blocks not in (8, MOST):
            raise Failed("no memory", "oom")
        return ok(blocks)

    with pytest.raises(Failed, match="oom: no memory") as caught:
        search(measure, 8, MOST)
    assert [p.blocks for p in caught.value.points] == [MOST, 8]
    assert caught.value.status == "oom"


@pytest.mark.parametrize("points", [4, 10])
def test_points_out_of_range(points):
    with pytest.raises(ValueError, match="expected 5 to 9 points"):
        search(scripted(efficiency(0.5)), 8, MOST, points)
