"""bench.gating.trials: whoever ends a process twice is blamed, and the other cells go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.gating.child import Died
from bench.gating.readings import Reading
from bench.gating.trials import Machine
from tests.gating_world import NAMES, Stand, World, stand_in


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def machine(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return stand_in(world, tmp_path, monkeypatch)


def all_ended(world: World) -> bool:
    return bool(world.children) and all(child.ended for child in world.children)


@pytest.mark.parametrize("side", ["base", "head"])
def test_a_death_is_tried_once_more_then_blamed_and_the_others_go_on(world, machine, side) -> None:
    world.deaths[side, NAMES[2]] = 99
    found = machine.take(NAMES)
    assert found.pop(NAMES[2]) == Reading(**{side: ("crashed", f"{world.reason}, twice")})
    assert list(found) == [n for n in NAMES if n != NAMES[2]]
    assert all(each.timed for each in found.values())
    assert machine.made == 3
    assert all(NAMES[2] not in child.names for child in world.children if child.trial == 3)
    assert {record["trial"] for record in world.records} == {3}
    assert all_ended(world)


def test_one_hiccup_leaves_no_mark(world, machine) -> None:
    world.deaths["head", NAMES[0]] = 1
    assert all(each.timed for each in machine.take(NAMES).values())
    assert machine.made == 2
    assert all_ended(world)


def test_hiccups_of_two_cells_blame_nobody(world, machine) -> None:
    world.deaths |= {("head", NAMES[0]): 1, ("base", NAMES[1]): 1}
    assert all(each.timed for each in machine.take(NAMES).values())
    assert machine.made == 3


def test_two_cells_are_each_tried_twice(world, machine) -> None:
    world.deaths |= {("head", NAMES[0]): 99, ("base", NAMES[1]): 99}
    found = machine.take(NAMES)
    told = ("crashed", f"{world.reason}, twice")
    assert found[NAMES[0]] == Reading(head=told)
    assert found[NAMES[1]] == Reading(base=told)
    assert [found[n].timed for n in NAMES[2:]] == [True, True]
    assert machine.made == 5


def test_nobody_left_is_a_trial_of_blame_alone(world, machine) -> None:
    world.deaths["head", NAMES[0]] = 99
    assert list(machine.take(NAMES[:1])) == NAMES[:1]
    assert machine.made == 2
    assert world.records == []


def test_a_hang_is_a_timeout(world, machine) -> None:
    world.reason = "a step took longer than 120 s"
    world.deaths["head", NAMES[0]] = 99
    told = ("timeout", "a step took longer than 120 s, twice")
    assert machine.take(NAMES)[NAMES[0]] == Reading(head=told)


@pytest.mark.parametrize("no_api", [True, False])
def test_a_process_that_never_starts_is_an_error_after_two_tries(world, machine, no_api) -> None:
    world.deaths["base", None], world.no_api = 99, no_api
    with pytest.raises(Died) as found:
        machine.take(NAMES)
    assert (found.value.side, found.value.no_api, machine.made) == ("base", no_api, 2)
    assert all_ended(world)


def test_a_side_that_stops_loading_blames_no_cell(world, machine) -> None:
    world.deaths["head", NAMES[0]], world.no_api = 99, True
    with pytest.raises(Died):
        machine.take(NAMES)


def test_an_interrupt_ends_all_three(world, machine, monkeypatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Stand, "_turn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        machine.take(NAMES)
    assert (len(world.children), all_ended(world)) == (3, True)


def test_those_that_started_are_ended_when_another_does_not(world, machine, monkeypatch) -> None:
    real = world.start

    def start(*rest):
        if len(world.children) == 2:
            raise OSError("no process left")
        return real(*rest)

    monkeypatch.setattr("bench.gating.trials.Child", start)
    with pytest.raises(OSError, match="no process left"):
        machine.take(NAMES)
    assert (len(world.children), all_ended(world)) == (2, True)
