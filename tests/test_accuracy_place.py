"""What torchrun's variables say of a process, and what is refused of them."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from bench import cli
from bench.accuracy import Run, command, one_run
from bench.accuracy.place import NAMES, Place, place_of
from bench.accuracy.ranks import ALONE, Team, joined
from tests.accuracy_samples import HAND, TINY, few

__all__ = ["few"]  # a fixture: pytest finds it by name

RIGHT = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "here", "MASTER_PORT": "29500",
}  # fmt: skip


@pytest.fixture
def under_torchrun(monkeypatch):
    for name, value in RIGHT.items():
        monkeypatch.setenv(name, value)


def test_torchruns_variables_are_read():
    assert place_of(RIGHT) == Place(5, 8, 1, 4)
    assert not place_of(RIGHT).first
    assert place_of({"MASTER_ADDR": "here"}) == Place(0, 1, 0, 1)
    alone = dict.fromkeys(NAMES, "0") | {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    assert place_of(alone) == Place()  # nobody to meet


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"RANK": None}, "RANK, WORLD_SIZE, .* together, as torchrun sets them, got no RANK;"),
        ({"LOCAL_RANK": None, "RANK": None}, "got no RANK, no LOCAL_RANK; unset the others"),
        ({"RANK": "one"}, "RANK as an int >= 0, as torchrun sets it, got 'one'"),
        ({"RANK": "-1"}, "RANK as an int >= 0, .* got '-1'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE as an int >= 1, .* got '0'"),
        ({"LOCAL_WORLD_SIZE": ""}, "LOCAL_WORLD_SIZE as an int >= 1, .* got ''"),
        ({"RANK": "8"}, "RANK in range of its world, got RANK=8, WORLD_SIZE=8"),
        ({"LOCAL_RANK": "4"}, "LOCAL_RANK in range of its world, got .*LOCAL_RANK=4"),
        ({"LOCAL_WORLD_SIZE": "9"}, "LOCAL_WORLD_SIZE in range of its world"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR beside RANK, as torchrun sets it, got none"),
    ],
)
def test_variables_that_do_not_fit_are_refused(change, words):
    given = {k: v for k, v in (RIGHT | change).items() if v is not None}
    with pytest.raises(ValueError, match=words):
        place_of(given)


def test_the_command_refuses_them_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(command, "train_plan", lambda *_: pytest.fail("trained"))
    answer = CliRunner().invoke(cli.app, ["accuracy", "--out", str(tmp_path)])
    assert answer.exit_code == 2
    assert "error: expected RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE" in answer.stderr


def test_more_ranks_than_gpus_are_refused(under_torchrun, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    words = "at most one rank a GPU, got 4 ranks on a machine with 2; give torchrun a smaller"
    with pytest.raises(ValueError, match=words), joined("cuda"):
        pytest.fail("joined")


def test_one_process_joins_nobody(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    with joined("cpu") as team:
        assert team is ALONE
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("local", "asked", "threads"),
    [(1, "", 8), (4, "", 2), (16, "", 1), (4, "1", 1), (4, "8", 2), (1, "3", 3)],
)
def test_ranks_of_a_machine_share_its_cores(local, asked, threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    for module in (command, command.use_all_cores.__globals__):
        if isinstance(module, dict):
            monkeypatch.setitem(module, "cores", lambda: 8)
        else:
            monkeypatch.setattr(module, "cores", lambda: 8)
    before = torch.get_num_threads()
    try:
        assert command.share_cores(Place(0, local, 0, local)) == threads
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_batch_has_two_images_for_every_rank():
    TINY.check_ranks(15)
    with pytest.raises(ValueError, match="at least 32 images, two for each of 16 ranks, got 30"):
        TINY.check_ranks(16)


def test_ranks_are_in_the_recipe_where_there_are_several():
    each = Run("aligned", 0.25, 0)
    names = [TINY.run_id(each, "cpu", HAND, ranks) for ranks in (1, 2, 3)]
    assert names[0] == TINY.run_id(each, "cpu", HAND)
    assert len(set(names)) == 3
    assert "ranks" not in TINY.recipe(each, "cpu", HAND, 1)
    assert TINY.recipe(each, "cpu", HAND, 2)["ranks"] == 2


def test_out_of_memory_on_one_of_several_ranks_ends_it(few, tmp_path, monkeypatch):
    def greedy(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(one_run, "_trained", greedy)
    sitting = one_run.Sitting(TINY, few, "cpu", "here", tmp_path, 0, Team(Place(1, 2, 1, 2)))
    words = r"dense density 1 seed 0, one of 2 ranks: a batch of 30 .* smaller --batch \(no room\)"
    with pytest.raises(RuntimeError, match=words):
        one_run.line_of(Run("dense", 1.0, 0), sitting, "x", None)  # type: ignore[arg-type]
