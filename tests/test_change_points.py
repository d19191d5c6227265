"""Steps of a series: planted ones are found, noise has none, and the limits are what is said."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest

from bench import change_points
from bench.change_points import LEAST_NOISE, LEAST_STEP, Segmented, noise, penalty, segmented

EIGHT = math.log(1.08)


def series(n: int, at: int, size: float, spread: float, seed: int) -> list[float]:
    values = np.random.default_rng(seed).normal(0, spread, n)
    values[at:] += size
    return values.tolist()


def places(found: Segmented) -> list[int]:
    return [step.first for step in found.steps]


def alarms(n: int, seeds: int, draw=None, together: int = 1) -> int:
    """Return in how many series of pure noise (1.5 %, no least step) a step is called."""
    draw = draw or (lambda rng, count: rng.normal(0, 0.015, count))
    return sum(
        bool(segmented((10 * draw(np.random.default_rng([n, seed]), n)).tolist(), together).steps)
        for seed in range(seeds)
    )


# --- what is found ------------------------------------------------------------------------


@pytest.mark.parametrize("at", [10, 14, 17])
def test_eight_per_cent_in_twenty_folders_at_noise_of_one_and_a_half(at: int) -> None:
    found = [segmented(series(20, at, EIGHT, 0.015, seed), series=4) for seed in range(60)]
    near = [f for f in found if len(f.steps) == 1 and abs(f.steps[0].first - at) <= 1]
    exact = [f for f in near if f.steps[0].first == at]
    assert len(near) >= 54
    assert len(exact) >= 0.9 * len(near)
    sizes = [f.steps[0].size for f in exact]
    assert np.mean(sizes) == pytest.approx(EIGHT, abs=0.005)
    covered = [abs(f.steps[0].size - EIGHT) <= f.steps[0].half for f in exact]
    assert np.mean(covered) >= 0.85


def test_levels_are_those_of_the_segments() -> None:
    found = segmented(series(20, 12, EIGHT, 0.001, 1))
    assert places(found) == [12]
    assert len(found.levels) == 20
    assert len(set(found.levels)) == 2
    assert found.levels[0] == pytest.approx(0, abs=0.001)
    assert found.levels[-1] == pytest.approx(EIGHT, abs=0.001)
    assert found.steps[0].size == pytest.approx(found.levels[-1] - found.levels[0])


def test_a_step_that_is_undone_is_two() -> None:
    values = series(24, 8, EIGHT, 0.005, 3)
    values[16:] = [value - EIGHT for value in values[16:]]
    found = segmented(values)
    assert places(found) == [8, 16]
    assert found.steps[0].size == pytest.approx(-found.steps[1].size, abs=0.01)


def test_two_runs_at_an_end_make_a_step_and_one_does_not() -> None:
    calm = series(12, 12, 0, 0.004, 5)
    assert places(segmented([*calm, *(v + 0.2 for v in calm[:2])])) == [12]
    assert places(segmented([*(v + 0.2 for v in calm[:2]), *calm])) == [2]
    assert places(segmented([*calm, calm[0] + 0.2])) == []


@pytest.mark.parametrize("stray", [-2.0, -0.3, 0.3, 2.0])
def test_one_stray_run_is_no_step_wherever_it_stands(stray: float) -> None:
    for n, seed in ((5, 1), (9, 2), (20, 3)):
        for at in range(n):
            values = series(n, n, 0, 0.004, seed)
            values[at] += stray
            assert places(segmented(values)) == []


def test_stray_runs_do_not_hide_a_step_or_move_its_level() -> None:
    values = series(20, 10, EIGHT, 0.004, 7)
    values[4] += 0.5
    values[16] -= 0.5
    found = segmented(values)
    assert places(found) == [10]
    assert found.steps[0].size == pytest.approx(EIGHT, abs=0.01)


def test_nothing_below_three_per_cent_is_a_step() -> None:
    for size, count in ((0.029, 0), (-0.029, 0), (0.031, 1), (-0.031, 1)):
        change = math.copysign(math.log1p(abs(size)), size)
        assert len(segmented([0.0] * 10 + [change] * 10).steps) == count


def test_a_creep_of_small_steps_becomes_one_that_counts() -> None:
    values = [0.015 * (i // 5) for i in range(30)]
    found = segmented(values)
    assert found.steps
    assert all(step.size >= math.log1p(LEAST_STEP) for step in found.steps)
    assert sum(step.size for step in found.steps) == pytest.approx(0.075, abs=0.03)


# --- what is not --------------------------------------------------------------------------


def test_pure_noise_has_no_step() -> None:
    """Of one series in a hundred noise may make a step; of 900, 9 are expected, 20 are too many."""
    assert sum(alarms(n, 180) for n in (4, 5, 8, 12, 20)) <= 20


def test_that_bound_is_broken_where_the_price_is_the_usual_one(monkeypatch) -> None:
    monkeypatch.setattr(change_points, "penalty", lambda n, series=1: 2 * math.log(n))
    assert sum(alarms(n, 60) for n in (4, 5, 8, 12, 20)) > 20


def test_heavy_tails_make_few_steps() -> None:
    def tailed(rng, count):
        return 0.01 * rng.standard_t(3, count)

    assert sum(alarms(n, 150, tailed) for n in (6, 12, 20)) <= 15


def test_judged_together_many_series_make_no_more_steps_than_one() -> None:
    assert alarms(12, 300, together=60) <= 2


def test_few_runs_show_no_steps_and_say_so() -> None:
    for n in range(4):
        found = segmented([0.0, 0.0, 5.0, 5.0][:n])
        assert found.steps == ()
        assert found.levels == ()
        assert math.isnan(found.noise)
        assert math.isnan(found.recent)
    assert places(segmented([0.0, 0.0, 5.0, 5.0])) == [2]


# --- what is said about it ----------------------------------------------------------------


@pytest.mark.parametrize("n", [8, 12, 20])
@pytest.mark.parametrize("where", ["middle", "recent"])
def test_steps_of_the_size_that_is_said_to_be_seen_are_seen(n: int, where: str) -> None:
    """Said of a series of noise alone; then such a step is planted in that very series."""
    at = n - n // 2 if where == "middle" else n - 2
    called = []
    for seed in range(100):
        values = np.array(series(n, n, 0, 0.02, seed))
        values[at:] += math.log1p(getattr(segmented(values.tolist()), where))
        called.append(any(step.size > 0 for step in segmented(values.tolist()).steps))
    assert np.mean(called) >= 0.85


def test_noise_is_that_of_a_run_and_steps_do_not_touch_it() -> None:
    for size in (0.0, 1.0):
        found = [noise(np.array(series(20, 9, size, 0.015, seed))) for seed in range(300)]
        assert np.sqrt(np.mean(np.square(found))) == pytest.approx(0.015, rel=0.15)
    # four steps in nineteen differences: fourteen are kept of the fifteen that are left, where
    # fourteen of nineteen are expected, and so it errs to the safe side
    staircase = np.arange(20) // 4 * 1.0
    values = [noise(staircase + np.array(series(20, 20, 0, 0.015, seed))) for seed in range(300)]
    assert 0.015 < np.sqrt(np.mean(np.square(values))) < 1.5 * 0.015
    assert noise(np.zeros(5)) == LEAST_NOISE


def test_a_price_grows_with_the_series_and_falls_with_what_is_known() -> None:
    assert penalty(20, 4) > penalty(20, 1)
    assert penalty(6) > penalty(12) > penalty(30) > 2 * math.log(30)


def cheapest(values: list[float], price: float, cap: float) -> float:
    """Return the cost of the best segmentation by trying every one, on a fine grid of levels."""
    n = len(values)
    grid = np.linspace(min(values), max(values), 4001)[:, None]

    def cost(a: int, b: int) -> float:
        return float(np.minimum((np.array(values[a:b]) - grid) ** 2, cap**2).sum(axis=1).min())

    table = {(a, b): cost(a, b) for a, b in itertools.combinations(range(n + 1), 2)}
    found = math.inf
    for count in range(n):
        for inner in itertools.combinations(range(1, n), count):
            edges = [0, *inner, n]
            total = sum(table[a, b] for a, b in itertools.pairwise(edges)) + price * count
            found = min(found, total)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_the_segmentation_is_the_cheapest_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scaled = rng.normal(0, 1, 9) + 4 * rng.integers(0, 3, 9) + np.repeat(rng.normal(0, 6, 3), 3)
    price = 9.0
    cap = math.sqrt(0.75 * price)
    edges = change_points._pelt(scaled, price, cap)
    fits = [change_points._fit(scaled[a:b], cap)[0] for a, b in itertools.pairwise(edges)]
    own = sum(fits) + price * (len(edges) - 2)
    assert own == pytest.approx(cheapest(scaled.tolist(), price, cap), abs=0.01)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="expected finite values"):
        segmented([0.0, 0.0, bad, 0.0])


def test_without_ruptures_one_sentence_names_the_command(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ruptures", None)
    assert segmented([0.0, 1.0, 2.0]).steps == ()  # too few for steps: nothing is needed
    with pytest.raises(ImportError, match="expected the package ruptures") as error:
        segmented([0.0] * 8)
    assert "pip install -c constraints.txt ruptures" in str(error.value)
