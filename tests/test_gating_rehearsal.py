"""bench.gating.rehearsal: the pool, and virtual trials."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bench.gating.rehearsal import BLOCK, CELLS, Pool, Virtual, favoured, pool_of
from tests.gating_samples import UNLIMITED, numbered

ROLES = ("base", "head", "again")


def record(trial: int, role: str, cells: dict[str, list[float]]) -> dict[str, Any]:
    """Return what a process leaves; ``cells`` are the logarithms of its laps."""
    lines = [{"cell_id": c, "samples_s": np.exp(logs).tolist()} for c, logs in cells.items()]
    return {"trial": trial, "role": role, "measurements": lines}


def trial(number: int, **cells: tuple[float, float, float]) -> list[dict[str, Any]]:
    """Return a trial of three laps that are all the same."""
    return [
        record(number, role, {c: [logs[i]] * 3 for c, logs in cells.items()})
        for i, role in enumerate(ROLES)
    ]


def virtual(source: Pool, seed: int = 0, budget_s: float = UNLIMITED, **planted: float) -> Virtual:
    """Return a virtual run of a pool that is not drawn anew; cells are named c0, c1, ..."""
    slow = {name[1:]: effect for name, effect in planted.items()}
    rng = np.random.default_rng(seed)
    return Virtual(source, rng, slow, budget_s, np.arange(source.trials))


# --- the pool -----------------------------------------------------------------------------


def test_each_of_the_three_stands_for_head_once() -> None:
    found = pool_of(trial(1, a=(0.0, 0.3, 0.1)) + trial(2, a=(0.2, 0.2, 0.6)), 1.0, 2.0)
    assert found.d.shape == found.a.shape == (1, 3, 2)
    # trial 1: 0.3 - (0 + 0.1) / 2, 0.1 - (0.3 + 0) / 2, 0 - (0.1 + 0.3) / 2
    assert found.d[0, :, 0] == pytest.approx([0.25, -0.05, -0.20])
    assert found.a[0, :, 0] == pytest.approx([0.1, -0.3, 0.2])
    assert found.d[0, :, 1] == pytest.approx([-0.2, 0.4, -0.2])
    assert found.a[0, :, 1] == pytest.approx([0.4, 0.0, -0.4])
    assert (found.trials, found.fixed_s, found.cell_s) == (2, 1.0, 2.0)


def test_laps_are_paired_whoever_stands_for_head() -> None:
    laps = {"base": [0.0, 1.0, 2.0], "head": [1.5, 0.1, 2.1], "again": [0.0, 1.0, 2.0]}
    records = [record(t, role, {"a": laps[role]}) for t in (1, 2) for role in ROLES]
    found = pool_of(records, 0.0, 0.0)
    assert found.d[0, 0].tolist() == pytest.approx([0.1, 0.1])
    # again - (head + base) / 2, by lap: -0.75, 0.45, -0.05
    assert found.d[0, 1].tolist() == pytest.approx([-0.05, -0.05])


def test_trials_are_in_the_order_in_which_they_were_made_and_roles_in_any() -> None:
    one, two, ten = (trial(n, a=(0.0, n / 100, 0.0)) for n in (1, 2, 10))
    found = pool_of(ten[::-1] + one + two[1:] + two[:1], 0.0, 0.0)
    assert found.d[0, 0] == pytest.approx([0.01, 0.02, 0.10])


def test_seconds_are_the_median_over_all_laps_of_base() -> None:
    records = [
        record(t, role, {"a": logs if role == "base" else [9.0] * 3})
        for t, logs in ((1, [0.0, 0.1, 0.2]), (2, [0.3, 0.4, 5.0]))
        for role in ROLES
    ]
    assert pool_of(records, 0.0, 0.0).base_s.tolist() == pytest.approx(
        [(math.exp(0.2) + math.exp(0.3)) / 2]
    )


LAPS = [0.0, 0.1, 0.2]


@pytest.mark.parametrize(
    "spoilt",
    [
        {"base": LAPS, "head": LAPS},  # again has failed
        {"base": LAPS, "head": LAPS[:2], "again": LAPS},  # head stopped early
        {"base": [], "head": [], "again": []},
        {},
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_cell_that_failed_anywhere_is_left_out(spoilt: dict[str, Any], place: int) -> None:
    """Of eleven cells: the trial that lacks one of them still counts."""
    records = []
    for number in range(3):
        for role in ROLES:
            cells = {f"a{i}": [0.0] * 3 for i in range(10)}
            if number != place:
                cells["b"] = LAPS
            elif role in spoilt:
                cells["b"] = spoilt[role]
            records.append(record(number, role, cells))
    found = pool_of(records, 0.0, 0.0)
    assert found.d.shape == (10, 3, 3)
    assert found.base_s == pytest.approx([1.0] * 10)


def test_a_trial_that_lacks_more_than_a_tenth_of_the_cells_is_left_out() -> None:
    whole = {f"a{i}": (0.0,) * 3 for i in range(10)}
    less = dict(list(whole.items())[:8])
    found = pool_of(trial(1, **whole) + trial(2, **less) + trial(3, **whole), 0.0, 0.0)
    assert found.d.shape == (10, 3, 2)


def test_trials_in_the_heat_are_left_out() -> None:
    records = [r for t in (1, 2, 3) for r in trial(t, a=(0.0, t / 100, 0.0))]
    records[4]["measurements"][0]["flags"] = ["noisy", "throttled"]  # the second's head
    found = pool_of(records, 0.0, 0.0)
    assert found.d[0, 0] == pytest.approx([0.01, 0.03])


def test_a_harness_that_favours_base_is_seen_in_heads_place() -> None:
    trials = [trial(t, a=(0.0, e, 0.0), b=(0.1, e + 0.1, 0.1)) for t, e in enumerate((0.04, 0.06))]
    mean, low, high = favoured(pool_of([r for t in trials for r in t], 0.0, 0.0))
    # means 0.04 and 0.06: 0.05 +- 12.706 * 0.01 (Student's t, one degree of freedom)
    assert [math.log1p(e) for e in (mean, low, high)] == pytest.approx(
        [0.05, 0.05 - 0.12706, 0.05 + 0.12706], abs=1e-5
    )


@pytest.mark.parametrize("records", [[], trial(1, a=(0.0, 0.1, 0.2))])
def test_less_than_two_trials_are_no_pool(records: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=f"two trials with times, got {len(records) // 3} with"):
        pool_of(records, 0.0, 0.0)


def test_nor_are_trials_without_a_cell_that_all_have() -> None:
    with pytest.raises(ValueError, match="got 2 with 0 cells"):
        pool_of(trial(1, a=(0.0,) * 3) + trial(2, b=(0.0,) * 3), 0.0, 0.0)


# --- virtual trials -----------------------------------------------------------------------


@pytest.mark.parametrize(("cells", "wanted"), [(30, CELLS), (20, CELLS), (7, 7), (2, 2)])
def test_a_run_has_20_different_cells_or_all(cells: int, wanted: int) -> None:
    picks = virtual(numbered(cells, 5)).picks
    assert list(picks) == [str(i) for i in range(wanted)]
    assert len(set(picks.values())) == wanted
    assert all(0 <= cell < cells for cell in picks.values())
    others = [virtual(numbered(cells, 5), seed=seed).picks for seed in range(1, 9)]
    assert any(picks != other for other in others)


def test_a_trial_and_who_is_head_in_it_are_the_same_for_all_cells() -> None:
    source = virtual(numbered(14, 50))
    roles = set()
    for _ in range(12):
        found = source.take(["3", "11", "0"])
        assert list(found) == ["3", "11", "0"]
        at = set()
        for name, each in found.items():
            number = round(1e5 * each.d)
            cell = source.picks[name]
            assert divmod(number, 1000)[0] == cell
            assert each.a == -each.d
            assert each.base_s == pytest.approx(1e-3 * (1 + cell))
            assert each.head_s == pytest.approx(each.base_s * math.exp(each.d))
            assert each.timed
            at.add(number % 1000)  # role and trial
        assert len(at) == 1
        roles.add(at.pop() // 100)
    assert roles == {0, 1, 2}


def test_neighbours_are_drawn_together() -> None:
    drawn = np.array([5, 6, 7, 2, 3, 4, 0, 1])
    rng = np.random.default_rng(3)
    source = Virtual(numbered(7, 8), rng, {}, UNLIMITED, drawn)
    took = [round(1e5 * source.take(["0"])["0"].d) % 100 for _ in range(40 * BLOCK)]
    places = [drawn.tolist().index(each) for each in took]
    blocks = [places[i : i + BLOCK] for i in range(0, len(places), BLOCK)]
    assert all(block == [(block[0] + i) % 8 for i in range(BLOCK)] for block in blocks)
    assert {block[0] for block in blocks} == set(range(8))


def test_the_slow_down_is_planted_in_its_cell_alone() -> None:
    usual, slow = virtual(numbered(7, 9)), virtual(numbered(7, 9), c4=0.10)
    assert usual.picks == slow.picks
    one, other = usual.take(list(usual.picks)), slow.take(list(slow.picks))
    for name in usual.picks:
        if name != "4":
            assert one[name] == other[name]
            continue
        assert other[name].d - one[name].d == pytest.approx(math.log(1.10))
        assert other[name].head_s / one[name].head_s == pytest.approx(1.10)
        assert (other[name].a, other[name].base_s) == (one[name].a, one[name].base_s)


def test_time_passes_by_trials_and_cells() -> None:
    source = virtual(numbered(20, 9), budget_s=25.0)  # 2 s a trial, and 0.5 s a cell
    assert source.affords(20, 2)
    assert not source.affords(20, 3)
    source.take([str(i) for i in range(20)])
    assert source.seconds == 12.0
    assert source.affords(22)
    assert not source.affords(23)
    source.take(["0"])
    assert source.seconds == 14.5
