"""bench.gating.trials: three processes take turns; what one of them does to a cell is told."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bench.gating.child import READY_S, STEP_S
from bench.gating.order import chunked, turns
from bench.gating.readings import Reading
from bench.gating.trials import LEAST_LAPS, MOST_LAPS, ROLES, TURN_S, Machine, held_bytes
from bench.records import Flag, Status
from tests.gating_world import NAMES, Stand, World, stand_in
from tests.store_samples import CALM


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def machine(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return stand_in(world, tmp_path, monkeypatch)


def roles_of(world: World, trial: int) -> dict[int, str]:
    return {r["place"]: r["role"] for r in world.records if r["trial"] == trial}


# --- order --------------------------------------------------------------------------------


def test_every_role_starts_first_second_and_third_in_turn(world, machine) -> None:
    for _ in range(6):
        machine.take(NAMES)
    places = [roles_of(world, trial) for trial in range(1, 7)]
    for half in (places[:3], places[3:]):
        assert {(p, r) for found in half for p, r in found.items()} == {
            (place, role) for place in range(3) for role in ROLES
        }
    started = [(c.trial, c.place, c.side.name) for c in world.children]
    assert started == [
        (t, p, "head" if roles_of(world, t)[p] == "head" else "base")
        for t in range(1, 7)
        for p in range(3)
    ]


def test_the_three_take_turns_group_by_group_and_lap_by_lap(world, machine) -> None:
    machine.take(NAMES)
    turns = world.turns()
    groups = [turns[3 * i][1] for i in range(len(NAMES))]
    assert sorted(name for group in groups for name in group) == sorted(NAMES)
    firsts = []
    for lap in range(len(turns) // (3 * len(groups))):
        of_lap = turns[3 * len(groups) * lap :][: 3 * len(groups)]
        order = [place for place, _ in of_lap[:3]]
        assert sorted(order) == [0, 1, 2]
        assert of_lap == [(place, group) for group in groups for place in order]
        firsts.append(order[0])
    assert firsts == [lap % 3 for lap in range(LEAST_LAPS)]


def test_all_are_ready_before_one_after_the_other_prepares_and_warms_up(world, machine) -> None:
    machine.take(NAMES)
    assert [(place, do) for _, place, do, _ in world.log if do != "turn"] == [
        *((p, "prepare") for p in range(3)),
        *((p, "warm") for p in range(3)),
        *((p, "finish") for p in range(3)),
    ]


def test_a_process_of_a_side_shares_its_folder_with_that_side_alone(world, machine) -> None:
    machine.take(NAMES)
    caches = {(c.side.name, c.request["cache"]) for c in world.children}
    assert caches == {(n, str(machine.folder / f"cache-{n}")) for n in ("base", "head")}
    assert all(c.request["impls"] == ["block_sparse"] for c in world.children)


def test_cells_are_shuffled_anew_in_each_trial_alike_for_all_three(world, machine) -> None:
    for _ in range(8):
        machine.take(NAMES)
    orders = [[c.names for c in world.children if c.trial == t] for t in range(1, 9)]
    assert all(three[0] == three[1] == three[2] for three in orders)
    assert all(sorted(three[0]) == sorted(NAMES) for three in orders)
    assert len({tuple(three[0]) for three in orders}) > 3


def test_noise_adds_laps_and_their_number_is_capped(world, machine) -> None:
    world.seconds = lambda place, name, lap: 1e-3 * (1 + 0.4 * ((lap + place) % 3))
    machine.take(NAMES)
    assert len(world.turns()) == 3 * len(NAMES) * MOST_LAPS


@pytest.mark.parametrize(
    ("seconds", "groups"),
    [
        ([], []),
        ([1.0, 1.0], ["a", "b"]),
        ([0.01, 0.01, 0.01], ["abc"]),
        ([0.03, 0.03, 0.03, 0.03], ["ab", "cd"]),
        ([0.01, 1.0, 0.01, 0.01], ["ab", "cd"]),
        ([0.05, 0.01, 0.05], ["a", "bc"]),
    ],
)
def test_cells_of_a_turn_take_about_a_tenth_of_a_second(seconds, groups) -> None:
    names = "abcd"[: len(seconds)]
    found = turns(list(names), dict(zip(names, seconds, strict=True)), TURN_S)
    assert ["".join(group) for group in found] == groups


@pytest.mark.parametrize(
    ("sizes", "chunks"),
    [
        ([], []),
        ([4, 4, 2], ["abc"]),
        ([4, 4, 3], ["ab", "c"]),
        ([99, 1, 1, 99], ["a", "bc", "d"]),
        ([10, 10], ["a", "b"]),
    ],
)
def test_cells_are_held_together_up_to_a_size_and_none_is_left_out(sizes, chunks) -> None:
    names = "abcd"[: len(sizes)]
    found = chunked(list(names), dict(zip(names, sizes, strict=True)), most=10)
    assert ["".join(chunk) for chunk in found] == chunks


def test_what_does_not_fit_together_is_taken_apart(world, machine, monkeypatch) -> None:
    size = held_bytes(machine.cells[NAMES[0]])
    monkeypatch.setattr("bench.gating.trials.CHUNK_BYTES", {"cpu": 3 * size})
    found = machine.take(NAMES)
    assert list(found) == NAMES
    assert all(each.timed for each in found.values())
    assert [sorted(c.names) for c in world.children[::3]] == [sorted(NAMES[:3]), NAMES[3:]]
    assert [record["trial"] for record in world.records] == [1, 1, 1, 2, 2, 2]


def test_a_size_is_about_what_a_process_holds(machine) -> None:
    """At least inputs and the oracle's output; at most three times all tensors in float64."""
    shape = machine.cells[NAMES[0]].case.shape
    x, y = shape.N * shape.C * shape.H * shape.W, shape.N * shape.K * shape.P * shape.Q
    weight = shape.K * shape.C * shape.R * shape.S
    assert 4 * (x + y + weight) + 8 * max(x, y) <= held_bytes(machine.cells[NAMES[0]])
    assert held_bytes(machine.cells[NAMES[0]]) <= 3 * 8 * (x + y + weight)


def test_making_and_checking_cells_may_take_longer_than_a_step(world, machine) -> None:
    machine.take(NAMES)
    for do in ("", "prepare", "finish"):  # the first is: to be ready
        assert world.waited[do] == {READY_S}
    assert world.waited["warm"] == world.waited["turn"] == {STEP_S}


def test_the_slowest_of_the_three_makes_the_groups(world, machine) -> None:
    world.turn_s = dict.fromkeys(NAMES, TURN_S / 16)
    machine.take(NAMES)
    assert {len(group) for _, group in world.turns(1)} == {4}
    real = Stand._warm

    def warm(self: Stand, cells: object) -> dict[str, float]:
        return {n: TURN_S if self.place == 2 else s for n, s in real(self, cells).items()}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Stand, "_warm", warm)
        machine.take(NAMES)
    assert {len(group) for _, group in world.turns(2)} == {1}


# --- what is read -------------------------------------------------------------------------


def test_a_reading_compares_head_with_both_of_base(world, machine) -> None:
    """In the first trial head starts first, base's second process next, its first one last."""
    times = {0: 1.3e-3, 1: 1.1e-3, 2: 1.0e-3}
    world.seconds = lambda place, name, lap: times[place]
    found = machine.take(NAMES)
    assert roles_of(world, 1) == {0: "head", 1: "again", 2: "base"}
    assert list(found) == NAMES
    for each in found.values():
        assert each.d == pytest.approx(math.log(1.3) - math.log(1.1) / 2)
        assert each.a == pytest.approx(math.log(1.1))
        assert each.base_s == pytest.approx(1e-3 * 1.1**0.5)
        assert each.head_s == pytest.approx(1.3e-3)
        assert (each.base, each.head, each.throttled, each.timed) == (None, None, False, True)


def test_a_slow_lap_moves_no_reading(world, machine) -> None:
    world.seconds = lambda place, name, lap: 1e-3 * (50 if lap == 2 else 1)
    assert all(r.d == r.a == 0 for r in machine.take(NAMES).values())


def test_heat_is_told(world, machine) -> None:
    world.flags = (Flag.BIMODAL, Flag.THROTTLED)
    for each in machine.take(NAMES).values():
        assert (each.flags, each.throttled, each.timed) == (("bimodal", "throttled"), True, False)


def test_a_record_is_kept_for_every_process(world, machine) -> None:
    machine.take(NAMES)
    machine.take(NAMES[:2])
    assert [(r["trial"], r["role"], r["side"], r["place"]) for r in world.records] == [
        (1, "head", "head", 0), (1, "again", "base", 1), (1, "base", "base", 2),
        (2, "again", "base", 0), (2, "base", "base", 1), (2, "head", "head", 2),
    ]  # fmt: skip
    for record in world.records:
        found = {line["cell_id"] for line in record["measurements"]}
        assert found == set(NAMES if record["trial"] == 1 else NAMES[:2])
        assert all(tuple(line["samples_s"]) == CALM for line in record["measurements"])
    assert {n: e["of"] for n, e in machine.environments.items()} == {"base": "base", "head": "head"}
    assert machine.made == 2


@pytest.mark.parametrize("side", ["base", "head"])
def test_a_cell_that_is_not_ok_in_one_process_is_out_for_all_three(world, machine, side) -> None:
    world.outcomes[side, NAMES[1]] = Status.SKIPPED
    found = machine.take(NAMES)
    out = Reading(**{side: ("skipped", "because")})
    assert found.pop(NAMES[1]) == out
    assert all(each.timed for each in found.values())
    assert all(NAMES[1] not in group for _, group in world.turns())


@pytest.mark.parametrize("place", [1, 2])
def test_one_of_bases_two_processes_is_enough_to_be_out(world, machine, place) -> None:
    world.outcomes[place, NAMES[1]] = Status.OOM
    found = machine.take(NAMES)
    assert {roles_of(world, 1)[p] for p in (1, 2)} == {"base", "again"}
    assert found[NAMES[1]] == Reading(base=("oom", "because"))


def test_all_cells_out_is_a_trial_too(world, machine) -> None:
    for name in NAMES:
        world.outcomes["base", name] = world.outcomes["head", name] = Status.OOM
    told = ("oom", "because")
    assert machine.take(NAMES) == dict.fromkeys(NAMES, Reading(base=told, head=told))
    assert not [group for _, group in world.turns() if group]
