"""Each process's share of a batch: together they are the batch, and none waits for another."""

from __future__ import annotations

import importlib
import itertools

import pytest
import torch

from bench.accuracy.data import DataError, load, stream
from bench.accuracy.data.share import Share
from tests.data_samples import write_batches, write_photographs

SIZE = 16


@pytest.mark.parametrize(("images", "ranks"), [(8, 2), (9, 2), (7, 3), (1, 4), (5, 5)])
def test_shares_of_a_batch_are_equally_many_and_lose_none(images, ranks):
    shares = [Share(rank, ranks).of_batch(images).tolist() for rank in range(ranks)]
    assert {len(each) for each in shares} == {-(-images // ranks)}
    together = list(itertools.chain(*shares))
    assert together[:images] == list(range(images))
    # what fills the last one up are the first ones again
    assert together == [n % images for n in range(len(together))]


def test_every_test_image_is_in_one_share():
    shares = [Share(rank, 3).of_tests(10).tolist() for rank in range(3)]
    assert sorted(itertools.chain(*shares)) == list(range(10))


def test_a_rank_that_is_not_there_is_refused():
    with pytest.raises(DataError, match=r"a rank in 0 \.\.\. 1, got 2"):
        load("digits").shard(2, 2)


@pytest.fixture(scope="module", params=["split", "stream"])
def data(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "split":
        return load("cifar10", write_batches(folder / "cifar-10-batches-py").parent)
    return stream("imagenet", write_photographs(folder), size=SIZE, workers=0)


def epoch(data, augment):
    return list(data.train_batches(4, torch.Generator().manual_seed(5), augment))


@pytest.mark.parametrize("augment", [False, True])
def test_shards_are_parts_of_the_whole_batches_with_their_crops(data, augment):
    whole = epoch(data, augment)
    shards = [epoch(data.shard(rank, 2), augment) for rank in range(2)]
    assert [len(each) for each in shards] == [len(whole)] * 2
    for (x, y), *parts in zip(whole, *shards, strict=True):
        for rank, (images, labels) in enumerate(parts):
            mine = Share(rank, 2).of_batch(len(y))
            assert torch.equal(images, x[mine])
            assert torch.equal(labels, y[mine])


def test_shards_leave_the_generators_alike(data):
    states = []
    for each in (data, data.shard(0, 2), data.shard(1, 2)):
        generator = torch.Generator().manual_seed(1)
        list(each.train_batches(4, generator, augment=True))
        states.append(generator.get_state())
    assert all(torch.equal(state, states[0]) for state in states)


def test_shards_test_every_image_once(data):
    whole = torch.cat([x for x, _ in data.test_batches()])
    shards = [data.shard(rank, 3).to("cpu") for rank in range(3)]
    parts = [torch.cat([x for x, _ in each.test_batches(2)]) for each in shards]
    assert sum(map(len, parts)) == len(whole)
    for rank, images in enumerate(parts):
        assert torch.equal(images, whole[rank::3])
    assert shards[0].facts == data.facts


def test_a_smaller_shard_is_a_shard_still(data):
    small = data.shard(0, 2).take(train=10 if data.facts.classes == 10 else 4)
    assert len(epoch(small, False)[0][1]) == 2


def test_a_stream_opens_its_own_files_alone(tmp_path, monkeypatch):
    module = importlib.import_module("bench.accuracy.data.stream")  # the package's is the function
    opened, read = [], module.pixels_of
    monkeypatch.setattr(module, "pixels_of", lambda *a: opened.append(a[0]) or read(*a))
    data = stream("imagenet", write_photographs(tmp_path), size=SIZE, workers=0)
    epoch(data.shard(1, 3), True)
    assert len(opened) == 2 + 2 + 1  # of batches of 4, 4 and 1


def test_a_share_without_a_readable_image_ends_the_run(tmp_path):
    root = write_photographs(tmp_path)
    data = stream("imagenet", root, size=SIZE, workers=0, skip_unreadable=True)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(5)).tolist()
    for row in order[2:4]:  # all of the second share of the first batch
        data.train.path(row).write_bytes(b"no image")
    assert len(epoch(data.shard(0, 2), False)) == 3
    with pytest.raises(DataError, match=r"got none of 2 on rank 1: .*JPEG"):
        epoch(data.shard(1, 2), False)
    assert [len(y) for _, y in epoch(data, False)] == [2, 4, 1]
